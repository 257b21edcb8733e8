//! The crate's error type.

use std::path::PathBuf;

/// Errors of reading a run and its scores.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The folder has no events.
    #[error("no `events.jsonl` in `{}`", run.display())]
    NoEvents {
        /// The folder.
        run: PathBuf,
    },
    /// The events have neither a step nor an evaluation.
    #[error("`{}` has no step or evaluation to report", path.display())]
    NothingToReport {
        /// The file of the events.
        path: PathBuf,
        /// Its lines that are not JSON objects.
        skipped_lines: usize,
    },
    /// No step has a reward.
    #[error("`{}` has no rewards to draw", run.display())]
    NoRewards {
        /// The run's folder.
        run: PathBuf,
    },
    /// A file cannot be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A file is not a result of `embodied-r eval`.
    #[error("cannot parse `{}` as scores of `embodied-r eval`: {source}", path.display())]
    Scores {
        /// The file.
        path: PathBuf,
        /// The parser's error, with line and column.
        source: serde_json::Error,
    },
    /// The scores cannot be kept.
    #[error(transparent)]
    File(#[from] embodied_r_files::Error),
    /// A completion file cannot be read.
    #[error(transparent)]
    Completions(#[from] embodied_r_data::Error),
}

impl Error {
    /// What the user can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoEvents { .. } => {
                Some("give the output directory of `embodied-r train` or `sft`".to_owned())
            }
            Self::NothingToReport { skipped_lines: 0, .. } => {
                Some("the run ended before its first step; its log or terminal says why".to_owned())
            }
            Self::NothingToReport { skipped_lines, .. } => {
                Some(format!("it is damaged: {skipped_lines} of its lines are not JSON objects"))
            }
            Self::NoRewards { .. } => {
                Some("give the output directory of `embodied-r train`".to_owned())
            }
            Self::Read { .. } | Self::Scores { .. } | Self::File(_) | Self::Completions(_) => None,
        }
    }
}

/// The crate's result type.
pub type Result<T, E = Error> = std::result::Result<T, E>;
