//! The crate's error.

use std::path::PathBuf;

use crate::config::ConfigFault;

/// What can go wrong while a model is read, run or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io {
        /// What was tried, as a verb: `read`, `write`, `create` …
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// A JSON file does not have the expected form.
    #[error("`{}` is not the JSON expected: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The parser's reason, with line and column.
        source: serde_json::Error,
    },
    /// A model's `config.json` is faulty, or asks for something this decoder does not do.
    #[error("cannot use the model configuration `{}`: {}", path.display(), listed(faults))]
    Config {
        /// The file.
        path: PathBuf,
        /// Every fault found.
        faults: Vec<ConfigFault>,
    },
    /// A tensor operation failed.
    #[error("cannot {doing}: {source}")]
    Tensor {
        /// What was being computed, as a verb phrase.
        doing: String,
        /// candle's reason.
        source: candle_core::Error,
    },
}

/// Joins faults for one message.
pub(crate) fn listed<T: std::fmt::Display>(faults: &[T]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl Error {
    /// An [`Error::Io`] about `path`, for `map_err`.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    /// An [`Error::Json`] about `path`, for `map_err`.
    pub(crate) fn json(path: impl Into<PathBuf>) -> impl FnOnce(serde_json::Error) -> Self {
        let path = path.into();
        move |source| Self::Json { path, source }
    }
}

/// Gives candle's errors the context they lack.
pub(crate) trait During<T> {
    /// Wraps an error as [`Error::Tensor`]; `doing` is a verb phrase such as `compute layer 3`.
    fn during(self, doing: impl Into<String>) -> Result<T>;
}

impl<T> During<T> for candle_core::Result<T> {
    fn during(self, doing: impl Into<String>) -> Result<T> {
        self.map_err(|source| Error::Tensor { doing: doing.into(), source })
    }
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;
