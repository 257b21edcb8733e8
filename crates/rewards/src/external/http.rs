//! HTTP client of a reward service.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use embodied_r_openai::Client;
use tokio::runtime::{Builder, Runtime};

use super::error::ExternalError;
use crate::service::{block_on_until, client_options};

/// A reward service. It owns an async runtime and blocks on replies.
#[derive(Debug)]
pub(super) struct Http {
    runtime: Runtime,
    client: Client,
}

impl Http {
    /// Creates a client of the service at `url` without sending anything.
    pub(super) fn new(url: &str, timeout: Duration) -> Result<Self, ExternalError> {
        let client = Client::with_exact_urls(&client_options([url], timeout))?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(ExternalError::Runtime)?;
        Ok(Self { runtime, client })
    }

    /// The URL without secrets, for messages.
    pub(super) fn name(&self) -> &str {
        self.client.display_url()
    }

    /// Posts a JSON object and returns the response body, unless `stop` is set meanwhile.
    pub(super) fn post(&self, body: Vec<u8>, stop: &AtomicBool) -> Result<Vec<u8>, ExternalError> {
        let reply = block_on_until(&self.runtime, self.client.post(body), stop);
        Ok(reply.ok_or(ExternalError::Interrupted)??)
    }
}
