//! Broadcasts the rendezvous address and the job's token over MPI.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs, UdpSocket};

use super::super::{Link, Polling};
use crate::control_plane::{JobToken, Rendezvous, listen};
use crate::error::{Error, Result};
use crate::options::CommunicatorOptions;
use crate::rank_info::RankInfo;

/// Bytes of rank 0's broadcast: the token, then the address or an error message.
const NOTICE: usize = 512;
const TOKEN: usize = 32;

/// Rank 0 starts to listen and broadcasts its address and token.
pub(super) fn open_rendezvous(
    link: &mut dyn Link,
    rank_info: &RankInfo,
    options: &CommunicatorOptions,
) -> Result<(Rendezvous, Option<TcpListener>)> {
    let mine = machine(rank_info);
    let mut machines = vec![0; mine.len() * rank_info.world_size];
    link.all_gather(&mine, &mut machines, Polling::Relaxed)?;
    let one_machine = machines.chunks_exact(mine.len()).all(|other| other == mine);
    let opened = (rank_info.rank == 0).then(|| open(rank_info, options, one_machine));
    let mut notice = vec![0; NOTICE];
    if let Some(opened) = &opened {
        notice = write_notice(opened.as_ref().map(|(rendezvous, _)| rendezvous));
    }
    link.broadcast(&mut notice, 0)?;
    match opened {
        Some(opened) => opened.map(|(rendezvous, listener)| (rendezvous, Some(listener))),
        None => Ok((read_notice(&notice)?, None)),
    }
}

/// An id of the machine. A process with its own network namespace counts as its own machine.
fn machine(rank_info: &RankInfo) -> [u8; 32] {
    let boot = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let network = std::fs::read_link("/proc/self/ns/net").unwrap_or_default();
    let mut hasher = blake3::Hasher::new();
    hasher.update(rank_info.host.as_bytes()).update(&boot);
    hasher.update(network.as_os_str().as_encoded_bytes());
    hasher.finalize().into()
}

fn open(
    rank_info: &RankInfo,
    options: &CommunicatorOptions,
    one_machine: bool,
) -> Result<(Rendezvous, TcpListener)> {
    let address = match options.address {
        Some(address) => address,
        None if one_machine => IpAddr::V4(Ipv4Addr::LOCALHOST),
        None => own_address(&rank_info.host)?,
    };
    let listener = listen(SocketAddr::new(address, 0))?;
    let system = |source| Error::System { what: "listen for the other ranks", source };
    let address = listener.local_addr().map_err(system)?;
    Ok((Rendezvous::new(address, JobToken::random()?), listener))
}

/// An address at which other machines reach this one: the address its host name resolves to unless that is a loopback
/// (as on Debian), else the source address of outbound traffic.
fn own_address(host: &str) -> Result<IpAddr> {
    let failed = |source| Error::Lookup { address: host.to_owned(), source };
    let resolved = (host, 0).to_socket_addrs();
    let mut found = resolved.into_iter().flatten().map(|address| address.ip());
    if let Some(address) = found.find(|address| !address.is_loopback()) {
        return Ok(address);
    }
    // Connecting UDP sends nothing, it only selects a route. 192.0.2.0/24 is reserved for documentation.
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(failed)?;
    let source =
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).and_then(|()| socket.local_addr());
    source.map(|address| address.ip()).map_err(failed)
}

fn write_notice(opened: Result<&Rendezvous, &Error>) -> Vec<u8> {
    let (token, text) = match opened {
        Ok(rendezvous) => (rendezvous.token.to_bytes(), rendezvous.address.to_string()),
        Err(error) => ([0; TOKEN], error.to_string()),
    };
    let mut notice = [token.as_slice(), text.as_bytes()].concat();
    notice.resize(NOTICE, 0);
    notice
}

fn read_notice(notice: &[u8]) -> Result<Rendezvous> {
    let (token, text) = notice.split_at(TOKEN);
    let text = String::from_utf8_lossy(text);
    let text = text.trim_end_matches('\0');
    let mut bytes = [0; TOKEN];
    bytes.copy_from_slice(token);
    match text.parse() {
        Ok(address) => Ok(Rendezvous::new(address, JobToken::from_bytes(bytes))),
        Err(_) => Err(Error::Mpi { why: format!("rank 0 could not open the rendezvous: {text}") }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_carries_address_and_token() {
        let rendezvous = Rendezvous::new("10.0.0.7:4000".parse().unwrap(), JobToken::new("secret"));
        let read = read_notice(&write_notice(Ok(&rendezvous))).unwrap();
        assert_eq!(read.address, rendezvous.address);
        assert_eq!(read.token.to_bytes(), rendezvous.token.to_bytes());
    }

    #[test]
    fn a_notice_carries_an_error() {
        let error = read_notice(&write_notice(Err(&Error::NoRanks))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "MPI: rank 0 could not open the rendezvous: a job needs at least one rank"
        );
    }
}
