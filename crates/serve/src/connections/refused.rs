//! Responses to connections that are not served, or not to the end of a request.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::metrics::Metrics;
use crate::refusal::{RETRY_AFTER_S, Refusal};

/// How long a refused client may take to read the response.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// Connections that are refused at a time; further ones are closed at once.
const MOST: usize = 64;

/// How long the rest of a refused request may take to arrive.
const LINGER_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of a request that are read only so that the client gets to read its response.
const MAX_IGNORED_BYTES: usize = 64 << 20;

/// Refuses connections, and counts them.
pub(super) struct Refusals {
    slots: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

impl Refusals {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { slots: Arc::new(Semaphore::new(MOST)), metrics }
    }

    /// Sends a refusal in the background, whatever the client asks for.
    pub(super) fn refuse(&self, stream: TcpStream, refusal: Refusal) {
        self.metrics.ended(refusal.outcome());
        let Ok(slot) = self.slots.clone().try_acquire_owned() else { return };
        tokio::spawn(async move {
            let _slot = slot;
            send(stream, &refusal).await;
        });
    }

    /// Sends a refusal and closes the connection.
    pub(super) async fn send(&self, stream: TcpStream, refusal: &Refusal) {
        self.metrics.ended(refusal.outcome());
        send(stream, refusal).await;
    }

    /// Ignores the rest of a request whose response is sent, and closes the connection.
    pub(super) async fn linger(&self, mut stream: TcpStream) {
        let Ok(_slot) = self.slots.try_acquire() else { return };
        let _ = timeout(LINGER_TIMEOUT, ignore(&mut stream)).await;
    }
}

async fn send(mut stream: TcpStream, refusal: &Refusal) {
    let respond = async {
        stream.write_all(response(refusal).as_bytes()).await?;
        stream.shutdown().await?;
        ignore(&mut stream).await
    };
    // The client may be gone or ignore the response.
    let _ = timeout(SEND_TIMEOUT, respond).await;
}

/// Reads what the client still sends. Closed with unread bytes, the connection would be reset, and the client might never
/// see the response.
async fn ignore(stream: &mut TcpStream) -> std::io::Result<()> {
    let (mut buffer, mut read) = ([0; 4096], 0);
    while read < MAX_IGNORED_BYTES {
        match stream.read(&mut buffer).await? {
            0 => break,
            more => read += more,
        }
    }
    Ok(())
}

fn response(refusal: &Refusal) -> String {
    let (status, body) = (refusal.status(), refusal.json().to_string());
    let reason = StatusCode::from_u16(status).ok();
    let reason = reason.and_then(|status| status.canonical_reason()).unwrap_or_default();
    let retry = match status {
        503 => format!("retry-after: {RETRY_AFTER_S}\r\n"),
        _ => String::new(),
    };
    let length = body.len();
    format!(
        "HTTP/1.1 {status} {reason}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{retry}\
         connection: close\r\n\r\n{body}"
    )
}
