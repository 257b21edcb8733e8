//! What an operation that was begun will give.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::error::Result;
use crate::watch::{Watch, lock};

/// A result on its way. The operation goes on whether it is waited for or not.
#[derive(Debug)]
#[must_use = "the result is what is waited for"]
pub struct Pending<T>(State<T>);

#[derive(Debug)]
enum State<T> {
    Here(T),
    OnItsWay { slot: Slot<T>, watch: Arc<Watch> },
}

/// Where the thread that moves data puts a result.
#[derive(Debug)]
pub(crate) struct Slot<T>(Arc<Mutex<Option<T>>>);

impl<T> Slot<T> {
    pub(crate) fn fill(&self, value: T) {
        *lock(&self.0) = Some(value);
    }
}

impl<T> Pending<T> {
    /// A result that is there.
    pub(crate) fn here(value: T) -> Self {
        Self(State::Here(value))
    }

    /// A result, and the place where it will be put.
    pub(crate) fn on_its_way(watch: &Arc<Watch>) -> (Self, Slot<T>) {
        let place = Arc::new(Mutex::new(None));
        let slot = Slot(Arc::clone(&place));
        (Self(State::OnItsWay { slot: Slot(place), watch: Arc::clone(watch) }), slot)
    }

    /// Waits for the result.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Lost`] as soon as a rank ended the job.
    pub fn wait(self) -> Result<T> {
        self.wait_at_most("a collective", None)
    }

    /// Waits for `what` and not for long.
    pub(crate) fn wait_within(self, what: &'static str, within: Duration) -> Result<T> {
        self.wait_at_most(what, Some(within))
    }

    fn wait_at_most(self, what: &'static str, within: Option<Duration>) -> Result<T> {
        match self.0 {
            State::Here(value) => Ok(value),
            State::OnItsWay { slot, watch } => {
                let value = watch.wait(within, || lock(&slot.0).take());
                let waited = within.unwrap_or_default();
                value.map_err(|unmet| unmet.into_error(watch.rank(), what, waited))
            }
        }
    }

    /// Whether [`Pending::wait`] would return at once.
    pub fn is_ready(&self) -> bool {
        match &self.0 {
            State::Here(_) => true,
            State::OnItsWay { slot, watch } => lock(&slot.0).is_some() || watch.verdict().is_some(),
        }
    }
}
