//! The rendezvous of a job: rank 0's address and the shared secret.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs};

use super::token::{JobToken, nonce};
use crate::error::{Error, Result};

/// The address on which rank 0 listens for the other ranks, and the job's shared secret.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Rendezvous {
    /// Rank 0's address.
    pub address: SocketAddr,
    /// The shared secret.
    pub token: JobToken,
}

impl Rendezvous {
    /// A rendezvous at `address`, with the job's secret.
    pub fn new(address: SocketAddr, token: JobToken) -> Self {
        Self { address, token }
    }

    /// Environment variables for ranks on this machine, as [`Rendezvous::from_env`] reads them: a free port of the
    /// loopback and a random secret.
    ///
    /// # Errors
    ///
    /// The loopback cannot be used, or the system's random number generator failed.
    pub fn local_variables() -> Result<[(&'static str, String); 3]> {
        let listener = listen((Ipv4Addr::LOCALHOST, 0).into())?;
        let system = |source| Error::System { what: "listen on the loopback", source };
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
    /// If `TORCHELASTIC_USE_AGENT_STORE` is set, `torchrun` itself listens on `MASTER_PORT` and the rendezvous uses the
    /// next port. `EMBODIED_R_PORT` overrides both.
    ///
    /// # Errors
    ///
    /// A variable is missing or invalid, or the address cannot be resolved.
    pub fn from_env(lookup: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let needed = |name: &str, why: &str| {
            let value = lookup(name).filter(|value| !value.trim().is_empty());
            value.ok_or_else(|| Error::MissingVariable { name: name.into(), why: why.into() })
        };
        let token = needed(
            "EMBODIED_R_TOKEN",
            "but ranks authenticate with it; give all ranks of the job the same secret",
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
        Ok(Self { address: resolve(host.trim(), port)?, token: JobToken::new(token.trim()) })
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
fn resolve(host: &str, port: u16) -> Result<SocketAddr> {
    let failed = |source| Error::Lookup { address: host.to_owned(), source };
    let mut found = (host, port).to_socket_addrs().map_err(failed)?;
    found.next().ok_or_else(|| failed(io::Error::other("it has no address")))
}

/// Listens on `address` only.
pub(crate) fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => Error::PortTaken { address },
        _ => Error::Bind { address, source },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendezvous(variables: &[(&str, &str)]) -> Result<Rendezvous> {
        Rendezvous::from_env(|name| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    const BASE: [(&str, &str); 3] =
        [("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "29500"), ("EMBODIED_R_TOKEN", "s")];

    #[test]
    fn it_uses_the_master_port() {
        assert_eq!(rendezvous(&BASE).unwrap().address.to_string(), "127.0.0.1:29500");
    }

    #[test]
    fn it_uses_the_next_port_if_torchrun_listens_on_the_master_port() {
        let torchrun = [BASE.as_slice(), &[("TORCHELASTIC_USE_AGENT_STORE", "True")]].concat();
        assert_eq!(rendezvous(&torchrun).unwrap().address.port(), 29501);
        let own = [torchrun.as_slice(), &[("EMBODIED_R_PORT", "7000")]].concat();
        assert_eq!(rendezvous(&own).unwrap().address.port(), 7000);
    }

    #[test]
    fn each_local_rendezvous_has_its_own_port_and_secret() {
        let here = || {
            rendezvous(
                &Rendezvous::local_variables()
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
    fn a_missing_variable_is_named() {
        for (at, (name, _)) in BASE.iter().enumerate() {
            let mut variables = BASE.to_vec();
            variables.remove(at);
            let message = rendezvous(&variables).unwrap_err().to_string();
            assert!(message.starts_with(&format!("`{name}` is not set")), "{message}");
        }
    }

    #[test]
    fn an_invalid_port_is_named() {
        let variables = [BASE[0], BASE[2], ("MASTER_PORT", "70000")];
        assert_eq!(
            rendezvous(&variables).unwrap_err().to_string(),
            "`MASTER_PORT` is `70000`, which is not a port; give a number from 1 to 65535"
        );
    }
}
