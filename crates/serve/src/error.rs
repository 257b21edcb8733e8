//! The crate's error.

use std::path::PathBuf;

/// What can go wrong with the server itself; what is wrong with a request goes to its client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The engine refuses its options, or cannot go on.
    #[error(transparent)]
    Policy(#[from] embodied_r_policy::Error),
    /// A setting cannot be.
    #[error("`{field}` is {found}, want {want}")]
    Option {
        /// Its name.
        field: &'static str,
        /// Its value.
        found: usize,
        /// What it should be.
        want: String,
    },
    /// A file could not be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// What fetches pictures cannot be set up.
    #[error("cannot set up the client that fetches pictures: {source}")]
    Client {
        /// The client's reason.
        source: reqwest::Error,
    },
    /// The figures under `/metrics` cannot be set up.
    #[error("cannot set up the metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The operating system gives no thread.
    #[error("cannot start the engine's thread: {0}")]
    Thread(std::io::Error),
    /// The network failed as a whole.
    #[error("cannot serve: {0}")]
    Serve(std::io::Error),
    /// The engine's thread ended by itself.
    #[error("the engine has stopped, start the server again and look at its log")]
    EngineGone,
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;
