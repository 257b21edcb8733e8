//! The crate's error type.

use std::borrow::Cow;
use std::path::PathBuf;

use crate::external::ExternalError;
use crate::validation::ValidationErrors;

/// Errors of computing rewards and reading their settings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The judge is unusable, as opposed to a single missing response.
    #[error("the consistency judge failed: {reason}")]
    Judge {
        /// The judge's error.
        reason: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The judge did not return one response (or `None`) per prompt.
    #[error("the consistency judge returned {got} responses for {expected} prompts")]
    ReplyCount {
        /// Number of prompts.
        expected: usize,
        /// Number of responses.
        got: usize,
    },
    /// An HTTP judge or reward was called on a thread that drives an async runtime.
    #[error("HTTP judges and rewards block and cannot be called from async code")]
    BlockingCall,
    /// A file of saved outputs cannot be read.
    #[error(transparent)]
    Read(#[from] embodied_r_files::Error),
    /// A file of saved outputs is not JSON or has the wrong structure.
    #[error("cannot parse {location}: {reason}")]
    Json {
        /// The file, and the line or record.
        location: String,
        /// What is wrong.
        reason: String,
    },
    /// A field of a saved output is missing or has the wrong type.
    #[error("`{field}` in {location} {expected}")]
    Field {
        /// The file, and the line or record.
        location: String,
        /// The field.
        field: String,
        /// What it should be.
        expected: Cow<'static, str>,
    },
    /// A file of saved outputs is empty.
    #[error("`{}` has no records", path.display())]
    NoRecords {
        /// The file.
        path: PathBuf,
    },
    /// A name that is not a registered reward.
    #[error("unknown reward `{name}`; available: {}", listed(known))]
    UnknownReward {
        /// The requested name.
        name: String,
        /// The registered names.
        known: Vec<String>,
    },
    /// An external reward (command or HTTP service) failed.
    #[error("reward `{name}` failed: {cause}")]
    External {
        /// The reward.
        name: String,
        /// What went wrong.
        cause: Box<ExternalError>,
    },
    /// A stop was requested while a judge or an external reward was waited for.
    #[error("interrupted while a reward was computed")]
    Interrupted,
    /// `consistency` was requested without a judge.
    #[error("the reward `consistency` needs a judge")]
    NoJudge,
    /// The stages of a settings file are invalid; the message lists all errors.
    #[error("{0}")]
    Stages(#[from] ValidationErrors),
}

impl Error {
    /// Wraps a judge's error in [`Error::Judge`], for `map_err`.
    pub fn judge(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Judge { reason: reason.into() }
    }
}

fn listed(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The crate's result type.
pub type Result<T, E = Error> = std::result::Result<T, E>;
