//! The crate's error type.

use std::path::PathBuf;

/// Errors of reading and writing data sets.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error(transparent)]
    Io(#[from] embodied_r_files::Error),
    /// A parquet file could not be read or written.
    #[error(transparent)]
    Data(#[from] embodied_r_data::Error),
    /// A field of a file is wrong.
    #[error("`{field}` of `{}` {reason}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// The field, such as `features.action.shape`.
        field: String,
        /// What is wrong, as the rest of the sentence.
        reason: String,
    },
}

/// The crate's result type.
pub type Result<T, E = Error> = std::result::Result<T, E>;
