//! Receives request bodies within limits of size, time and memory, and parses them.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequest, Request};
use axum::http::header;
use futures_util::StreamExt as _;
use tokio::time::{Instant, timeout_at};

use crate::app::{App, Shared};
use crate::budget::Reserved;
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
struct Received {
    bytes: Vec<u8>,
    memory: Reserved,
}

impl FromRequest<Arc<App>> for Body {
    type Rejection = Infallible;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Infallible> {
        Ok(Self(receive(request, app).await))
    }
}

async fn receive(request: Request, app: &App) -> Result<Received, Refusal> {
    let most = app.max_body_bytes();
    let declared = request.headers().get(header::CONTENT_LENGTH);
    let declared = declared.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > most as u64) {
        return Err(Refusal::too_large(most));
    }
    let (began, allowed) = (Instant::now(), app.limits.timeout_body);
    let mut chunks = request.into_body().into_data_stream();
    let mut received = Received { bytes: Vec::new(), memory: Reserved::default() };
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
        app.request_memory.grow(&mut received.memory, bytes + chunk.len() as u64)?;
        received.bytes.extend_from_slice(&chunk);
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
