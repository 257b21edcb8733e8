//! HTTP services: how judges and rewards behind a URL are called.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use embodied_r_openai::ClientOptions;
use tokio::runtime::Runtime;

/// Retries of a request after its first attempt: a service that restarts is waited for, a dead one ends the run in
/// seconds.
const MAX_RETRIES: u32 = 3;
const INITIAL_BACKOFF: Duration = Duration::from_millis(200);
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// Largest reply of a command or a service, in bytes.
pub(crate) const MAX_REPLY_BYTES: usize = 64 << 20;

/// How often a wait checks whether the run is to stop.
pub(crate) const POLL: Duration = Duration::from_millis(50);

/// The base URLs in a setting, separated by commas.
pub fn base_urls(setting: &str) -> impl Iterator<Item = &str> {
    setting.split(',').map(str::trim)
}

/// Options of a client of a judge or a reward at `urls`, with a timeout per attempt and three retries, seconds apart.
pub fn client_options(
    urls: impl IntoIterator<Item = impl Into<String>>,
    timeout: Duration,
) -> ClientOptions {
    ClientOptions {
        timeout,
        max_retries: MAX_RETRIES,
        initial_backoff: INITIAL_BACKOFF,
        max_backoff: MAX_BACKOFF,
        max_retry_after: timeout,
        max_response_bytes: MAX_REPLY_BYTES,
        ..ClientOptions::new(urls)
    }
}

/// Runs `future` to its end; `None`, with `future` dropped, soon after `stop` is set.
pub(crate) fn block_on_until<T>(
    runtime: &Runtime,
    future: impl Future<Output = T>,
    stop: &AtomicBool,
) -> Option<T> {
    runtime.block_on(async {
        let mut future = pin!(future);
        loop {
            match tokio::time::timeout(POLL, &mut future).await {
                Ok(done) => return Some(done),
                Err(_) if stop.load(Ordering::Relaxed) => return None,
                Err(_) => {}
            }
        }
    })
}
