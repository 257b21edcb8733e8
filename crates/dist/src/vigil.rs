//! Signs of life while a rank waits for somebody outside of the job.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::watch::Watch;

/// How often a sign is given: far more often than any deadline is long.
const EVERY: Duration = Duration::from_millis(100);

/// Gives signs of life of a rank, by a thread of its own, until it is dropped.
#[derive(Debug)]
#[must_use = "without it nobody knows that the rank lives"]
pub struct Vigil(Option<(Sender<()>, JoinHandle<()>)>);

impl Vigil {
    /// Of nobody.
    pub(crate) fn none() -> Self {
        Self(None)
    }

    /// Of the rank of `watch`. Without a thread for it the rank gives no signs, and is lost after the deadline as ever.
    pub(crate) fn of(watch: Arc<Watch>) -> Self {
        let (sender, receiver) = channel();
        let body = move || {
            while receiver.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                watch.beat();
            }
        };
        let thread = thread::Builder::new().name("dist-vigil".into()).spawn(body);
        Self(thread.ok().map(|thread| (sender, thread)))
    }
}

impl Drop for Vigil {
    fn drop(&mut self) {
        if let Some((sender, thread)) = self.0.take() {
            drop(sender);
            // It only beats, and ends with the sender.
            let _ = thread.join();
        }
    }
}
