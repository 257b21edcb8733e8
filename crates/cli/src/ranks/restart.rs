//! Whether and how a failed run is restarted.

use std::ffi::OsString;
use std::path::Path;

use embodied_r_grpo::checkpoint::Checkpoints;

/// The restart budget of a run, and its last checkpoint at the previous failure.
#[derive(Debug)]
pub(super) struct RestartBudget {
    most: u32,
    done: u32,
    failed_at: Option<Option<u64>>,
}

/// What to do after a failure.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RestartDecision {
    /// Restart for the `number`th time.
    Restart { number: u32 },
    /// No checkpoint was written since the previous failure.
    NoProgress,
    /// The restart budget is exhausted.
    Exhausted,
}

impl RestartBudget {
    pub(super) fn new(most: u32) -> Self {
        Self { most, done: 0, failed_at: None }
    }

    /// Decides after a failure; `step` is that of the last checkpoint.
    pub(super) fn after_failure(&mut self, step: Option<u64>) -> RestartDecision {
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

/// The step of the last checkpoint in a run's folder.
pub(super) fn last_step(folder: &Path) -> Option<u64> {
    Checkpoints::new(folder, 1).steps().ok()?.last().copied()
}

/// The command line with `--resume=auto` in place of any `--resume`: resumes from the last checkpoint in the run's own
/// folder.
pub(super) fn with_auto_resume(args: &[OsString]) -> Vec<OsString> {
    let mut kept = Vec::new();
    let mut args = args.iter().peekable();
    while let Some(arg) = args.next() {
        let text = arg.to_string_lossy();
        if text == "--resume" {
            // Its optional value, by the parser's rule.
            args.next_if(|next| !next.to_string_lossy().starts_with('-'));
        } else if !text.starts_with("--resume=") {
            kept.push(arg.clone());
        }
    }
    kept.push("--resume=auto".into());
    kept
}

/// Whether a command line has `--resume`.
pub(super) fn has_resume(args: &[OsString]) -> bool {
    let is_resume = |text: &str| text == "--resume" || text.starts_with("--resume=");
    args.iter().any(|arg| is_resume(&arg.to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(OsString::from).collect()
    }

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

    #[test]
    fn resume_is_replaced_by_resume_auto() {
        for given in ["train --resume runs/a --set a=1", "train --resume --set a=1"] {
            assert_eq!(
                with_auto_resume(&args(given)),
                args("train --set a=1 --resume=auto"),
                "{given}"
            );
        }
        let given = args("train --resume=runs/a --ranks 2");
        assert!(has_resume(&given));
        assert_eq!(with_auto_resume(&given), args("train --ranks 2 --resume=auto"));
        assert!(!has_resume(&args("train --output resume")));
    }
}
