//! How MPI's ranks learn where to meet, and the token of the job.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs, UdpSocket};

use super::super::{Link, Others};
use crate::error::{Error, Result};
use crate::options::Options;
use crate::place::Place;
use crate::plane::{Meeting, Token, listen};

/// Bytes of rank 0's notice: a token, then an address or what went wrong.
const NOTICE: usize = 512;
const TOKEN: usize = 32;

/// Rank 0 listens, and tells the others where, by the collectives.
pub(super) fn meet(
    link: &mut dyn Link,
    place: &Place,
    options: &Options,
) -> Result<(Meeting, Option<TcpListener>)> {
    let mine = machine(place);
    let mut machines = vec![0; mine.len() * place.world_size];
    link.all_gather(&mine, &mut machines, Others::MayBeLate)?;
    let one_machine = machines.chunks_exact(mine.len()).all(|other| other == mine);
    let opened = (place.rank == 0).then(|| open(place, options, one_machine));
    let mut notice = vec![0; NOTICE];
    if let Some(opened) = &opened {
        notice = write_notice(opened.as_ref().map(|(meeting, _)| meeting));
    }
    link.broadcast(&mut notice, 0)?;
    match opened {
        Some(opened) => opened.map(|(meeting, listener)| (meeting, Some(listener))),
        None => Ok((read_notice(&notice)?, None)),
    }
}

/// What tells one machine from another. Processes with a network of their own are on one of their own.
fn machine(place: &Place) -> [u8; 32] {
    let boot = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let network = std::fs::read_link("/proc/self/ns/net").unwrap_or_default();
    let mut hasher = blake3::Hasher::new();
    hasher.update(place.host.as_bytes()).update(&boot);
    hasher.update(network.as_os_str().as_encoded_bytes());
    hasher.finalize().into()
}

fn open(place: &Place, options: &Options, one_machine: bool) -> Result<(Meeting, TcpListener)> {
    let address = match options.address {
        Some(address) => address,
        None if one_machine => IpAddr::V4(Ipv4Addr::LOCALHOST),
        None => own_address(&place.host)?,
    };
    let listener = listen(SocketAddr::new(address, 0))?;
    let system = |source| Error::System { what: "listen for the other ranks", source };
    let address = listener.local_addr().map_err(system)?;
    Ok((Meeting::new(address, Token::random()?), listener))
}

/// An address of this machine at which others reach it: what its name is looked up to, but not a loopback
/// (as Debian has it), or else the address from which it speaks to the world.
fn own_address(host: &str) -> Result<IpAddr> {
    let failed = |source| Error::Lookup { address: host.to_owned(), source };
    let looked_up = (host, 0).to_socket_addrs();
    let mut found = looked_up.into_iter().flatten().map(|address| address.ip());
    if let Some(address) = found.find(|address| !address.is_loopback()) {
        return Ok(address);
    }
    // Nothing is sent: this only chooses a way out. The address is one for documentation.
    let way_out = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(failed)?;
    let outward =
        way_out.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).and_then(|()| way_out.local_addr());
    outward.map(|address| address.ip()).map_err(failed)
}

fn write_notice(opened: Result<&Meeting, &Error>) -> Vec<u8> {
    let (token, text) = match opened {
        Ok(meeting) => (meeting.token.to_bytes(), meeting.address.to_string()),
        Err(error) => ([0; TOKEN], error.to_string()),
    };
    let mut notice = [token.as_slice(), text.as_bytes()].concat();
    notice.resize(NOTICE, 0);
    notice
}

fn read_notice(notice: &[u8]) -> Result<Meeting> {
    let (token, text) = notice.split_at(TOKEN);
    let text = String::from_utf8_lossy(text);
    let text = text.trim_end_matches('\0');
    let mut bytes = [0; TOKEN];
    bytes.copy_from_slice(token);
    match text.parse() {
        Ok(address) => Ok(Meeting::new(address, Token::from_bytes(bytes))),
        Err(_) => Err(Error::Mpi { why: format!("rank 0 found no place to meet: {text}") }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_carries_address_and_token() {
        let meeting = Meeting::new("10.0.0.7:4000".parse().unwrap(), Token::new("secret"));
        let read = read_notice(&write_notice(Ok(&meeting))).unwrap();
        assert_eq!(read.address, meeting.address);
        assert_eq!(read.token.to_bytes(), meeting.token.to_bytes());
    }

    #[test]
    fn a_notice_carries_what_went_wrong() {
        let error = read_notice(&write_notice(Err(&Error::NoRanks))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "MPI: rank 0 found no place to meet: a job needs at least one rank"
        );
    }
}
