//! The address to listen on.

use std::io::ErrorKind;
use std::net::SocketAddr;

use tokio::net::{TcpListener, lookup_host};

use crate::exit::{self, Usage};

/// Listens on `host`, an address or a name, and `port`.
///
/// # Errors
/// What is wrong with either.
pub(super) async fn bind(host: &str, port: u16) -> anyhow::Result<TcpListener> {
    let wrong = |want: &str, error: std::io::Error| {
        Usage(format!("`--host` must be {want}, not `{host}`: {error}"))
    };
    let addresses = lookup_host((host, port)).await;
    let addresses: Vec<SocketAddr> = addresses
        .map_err(|error| wrong("an address, or a host name that can be resolved", error))?
        .collect();
    let message = |error| format!("cannot listen on `{host}`, port {port}: {error}");
    TcpListener::bind(&addresses[..]).await.map_err(|error| match error.kind() {
        ErrorKind::AddrNotAvailable => wrong("an address of this machine", error).into(),
        ErrorKind::AddrInUse => {
            exit::hint(message(error), "choose another `--port`, or 0 for a free one")
        }
        ErrorKind::PermissionDenied => {
            exit::hint(message(error), "ports below 1024 are reserved, choose another `--port`")
        }
        _ => anyhow::anyhow!(message(error)),
    })
}
