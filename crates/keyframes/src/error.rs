//! The crate's error.

/// Errors of key-frame selection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A video could not be decoded.
    #[error(transparent)]
    Video(#[from] embodied_r_video::Error),
    /// An option of the selection is outside its range.
    #[error("`{option}` must be {expected}, not {given}")]
    Option {
        /// The option's name.
        option: &'static str,
        /// Its value.
        given: String,
        /// The valid values.
        expected: &'static str,
    },
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;
