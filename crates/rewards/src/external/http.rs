//! Asking a service over HTTP.

use std::time::Duration;

use embodied_r_openai::{Client, ClientOptions};
use tokio::runtime::{Builder, Runtime};

use super::Fault;

/// How often a request is sent again after its first attempt.
const MAX_RETRIES: u32 = 3;
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// A service that scores. It owns an async runtime and waits for the replies.
#[derive(Debug)]
pub(super) struct Http {
    runtime: Runtime,
    client: Client,
}

impl Http {
    /// A client of the service at `url`; nothing is sent yet.
    pub(super) fn new(url: &str, timeout: Duration) -> Result<Self, Fault> {
        let client = Client::of_addresses(&ClientOptions {
            timeout,
            max_retries: MAX_RETRIES,
            first_wait: FIRST_WAIT,
            longest_wait: LONGEST_WAIT,
            longest_retry_after: timeout,
            ..ClientOptions::new([url])
        })?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(Fault::Runtime)?;
        Ok(Self { runtime, client })
    }

    /// The address as it may be shown.
    pub(super) fn name(&self) -> &str {
        self.client.address()
    }

    /// Sends a JSON object and gives the reply's body.
    pub(super) fn post(&self, body: Vec<u8>) -> Result<Vec<u8>, Fault> {
        Ok(self.runtime.block_on(self.client.post(body))?)
    }
}
