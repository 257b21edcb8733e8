//! Whether a failed job is restarted.

/// The restart budget of a job, and its last checkpoint at the previous failure.
#[derive(Debug)]
pub(crate) struct RestartBudget {
    most: u32,
    done: u32,
    failed_at: Option<Option<u64>>,
}

/// What to do after a failure.
#[derive(Debug, PartialEq, Eq)]
pub enum RestartDecision {
    /// Restart for the `number`th time.
    Restart {
        /// The number of this restart, from 1.
        number: u32,
    },
    /// No checkpoint was written since the previous failure.
    NoProgress,
    /// The restart budget is exhausted.
    Exhausted,
}

impl RestartBudget {
    pub(crate) fn new(most: u32) -> Self {
        Self { most, done: 0, failed_at: None }
    }

    /// Decides after a failure; `step` is that of the last checkpoint.
    pub(crate) fn after_failure(&mut self, step: Option<u64>) -> RestartDecision {
        let stuck = self.failed_at.is_some_and(|before| step <= before);
        if self.done >= self.most {
            return RestartDecision::Exhausted;
        }
        if stuck {
            return RestartDecision::NoProgress;
        }
        self.failed_at = Some(step);
        self.done += 1;
        RestartDecision::Restart { number: self.done }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_makes_progress_is_restarted_until_its_budget_is_exhausted() {
        let mut restarts = RestartBudget::new(2);
        assert_eq!(restarts.after_failure(None), RestartDecision::Restart { number: 1 });
        assert_eq!(restarts.after_failure(Some(2)), RestartDecision::Restart { number: 2 });
        assert_eq!(restarts.after_failure(Some(9)), RestartDecision::Exhausted);
    }

    #[test]
    fn a_run_that_fails_twice_at_the_same_checkpoint_is_not_restarted() {
        let mut restarts = RestartBudget::new(9);
        restarts.after_failure(Some(4));
        assert_eq!(restarts.after_failure(Some(4)), RestartDecision::NoProgress);
        let mut restarts = RestartBudget::new(9);
        restarts.after_failure(None);
        assert_eq!(restarts.after_failure(None), RestartDecision::NoProgress);
    }
}
