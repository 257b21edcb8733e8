//! The crate's error type.

use std::path::PathBuf;

/// Errors of making questions from demonstrations, and of the bench.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error(transparent)]
    Io(#[from] embodied_r_files::Error),
    /// A table could not be written.
    #[error(transparent)]
    Data(#[from] embodied_r_data::Error),
    /// A LeRobot data set could not be read.
    #[error(transparent)]
    Dataset(Box<embodied_r_lerobot::Error>),
    /// A column of a demonstration is unusable.
    #[error("episode {episode}: the {column} {reason}")]
    Demonstration {
        /// The episode.
        episode: usize,
        /// What the column holds.
        column: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A robot's file is no TOML of its form.
    #[error("`{}`: {source}", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// The parser's error.
        source: Box<toml::de::Error>,
    },
    /// A value of a robot's file is out of range.
    #[error("`{}`: `{field}` {reason}", path.display())]
    Robot {
        /// The file.
        path: PathBuf,
        /// The field.
        field: &'static str,
        /// What is wrong.
        reason: &'static str,
    },
    /// A file is no JSON of its form.
    #[error("`{}`: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The parser's error.
        source: serde_json::Error,
    },
    /// A line of annotations is unusable.
    #[error("`{}`: line {line} {reason}", path.display())]
    Annotation {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// A record of a bench's questions is unusable.
    #[error("`{}`: record {record} {reason}", path.display())]
    BenchQuestion {
        /// The file.
        path: PathBuf,
        /// The record, from 1; in JSON lines, its line.
        record: usize,
        /// What is wrong.
        reason: String,
    },
    /// An option is out of range.
    #[error("`{option}` {reason}")]
    Option {
        /// The option, as on the command line.
        option: &'static str,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// No question can be made.
    #[error("no questions: {reason}")]
    NoQuestions {
        /// Why, and what to do.
        reason: String,
    },
    /// The output directory has files.
    #[error("`{}` is not empty; give another directory or remove it", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// Another process is writing the output directory.
    #[error("another process is writing `{}`; wait for it, or give another directory", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
}

impl From<embodied_r_lerobot::Error> for Error {
    fn from(error: embodied_r_lerobot::Error) -> Self {
        Self::Dataset(Box::new(error))
    }
}

/// The crate's result type.
pub type Result<T, E = Error> = std::result::Result<T, E>;
