//! What a process's threads share about its rank: the signs of life that it gives, and the verdict that
//! ends everything.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::operation::Call;
use crate::verdict::{Verdict, Why};
use crate::worker::Lane;

/// Takes a lock whose holder may have panicked: what it guards is whole after every statement.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a rank tells of itself, a few times a second.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub(crate) struct Signs {
    /// The phase that the work is in.
    pub(crate) phase: String,
    /// The last call that was entered.
    pub(crate) entered: Option<Call>,
    /// The number of calls that are done; they end in order.
    pub(crate) finished: u64,
    /// Progress of the working threads.
    pub(crate) beats: u64,
    /// Progress of data within calls.
    pub(crate) moved: u64,
    /// Calls of the part that the rank belongs to, if there are parts.
    #[serde(default)]
    pub(crate) part: Option<PartSigns>,
}

/// What a rank tells of its calls in a part of the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub(crate) struct PartSigns {
    /// The first rank of the part.
    pub(crate) first: usize,
    /// The last call that was entered.
    pub(crate) entered: Option<Call>,
    /// The number of calls that are done.
    pub(crate) finished: u64,
}

impl PartSigns {
    /// The number of calls that were entered.
    pub(crate) fn calls(&self) -> u64 {
        self.entered.map_or(0, |call| call.sequence)
    }
}

impl Signs {
    /// The number of calls that were entered.
    pub(crate) fn calls(&self) -> u64 {
        self.entered.map_or(0, |call| call.sequence)
    }
}

type Hook = Box<dyn FnOnce(&Verdict) + Send>;

#[derive(Default)]
struct State {
    phase: &'static str,
    entered: Option<Call>,
    finished: u64,
    part: Option<PartSigns>,
    verdict: Option<Arc<Verdict>>,
    hooks: Vec<Hook>,
    abort: Option<i32>,
}

/// A rank's signs and verdict, shared by the threads that work, move data and talk to rank 0.
pub(crate) struct Watch {
    rank: usize,
    host: String,
    state: Mutex<State>,
    changed: Condvar,
    beats: AtomicU64,
    moved: AtomicU64,
}

/// Why waiting ended without what was waited for.
#[derive(Debug)]
pub(crate) enum Unmet {
    /// The job was ended.
    Lost(Arc<Verdict>),
    /// The time is over.
    Late,
}

impl Unmet {
    /// The error for rank `rank`, that waited `waited` for `what`.
    pub(crate) fn into_error(self, rank: usize, what: &'static str, waited: Duration) -> Error {
        match self {
            Self::Lost(verdict) => lost(&verdict),
            Self::Late => Error::Timeout { rank, what, waited },
        }
    }
}

/// The error that a verdict is.
pub(crate) fn lost(verdict: &Verdict) -> Error {
    Error::Lost(Box::new(verdict.clone()))
}

impl Watch {
    pub(crate) fn new(rank: usize, host: &str) -> Self {
        Self {
            rank,
            host: host.to_owned(),
            state: Mutex::new(State { phase: "start", ..State::default() }),
            changed: Condvar::new(),
            beats: AtomicU64::new(0),
            moved: AtomicU64::new(0),
        }
    }

    pub(crate) fn rank(&self) -> usize {
        self.rank
    }

    pub(crate) fn enter_phase(&self, phase: &'static str) {
        lock(&self.state).phase = phase;
    }

    /// The working threads got on.
    pub(crate) fn beat(&self) {
        self.beats.fetch_add(1, Ordering::Relaxed);
    }

    /// Data of a call got on.
    pub(crate) fn data_moved(&self) {
        self.moved.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn entered(&self, lane: Lane, call: Call) {
        let mut state = lock(&self.state);
        match (lane, &mut state.part) {
            (Lane::Part, Some(part)) => part.entered = Some(call),
            _ => state.entered = Some(call),
        }
    }

    pub(crate) fn finished(&self, lane: Lane, sequence: u64) {
        let mut state = lock(&self.state);
        match (lane, &mut state.part) {
            (Lane::Part, Some(part)) => part.finished = sequence,
            _ => state.finished = sequence,
        }
        drop(state);
        self.wake();
    }

    /// The ranks were divided; this one's part begins with the rank `first`.
    pub(crate) fn join_part(&self, first: usize) {
        lock(&self.state).part = Some(PartSigns { first, ..PartSigns::default() });
    }

    pub(crate) fn signs(&self) -> Signs {
        let state = lock(&self.state);
        Signs {
            phase: state.phase.to_owned(),
            entered: state.entered,
            finished: state.finished,
            beats: self.beats.load(Ordering::Relaxed),
            moved: self.moved.load(Ordering::Relaxed),
            part: state.part,
        }
    }

    /// Lets those who wait look again.
    pub(crate) fn wake(&self) {
        let _state = lock(&self.state);
        self.changed.notify_all();
    }

    pub(crate) fn verdict(&self) -> Option<Arc<Verdict>> {
        lock(&self.state).verdict.clone()
    }

    /// Asks the thread that moves data to end all processes, though it may be amidst a call.
    pub(crate) fn ask_to_abort(&self, exit_code: i32) {
        lock(&self.state).abort = Some(exit_code);
    }

    /// Whether and with what exit code it was asked to end all processes.
    #[cfg_attr(not(feature = "mpi"), expect(dead_code, reason = "only MPI can"))]
    pub(crate) fn asked_to_abort(&self) -> Option<i32> {
        lock(&self.state).abort
    }

    /// `Err` where the job was ended.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.verdict().map_or(Ok(()), |verdict| Err(lost(&verdict)))
    }

    /// Runs `hook` when a verdict falls; now, where it has.
    pub(crate) fn on_lost(&self, hook: Hook) {
        let mut state = lock(&self.state);
        match state.verdict.clone() {
            None => state.hooks.push(hook),
            Some(verdict) => {
                drop(state);
                hook(&verdict);
            }
        }
    }

    /// Ends the job on this rank, if it was not ended before.
    pub(crate) fn condemn(&self, verdict: Verdict) {
        let mut state = lock(&self.state);
        if state.verdict.is_some() {
            return;
        }
        tracing::info!(rank = self.rank, "the job ends: {verdict}");
        let verdict = Arc::new(verdict);
        state.verdict = Some(Arc::clone(&verdict));
        let hooks = std::mem::take(&mut state.hooks);
        self.changed.notify_all();
        drop(state);
        for hook in hooks {
            hook(&verdict);
        }
    }

    /// A verdict about this rank itself.
    pub(crate) fn own_verdict(&self, why: Why) -> Verdict {
        let state = lock(&self.state);
        Verdict {
            rank: self.rank,
            host: self.host.clone(),
            phase: state.phase.to_owned(),
            operation: state.entered,
            waited: Duration::ZERO,
            why,
        }
    }

    /// Waits until `ready` gives something, a verdict falls, or `within` is over. Whoever makes it
    /// ready calls [`Watch::wake`] then.
    pub(crate) fn wait<T>(
        &self,
        within: Option<Duration>,
        mut ready: impl FnMut() -> Option<T>,
    ) -> Result<T, Unmet> {
        let until = within.map(|within| Instant::now() + within);
        let mut state = lock(&self.state);
        loop {
            if let Some(value) = ready() {
                return Ok(value);
            }
            if let Some(verdict) = &state.verdict {
                return Err(Unmet::Lost(Arc::clone(verdict)));
            }
            // Looks again now and then, whatever happens to those who should wake it.
            let mut nap = Duration::from_secs(1);
            if let Some(until) = until {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(Unmet::Late);
                }
                nap = nap.min(left);
            }
            let woken = self.changed.wait_timeout(state, nap);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("rank", &self.rank).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_verdict_stands() {
        let watch = Watch::new(1, "a");
        watch.condemn(watch.own_verdict(Why::Left));
        watch.condemn(watch.own_verdict(Why::Broken));
        assert_eq!(watch.verdict().unwrap().why, Why::Left);
    }

    #[test]
    fn a_hook_runs_once_before_or_after_the_verdict() {
        let watch = Watch::new(1, "a");
        let runs = Arc::new(AtomicU64::new(0));
        let hook = || {
            let runs = Arc::clone(&runs);
            Box::new(move |_: &Verdict| {
                runs.fetch_add(1, Ordering::Relaxed);
            })
        };
        watch.on_lost(hook());
        watch.condemn(watch.own_verdict(Why::Left));
        watch.condemn(watch.own_verdict(Why::Left));
        watch.on_lost(hook());
        assert_eq!(runs.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn who_waits_is_freed_by_a_verdict() {
        let watch = Arc::new(Watch::new(1, "a"));
        let other = Arc::clone(&watch);
        let waiting = std::thread::spawn(move || other.wait(None, || None::<()>));
        watch.condemn(watch.own_verdict(Why::Left));
        assert!(matches!(waiting.join().unwrap(), Err(Unmet::Lost(_))));
    }
}
