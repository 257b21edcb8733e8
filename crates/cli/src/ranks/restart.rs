//! Whether and how a run that failed is begun again.

use std::ffi::OsString;
use std::path::Path;

use embodied_r_grpo::checkpoint::Checkpoints;

/// How often a run may be begun again, and how far it was when it failed last.
#[derive(Debug)]
pub(super) struct Restarts {
    most: u32,
    done: u32,
    failed_at: Option<Option<u64>>,
}

/// What follows from a failure.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Begin again, for the `number`th time.
    Again { number: u32 },
    /// The run got no further since it failed before.
    NoProgress,
    /// It was begun again as often as it may be.
    Spent,
}

impl Restarts {
    pub(super) fn new(most: u32) -> Self {
        Self { most, done: 0, failed_at: None }
    }

    /// The run failed, and `step` is that of its last checkpoint.
    pub(super) fn after_failure(&mut self, step: Option<u64>) -> Next {
        let stuck = self.failed_at.is_some_and(|before| step <= before);
        if self.done >= self.most {
            return Next::Spent;
        }
        if stuck {
            return Next::NoProgress;
        }
        self.failed_at = Some(step);
        self.done += 1;
        Next::Again { number: self.done }
    }
}

/// The step of the last checkpoint in a run's folder.
pub(super) fn last_step(folder: &Path) -> Option<u64> {
    Checkpoints::new(folder, 1).steps().ok()?.last().copied()
}

/// The words of a command line that go on from the last checkpoint in the run's own folder: `--resume` without
/// a folder in place of one with.
pub(super) fn resuming(words: &[OsString]) -> Vec<OsString> {
    let mut kept = Vec::new();
    let mut words = words.iter().peekable();
    while let Some(word) = words.next() {
        let text = word.to_string_lossy();
        if text == "--resume" {
            // Its value, where it has one, is what the parser takes for one.
            words.next_if(|next| !next.to_string_lossy().starts_with('-'));
        } else if !text.starts_with("--resume=") {
            kept.push(word.clone());
        }
    }
    kept.push("--resume=auto".into());
    kept
}

/// Whether a command line says where to go on from.
pub(super) fn resumes(words: &[OsString]) -> bool {
    let is_resume = |text: &str| text == "--resume" || text.starts_with("--resume=");
    words.iter().any(|word| is_resume(&word.to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn a_run_that_gets_on_is_begun_again_as_often_as_it_may_be() {
        let mut restarts = Restarts::new(2);
        assert_eq!(restarts.after_failure(None), Next::Again { number: 1 });
        assert_eq!(restarts.after_failure(Some(2)), Next::Again { number: 2 });
        assert_eq!(restarts.after_failure(Some(9)), Next::Spent);
    }

    #[test]
    fn a_run_that_fails_twice_at_the_same_checkpoint_is_not_begun_again() {
        let mut restarts = Restarts::new(9);
        restarts.after_failure(Some(4));
        assert_eq!(restarts.after_failure(Some(4)), Next::NoProgress);
        let mut restarts = Restarts::new(9);
        restarts.after_failure(None);
        assert_eq!(restarts.after_failure(None), Next::NoProgress);
    }

    #[test]
    fn where_to_go_on_from_is_replaced() {
        for given in ["train --resume runs/a --set a=1", "train --resume --set a=1"] {
            assert_eq!(resuming(&words(given)), words("train --set a=1 --resume=auto"), "{given}");
        }
        let given = words("train --resume=runs/a --ranks 2");
        assert!(resumes(&given));
        assert_eq!(resuming(&given), words("train --ranks 2 --resume=auto"));
        assert!(!resumes(&words("train --output resume")));
    }
}
