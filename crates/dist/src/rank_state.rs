//! The state of a rank that its threads share: its status for heartbeats, and the failure that aborts the job.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::failure::{FailureCause, FailureReport};
use crate::operation::{Call, GroupKind};

/// Locks a mutex, ignoring poison: the guarded state is consistent after every statement.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The status that a rank sends with every heartbeat. Its JSON keys are the wire format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub(crate) struct RankStatus {
    /// The current phase.
    pub(crate) phase: String,
    /// The last entered call.
    pub(crate) entered: Option<Call>,
    /// The number of finished calls; calls finish in order.
    pub(crate) finished: u64,
    /// Progress reports of the compute threads.
    #[serde(rename = "beats")]
    pub(crate) progress: u64,
    /// Data transfers within calls.
    #[serde(rename = "moved")]
    pub(crate) transfers: u64,
    /// Calls of the rank's subgroup, after a split.
    #[serde(default, rename = "part")]
    pub(crate) subgroup: Option<SubgroupStatus>,
}

/// The status of a rank's calls in its subgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub(crate) struct SubgroupStatus {
    /// The first rank of the subgroup.
    pub(crate) first: usize,
    /// The last entered call.
    pub(crate) entered: Option<Call>,
    /// The number of finished calls.
    pub(crate) finished: u64,
}

impl SubgroupStatus {
    /// The number of entered calls.
    pub(crate) fn calls(&self) -> u64 {
        self.entered.map_or(0, |call| call.sequence)
    }
}

impl RankStatus {
    /// The number of entered calls.
    pub(crate) fn calls(&self) -> u64 {
        self.entered.map_or(0, |call| call.sequence)
    }
}

type Hook = Box<dyn FnOnce(&FailureReport) + Send>;

#[derive(Default)]
struct State {
    phase: &'static str,
    entered: Option<Call>,
    finished: u64,
    subgroup: Option<SubgroupStatus>,
    failure: Option<Arc<FailureReport>>,
    hooks: Vec<Hook>,
    abort: Option<i32>,
}

/// A rank's status and failure report, shared by its compute, communication and control plane threads.
pub(crate) struct RankState {
    rank: usize,
    host: String,
    state: Mutex<State>,
    changed: Condvar,
    progress: AtomicU64,
    transfers: AtomicU64,
    /// Nanoseconds that callers have waited for collectives.
    waited: AtomicU64,
}

/// Why a wait ended without a result.
#[derive(Debug)]
pub(crate) enum WaitError {
    /// The job was aborted.
    Aborted(Arc<FailureReport>),
    /// The timeout elapsed.
    TimedOut,
}

impl WaitError {
    /// The error of rank `rank` after waiting `waited` for `what`.
    pub(crate) fn into_error(self, rank: usize, what: &'static str, waited: Duration) -> Error {
        match self {
            Self::Aborted(report) => aborted(&report),
            Self::TimedOut => Error::Timeout { rank, what, waited },
        }
    }
}

/// The error for a failure report.
pub(crate) fn aborted(failure: &FailureReport) -> Error {
    Error::RankFailed(Box::new(failure.clone()))
}

impl RankState {
    pub(crate) fn new(rank: usize, host: &str) -> Self {
        Self {
            rank,
            host: host.to_owned(),
            state: Mutex::new(State { phase: "start", ..State::default() }),
            changed: Condvar::new(),
            progress: AtomicU64::new(0),
            transfers: AtomicU64::new(0),
            waited: AtomicU64::new(0),
        }
    }

    pub(crate) fn rank(&self) -> usize {
        self.rank
    }

    pub(crate) fn enter_phase(&self, phase: &'static str) {
        lock(&self.state).phase = phase;
    }

    /// The compute threads made progress.
    pub(crate) fn report_progress(&self) {
        self.progress.fetch_add(1, Ordering::Relaxed);
    }

    /// A caller has waited for a collective.
    pub(crate) fn add_waited(&self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.waited.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// The time that callers have waited for collectives so far.
    pub(crate) fn waited(&self) -> Duration {
        Duration::from_nanos(self.waited.load(Ordering::Relaxed))
    }

    /// Data of a call moved.
    pub(crate) fn data_moved(&self) {
        self.transfers.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn entered(&self, kind: GroupKind, call: Call) {
        let mut state = lock(&self.state);
        match (kind, &mut state.subgroup) {
            (GroupKind::Subgroup, Some(subgroup)) => subgroup.entered = Some(call),
            _ => state.entered = Some(call),
        }
    }

    pub(crate) fn finished(&self, kind: GroupKind, sequence: u64) {
        let mut state = lock(&self.state);
        match (kind, &mut state.subgroup) {
            (GroupKind::Subgroup, Some(subgroup)) => subgroup.finished = sequence,
            _ => state.finished = sequence,
        }
        drop(state);
        self.wake();
    }

    /// The ranks were split; this rank's subgroup starts at rank `first`.
    pub(crate) fn join_subgroup(&self, first: usize) {
        lock(&self.state).subgroup = Some(SubgroupStatus { first, ..SubgroupStatus::default() });
    }

    pub(crate) fn status(&self) -> RankStatus {
        let state = lock(&self.state);
        RankStatus {
            phase: state.phase.to_owned(),
            entered: state.entered,
            finished: state.finished,
            progress: self.progress.load(Ordering::Relaxed),
            transfers: self.transfers.load(Ordering::Relaxed),
            subgroup: state.subgroup,
        }
    }

    /// Wakes waiters to check their condition again.
    pub(crate) fn wake(&self) {
        let _state = lock(&self.state);
        self.changed.notify_all();
    }

    pub(crate) fn failure(&self) -> Option<Arc<FailureReport>> {
        lock(&self.state).failure.clone()
    }

    /// Requests that the communication thread abort all processes, even within a call.
    pub(crate) fn request_abort(&self, exit_code: i32) {
        lock(&self.state).abort = Some(exit_code);
    }

    /// The exit code of a requested abort of all processes.
    #[cfg_attr(not(feature = "mpi"), expect(dead_code, reason = "only MPI can"))]
    pub(crate) fn requested_abort(&self) -> Option<i32> {
        lock(&self.state).abort
    }

    /// `Err` if the job was aborted.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.failure().map_or(Ok(()), |failure| Err(aborted(&failure)))
    }

    /// Runs `hook` when the job is aborted; immediately if it already was.
    pub(crate) fn on_failure(&self, hook: Hook) {
        let mut state = lock(&self.state);
        match state.failure.clone() {
            None => state.hooks.push(hook),
            Some(failure) => {
                drop(state);
                hook(&failure);
            }
        }
    }

    /// Aborts the job on this rank, unless it was aborted before.
    pub(crate) fn abort(&self, failure: FailureReport) {
        let mut state = lock(&self.state);
        if state.failure.is_some() {
            return;
        }
        tracing::info!(rank = self.rank, "aborting the job: {failure}");
        let failure = Arc::new(failure);
        state.failure = Some(Arc::clone(&failure));
        let hooks = std::mem::take(&mut state.hooks);
        self.changed.notify_all();
        drop(state);
        for hook in hooks {
            hook(&failure);
        }
    }

    /// A failure report about this rank itself.
    pub(crate) fn own_failure(&self, cause: FailureCause) -> FailureReport {
        let state = lock(&self.state);
        FailureReport {
            rank: self.rank,
            host: self.host.clone(),
            phase: state.phase.to_owned(),
            operation: state.entered,
            waited: Duration::ZERO,
            cause,
        }
    }

    /// Waits until `ready` returns a value, the job is aborted, or `within` elapses. The thread that makes it ready
    /// must call [`RankState::wake`].
    pub(crate) fn wait<T>(
        &self,
        within: Option<Duration>,
        mut ready: impl FnMut() -> Option<T>,
    ) -> Result<T, WaitError> {
        let until = within.map(|within| Instant::now() + within);
        let mut state = lock(&self.state);
        loop {
            if let Some(value) = ready() {
                return Ok(value);
            }
            if let Some(failure) = &state.failure {
                return Err(WaitError::Aborted(Arc::clone(failure)));
            }
            // Also wakes on a timeout, in case a notification is lost.
            let mut nap = Duration::from_secs(1);
            if let Some(until) = until {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(WaitError::TimedOut);
                }
                nap = nap.min(left);
            }
            let woken = self.changed.wait_timeout(state, nap);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl fmt::Debug for RankState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RankState").field("rank", &self.rank).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_report_is_kept() {
        let rank_state = RankState::new(1, "a");
        rank_state.abort(rank_state.own_failure(FailureCause::Left));
        rank_state.abort(rank_state.own_failure(FailureCause::ConnectionLost));
        assert_eq!(rank_state.failure().unwrap().cause, FailureCause::Left);
    }

    #[test]
    fn a_hook_runs_once_whether_set_before_or_after_the_failure() {
        let rank_state = RankState::new(1, "a");
        let runs = Arc::new(AtomicU64::new(0));
        let hook = || {
            let runs = Arc::clone(&runs);
            Box::new(move |_: &FailureReport| {
                runs.fetch_add(1, Ordering::Relaxed);
            })
        };
        rank_state.on_failure(hook());
        rank_state.abort(rank_state.own_failure(FailureCause::Left));
        rank_state.abort(rank_state.own_failure(FailureCause::Left));
        rank_state.on_failure(hook());
        assert_eq!(runs.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn the_wire_format_is_stable() {
        let status = serde_json::to_value(RankState::new(1, "a").status()).unwrap();
        for key in ["phase", "entered", "finished", "beats", "moved", "part"] {
            assert!(status.get(key).is_some(), "{key} is not in {status}");
        }
    }

    #[test]
    fn a_failure_wakes_waiters() {
        let rank_state = Arc::new(RankState::new(1, "a"));
        let other = Arc::clone(&rank_state);
        let waiting = std::thread::spawn(move || other.wait(None, || None::<()>));
        rank_state.abort(rank_state.own_failure(FailureCause::Left));
        assert!(matches!(waiting.join().unwrap(), Err(WaitError::Aborted(_))));
    }
}
