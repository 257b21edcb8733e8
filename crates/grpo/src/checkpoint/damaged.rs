//! Damage of a checkpoint, file by file.

use std::path::PathBuf;

/// Damage to one file of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// A file cannot be read or parsed.
    #[error("`{file}` {what}")]
    Unreadable {
        /// Its name.
        file: String,
        /// The reason.
        what: String,
    },
    /// A listed or required file is missing.
    #[error("`{file}` is missing")]
    Missing {
        /// Its name.
        file: String,
    },
    /// A file is shorter or longer than listed.
    #[error("`{file}` has the wrong length: {found} bytes, expected {expected}")]
    Length {
        /// Its name.
        file: String,
        /// Its length.
        found: u64,
        /// The listed length.
        expected: u64,
    },
    /// The folder holds the checkpoint of another step: it was copied or renamed.
    #[error("it is a copy of the checkpoint of step {step}")]
    Renamed {
        /// The step of the checkpoint.
        step: u64,
    },
    /// A file's hash differs from the listed one.
    #[error("`{file}` has changed since it was written: hash mismatch")]
    Contents {
        /// Its name.
        file: String,
    },
}

impl Damage {
    pub(super) fn unreadable(file: &str, error: impl std::fmt::Display) -> Self {
        Self::Unreadable { file: file.into(), what: format!("cannot be read: {error}") }
    }

    /// The same damage, with the path relative to the parent of `folder`.
    pub(super) fn within(mut self, folder: &str) -> Self {
        if let Self::Unreadable { file, .. }
        | Self::Missing { file }
        | Self::Length { file, .. }
        | Self::Contents { file } = &mut self
        {
            *file = format!("{folder}/{file}");
        }
        self
    }
}

/// A damaged checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedCheckpoint {
    /// Its folder.
    pub path: PathBuf,
    /// The damage, file by file.
    pub damage: Vec<Damage>,
}

impl std::fmt::Display for DamagedCheckpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}`: {}", self.path.display(), self.what())
    }
}

impl DamagedCheckpoint {
    /// What is wrong in a word: `corrupt`, or `copied` for a folder with the checkpoint of another step.
    pub fn kind(&self) -> &'static str {
        match self.damage[..] {
            [Damage::Renamed { .. }] => "copied",
            _ => "corrupt",
        }
    }

    /// Describes the damage.
    pub fn what(&self) -> String {
        self.damage.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
}
