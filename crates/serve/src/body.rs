//! Receives request bodies within limits of size, time and memory, and parses them.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequest, Request};
use axum::http::header;
use futures_util::StreamExt as _;
use tokio::time::{Instant, timeout_at};

use crate::app::{App, Shared, max_body_bytes};
use crate::budget::{Budget, Reserved};
use crate::connections::Peer;
use crate::json_size;
use crate::refusal::Refusal;
use crate::request::Model;

/// Bytes for which a client may take another second.
const BYTES_PER_SECOND: u64 = 64 << 10;

/// Larger bodies are parsed on a blocking thread.
const LARGE_BODY_BYTES: usize = 64 << 10;

/// A request's body, or why there is none.
pub(crate) struct Body(Result<Received, Refusal>);

/// A body with its share of the memory for requests.
pub(crate) struct Received {
    pub(crate) bytes: Vec<u8>,
    memory: Reserved,
}

/// The limits of a body.
pub(crate) struct BodyLimits<'a> {
    pub(crate) max_bytes: usize,
    /// The time limit of an empty body.
    pub(crate) timeout: Duration,
    pub(crate) memory: &'a Budget,
}

impl FromRequest<Arc<App>> for Body {
    type Rejection = Infallible;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Infallible> {
        let limits = BodyLimits {
            max_bytes: max_body_bytes(&app.model),
            timeout: app.limits.timeout_body,
            memory: &app.request_memory,
        };
        Ok(Self(receive(request, limits).await))
    }
}

/// Receives the body of a request.
///
/// # Errors
/// It exceeds a limit, or the client has disconnected.
pub(crate) async fn receive(request: Request, limits: BodyLimits<'_>) -> Result<Received, Refusal> {
    let most = limits.max_bytes;
    let declared = request.headers().get(header::CONTENT_LENGTH);
    let declared = declared.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > most as u64) {
        return Err(Refusal::too_large(most));
    }
    let peer = request.extensions().get::<Peer>().cloned();
    let (began, allowed) = (Instant::now(), limits.timeout);
    let mut chunks = request.into_body().into_data_stream();
    let memory = match &peer {
        Some(peer) => limits.memory.for_client(peer.client()),
        None => Reserved::default(),
    };
    let mut received = Received { bytes: Vec::new(), memory };
    loop {
        let bytes = received.bytes.len() as u64;
        let deadline = began + allowed + Duration::from_secs(bytes / BYTES_PER_SECOND);
        let chunk = match timeout_at(deadline, chunks.next()).await {
            Err(_) => return Err(Refusal::body_timeout(deadline - began)),
            Ok(None) => return Ok(received),
            Ok(Some(Err(error))) => return Err(Refusal::body(error)),
            Ok(Some(Ok(chunk))) => chunk,
        };
        if received.bytes.len() + chunk.len() > most {
            return Err(Refusal::too_large(most));
        }
        let bytes = bytes + chunk.len() as u64;
        reserve(limits.memory, &mut received.memory, bytes, peer.as_ref()).await?;
        received.bytes.extend_from_slice(&chunk);
    }
}

/// Enlarges `reserved` to `bytes`, if need be at the cost of bodies that are slow or whose client is over its share.
async fn reserve(
    budget: &Budget,
    reserved: &mut Reserved,
    bytes: u64,
    peer: Option<&Peer>,
) -> Result<(), Refusal> {
    let refused = match budget.grow(reserved, bytes) {
        Err(refusal) if refusal.is_to_be_retried() => refusal,
        done => return done,
    };
    match peer {
        Some(peer) if peer.make_room(budget, budget.missing_bytes(reserved, bytes)) => {
            budget.grow_by_evicted(reserved, bytes).await
        }
        _ => Err(refused),
    }
}

/// Parses a body; large ones on a blocking thread. Its memory stays reserved until its prompts are built.
pub(crate) async fn parse<T: Send + 'static>(
    app: &Shared,
    body: Body,
    parse: fn(&[u8], &Model) -> Result<T, Refusal>,
) -> Result<(T, RequestBytes), Refusal> {
    let Received { bytes, memory } = body.0?;
    let size = bytes.len();
    let checked = move |app: &App| {
        json_size::check(&bytes)?;
        let request = parse(&bytes, &app.model)?;
        Ok((request, RequestBytes { size, memory }))
    };
    match size > LARGE_BODY_BYTES {
        true => {
            let shared = app.clone();
            app.run_blocking(move |_| checked(&shared)).await?
        }
        false => checked(app),
    }
}

/// The size of a body and its share of the memory for requests.
pub(crate) struct RequestBytes {
    pub(crate) size: usize,
    pub(crate) memory: Reserved,
}
