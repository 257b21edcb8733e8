//! The crate's error.

use std::path::PathBuf;

use crate::external::Fault;
use crate::stages::Faults;

/// What can go wrong while outputs are scored or stages are read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The judge cannot work at all, as opposed to one reply that is missing.
    #[error("the consistency judge failed: {reason}")]
    Judge {
        /// The judge's own error.
        reason: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The judge broke its contract of one reply, or its absence, a prompt.
    #[error("the consistency judge gave {got} replies to {asked} prompts")]
    Replies {
        /// Number of prompts.
        asked: usize,
        /// Number of replies.
        got: usize,
    },
    /// Who waits for replies over HTTP cannot do so on a thread that drives an async runtime.
    #[error(
        "a judge or reward over HTTP waits for replies and cannot be asked from asynchronous code"
    )]
    Async,
    /// A file of saved outputs cannot be read.
    #[error("cannot read `{}`: {reason}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        reason: std::io::Error,
    },
    /// A file of saved outputs is not JSON, or not of the expected form.
    #[error("{place} is not the JSON expected: {why}")]
    Json {
        /// The file, and the line or record.
        place: String,
        /// What is wrong with it.
        why: String,
    },
    /// A field of a saved output is missing or of another type.
    #[error("`{field}` in {place} {wanted}")]
    Field {
        /// The file, and the line or record.
        place: String,
        /// The field.
        field: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// A file of saved outputs holds none.
    #[error("`{}` holds no records", path.display())]
    NoRecords {
        /// The file.
        path: PathBuf,
    },
    /// A name that no reward bears.
    #[error("there is no reward `{name}`; known are {}", listed(known))]
    UnknownReward {
        /// The name asked for.
        name: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// A reward from outside, a command or a service, gave no scores.
    #[error("the reward `{name}` failed: {fault}")]
    External {
        /// The reward.
        name: String,
        /// What went wrong.
        fault: Box<Fault>,
    },
    /// `consistency` is wanted and nobody is there to judge.
    #[error("the reward `consistency` needs a judge")]
    NoJudge,
    /// The stages of a settings file are wrong; all faults are named.
    #[error("{0}")]
    Stages(#[from] Faults),
}

impl Error {
    /// An [`Error::Judge`] around a judge's own error, for `map_err`.
    pub fn judge(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Judge { reason: reason.into() }
    }
}

fn listed(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;
