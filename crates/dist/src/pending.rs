//! Handles of asynchronous operations.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::rank_state::{RankState, lock};

/// The future result of an asynchronous operation, which progresses whether or not it is waited for.
#[derive(Debug)]
#[must_use = "the operation's result arrives here"]
pub struct Pending<T>(State<T>);

#[derive(Debug)]
enum State<T> {
    Ready(T),
    InFlight { slot: Slot<T>, rank_state: Arc<RankState> },
}

/// Where the communication thread stores a result.
#[derive(Debug)]
pub(crate) struct Slot<T>(Arc<Mutex<Option<T>>>);

impl<T> Slot<T> {
    pub(crate) fn fill(&self, value: T) {
        *lock(&self.0) = Some(value);
    }
}

impl<T> Pending<T> {
    /// A result that is ready.
    pub(crate) fn ready(value: T) -> Self {
        Self(State::Ready(value))
    }

    /// A pending result, and the slot that it arrives in.
    pub(crate) fn in_flight(rank_state: &Arc<RankState>) -> (Self, Slot<T>) {
        let value = Arc::new(Mutex::new(None));
        let slot = Slot(Arc::clone(&value));
        (Self(State::InFlight { slot: Slot(value), rank_state: Arc::clone(rank_state) }), slot)
    }

    /// Waits for the result.
    ///
    /// # Errors
    ///
    /// [`crate::Error::RankFailed`] as soon as a rank fails.
    pub fn wait(self) -> Result<T> {
        self.wait_at_most("a collective", None)
    }

    /// Waits for `what` with a timeout.
    pub(crate) fn wait_within(self, what: &'static str, within: Duration) -> Result<T> {
        self.wait_at_most(what, Some(within))
    }

    fn wait_at_most(self, what: &'static str, within: Option<Duration>) -> Result<T> {
        match self.0 {
            State::Ready(value) => Ok(value),
            State::InFlight { slot, rank_state } => {
                let began = Instant::now();
                let value = rank_state.wait(within, || lock(&slot.0).take());
                rank_state.add_waited(began.elapsed());
                let waited = within.unwrap_or_default();
                value.map_err(|error| error.into_error(rank_state.rank(), what, waited))
            }
        }
    }
}
