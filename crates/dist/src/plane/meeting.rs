//! Where the ranks of a job meet, and the token that they know each other by.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs};

use super::token::{Token, nonce};
use crate::error::{Error, Result};

/// Where rank 0 listens for the others, and the secret of the job.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Meeting {
    /// Rank 0's address.
    pub address: SocketAddr,
    /// The secret.
    pub token: Token,
}

impl Meeting {
    /// At `address`, with the job's secret.
    pub fn new(address: SocketAddr, token: Token) -> Self {
        Self { address, token }
    }

    /// Variables by which ranks that are started on this machine meet there, as [`Meeting::from_env`] reads them: a port
    /// of the loopback that is free now, and a secret that nobody can guess.
    ///
    /// # Errors
    ///
    /// The loopback cannot be used, or the system has no random numbers.
    pub fn variables_here() -> Result<[(&'static str, String); 3]> {
        let listener = listen((Ipv4Addr::LOCALHOST, 0).into())?;
        let system = |source| Error::System { what: "listen at the loopback", source };
        let address = listener.local_addr().map_err(system)?;
        let secret: String = nonce()?.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok([
            ("MASTER_ADDR", address.ip().to_string()),
            ("MASTER_PORT", address.port().to_string()),
            ("EMBODIED_R_TOKEN", secret),
        ])
    }

    /// Reads `MASTER_ADDR`, `MASTER_PORT` and `EMBODIED_R_TOKEN` by `lookup`.
    ///
    /// `torchrun` itself listens at its port, and says so with `TORCHELASTIC_USE_AGENT_STORE`; the ranks
    /// then meet at the port after it. `EMBODIED_R_PORT` is another port.
    ///
    /// # Errors
    ///
    /// A variable is missing or makes no sense, or the address cannot be looked up.
    pub fn from_env(lookup: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let needed = |name: &str, why: &str| {
            let value = lookup(name).filter(|value| !value.trim().is_empty());
            value.ok_or_else(|| Error::MissingVariable { name: name.into(), why: why.into() })
        };
        let token = needed(
            "EMBODIED_R_TOKEN",
            "but ranks know each other by it; give all ranks of the job the same secret",
        )?;
        let host = needed("MASTER_ADDR", "set it to the address of rank 0's machine")?;
        let own =
            lookup("EMBODIED_R_PORT").map(|value| port("EMBODIED_R_PORT", &value)).transpose()?;
        let port = match own {
            Some(port) => port,
            None => {
                let value =
                    needed("MASTER_PORT", "set it to a port that is free on rank 0's machine")?;
                let taken = lookup("TORCHELASTIC_USE_AGENT_STORE");
                let taken = taken.is_some_and(|value| value.eq_ignore_ascii_case("true"));
                port("MASTER_PORT", &value)?.saturating_add(u16::from(taken))
            }
        };
        Ok(Self { address: look_up(host.trim(), port)?, token: Token::new(token.trim()) })
    }
}

fn port(name: &str, value: &str) -> Result<u16> {
    let port = value.trim().parse().ok().filter(|&port| port > 0);
    port.ok_or_else(|| Error::Variable {
        name: name.into(),
        value: value.into(),
        why: "which is not a port; give a number from 1 to 65535".into(),
    })
}

/// The first address of `host`.
fn look_up(host: &str, port: u16) -> Result<SocketAddr> {
    let failed = |source| Error::Lookup { address: host.to_owned(), source };
    let mut found = (host, port).to_socket_addrs().map_err(failed)?;
    found.next().ok_or_else(|| failed(io::Error::other("it has no address")))
}

/// Listens at `address` and nowhere else.
pub(crate) fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => Error::PortTaken { address },
        _ => Error::Bind { address, source },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meeting(variables: &[(&str, &str)]) -> Result<Meeting> {
        Meeting::from_env(|name| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    const BASE: [(&str, &str); 3] =
        [("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "29500"), ("EMBODIED_R_TOKEN", "s")];

    #[test]
    fn it_is_at_the_masters_port() {
        assert_eq!(meeting(&BASE).unwrap().address.to_string(), "127.0.0.1:29500");
    }

    #[test]
    fn it_is_at_the_next_port_where_torchrun_listens_itself() {
        let torchrun = [BASE.as_slice(), &[("TORCHELASTIC_USE_AGENT_STORE", "True")]].concat();
        assert_eq!(meeting(&torchrun).unwrap().address.port(), 29501);
        let own = [torchrun.as_slice(), &[("EMBODIED_R_PORT", "7000")]].concat();
        assert_eq!(meeting(&own).unwrap().address.port(), 7000);
    }

    #[test]
    fn ranks_of_one_machine_meet_at_a_port_of_their_own_with_a_secret_of_their_own() {
        let here = || {
            meeting(
                &Meeting::variables_here()
                    .unwrap()
                    .each_ref()
                    .map(|(name, value)| (*name, value.as_str())),
            )
        };
        let (one, other) = (here().unwrap(), here().unwrap());
        assert!(one.address.ip().is_loopback());
        assert_ne!(one.token.to_bytes(), other.token.to_bytes());
        assert!(listen(one.address).is_ok());
    }

    #[test]
    fn what_is_missing_is_named() {
        for (at, (name, _)) in BASE.iter().enumerate() {
            let mut variables = BASE.to_vec();
            variables.remove(at);
            let message = meeting(&variables).unwrap_err().to_string();
            assert!(message.starts_with(&format!("`{name}` is not set")), "{message}");
        }
    }

    #[test]
    fn a_port_of_nonsense_is_named() {
        let variables = [BASE[0], BASE[2], ("MASTER_PORT", "70000")];
        assert_eq!(
            meeting(&variables).unwrap_err().to_string(),
            "`MASTER_PORT` is `70000`, which is not a port; give a number from 1 to 65535"
        );
    }
}
