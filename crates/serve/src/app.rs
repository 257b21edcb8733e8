//! The state shared by all handlers.

use std::sync::Arc;

use axum::response::{IntoResponse as _, Response};
use embodied_r_inference::EngineClient;
use embodied_r_policy::Engine;
use embodied_r_policy::tokenizer::Tokenizer;
use tokio::sync::Semaphore;

use crate::admission::Admission;
use crate::api_key::ApiKeyHash;
use crate::budget::Budget;
use crate::limits::HttpLimits;
use crate::metrics::Metrics;
use crate::refusal::Refusal;
use crate::request::Model;

/// The size limit of a request body.
const MAX_BODY_BYTES: usize = 16 << 20;

/// The size limit of a request body that may contain images.
pub const MAX_IMAGE_BODY_BYTES: usize = 128 << 20;

/// The state shared by all handlers.
pub(crate) struct App {
    pub(crate) model: Model,
    pub(crate) engine: EngineClient<Engine>,
    pub(crate) admission: Admission,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) api_key: Option<ApiKeyHash>,
    pub(crate) limits: HttpLimits,
    /// The memory of request bodies.
    pub(crate) request_memory: Budget,
    /// Requests that are parsed or tokenized at a time.
    pub(crate) workers: Arc<Semaphore>,
    /// The Unix time at which the server started.
    pub(crate) began_s: u64,
}

pub(crate) type Shared = Arc<App>;

/// The size limit of a request body.
pub(crate) fn max_body_bytes(model: &Model) -> usize {
    match model.media {
        Some(_) => MAX_IMAGE_BODY_BYTES,
        None => MAX_BODY_BYTES,
    }
}

impl App {
    /// The response; a refusal is counted.
    pub(crate) fn respond(&self, response: Result<Response, Refusal>) -> Response {
        response.unwrap_or_else(|refusal| {
            self.metrics.ended(refusal.outcome());
            refusal.into_response()
        })
    }

    /// Runs CPU-heavy work on a blocking thread, on as many as there are processors. The work goes on after the client has
    /// disconnected, so it owns the memory that is reserved for it.
    pub(crate) async fn run_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Tokenizer) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        // Without this limit, the memory of tokenization would grow with the number of requests.
        let worker = self.workers.clone().acquire_owned().await.map_err(Refusal::failed)?;
        let tokenizer = self.model.tokenizer.clone();
        let done = tokio::task::spawn_blocking(move || {
            let _worker = worker;
            work(&tokenizer)
        });
        done.await.map_err(Refusal::failed)
    }
}
