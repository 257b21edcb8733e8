//! Progress reports while a rank waits for a service outside the job.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::rank_state::RankState;

/// The interval of progress reports, far shorter than any deadline.
const INTERVAL: Duration = Duration::from_millis(100);

/// Reports a rank's progress from a background thread until dropped.
#[derive(Debug)]
#[must_use = "progress reports stop when the guard is dropped"]
pub struct HeartbeatGuard(Option<(Sender<()>, JoinHandle<()>)>);

impl HeartbeatGuard {
    /// A guard that does nothing, for a single rank.
    pub(crate) fn inactive() -> Self {
        Self(None)
    }

    /// Starts to report progress of the rank of `rank_state`. If no thread can be started, there are no reports and the
    /// usual deadline applies.
    pub(crate) fn start(rank_state: Arc<RankState>) -> Self {
        let (sender, receiver) = channel();
        let body = move || {
            while receiver.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                rank_state.report_progress();
            }
        };
        let thread = thread::Builder::new().name("dist-heartbeat".into()).spawn(body);
        Self(thread.ok().map(|thread| (sender, thread)))
    }
}

impl Drop for HeartbeatGuard {
    fn drop(&mut self) {
        if let Some((sender, thread)) = self.0.take() {
            drop(sender);
            // The thread exits as soon as the sender is dropped.
            let _ = thread.join();
        }
    }
}
