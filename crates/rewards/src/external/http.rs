//! HTTP client of a reward service.

use std::time::Duration;

use embodied_r_openai::{Client, ClientOptions};
use tokio::runtime::{Builder, Runtime};

use super::ExternalError;

/// Retries of a request after its first attempt.
const MAX_RETRIES: u32 = 3;
const INITIAL_BACKOFF: Duration = Duration::from_millis(200);
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// A reward service. It owns an async runtime and blocks on replies.
#[derive(Debug)]
pub(super) struct Http {
    runtime: Runtime,
    client: Client,
}

impl Http {
    /// Creates a client of the service at `url` without sending anything.
    pub(super) fn new(url: &str, timeout: Duration) -> Result<Self, ExternalError> {
        let client = Client::with_exact_urls(&ClientOptions {
            timeout,
            max_retries: MAX_RETRIES,
            initial_backoff: INITIAL_BACKOFF,
            max_backoff: MAX_BACKOFF,
            max_retry_after: timeout,
            ..ClientOptions::new([url])
        })?;
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

    /// Posts a JSON object and returns the response body.
    pub(super) fn post(&self, body: Vec<u8>) -> Result<Vec<u8>, ExternalError> {
        Ok(self.runtime.block_on(self.client.post(body))?)
    }
}
