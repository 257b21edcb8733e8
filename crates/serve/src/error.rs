//! The crate's error.

use std::path::PathBuf;

/// Errors of the server itself; errors of a request go to its client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An error of the engine.
    #[error(transparent)]
    Policy(#[from] embodied_r_policy::Error),
    /// An option is invalid.
    #[error("`{field}` must be {want}, not {found}")]
    Option {
        /// Its name.
        field: &'static str,
        /// Its value.
        found: usize,
        /// The valid values.
        want: String,
    },
    /// The API key cannot be used.
    #[error("`{name}` {fault}")]
    ApiKey {
        /// The environment variable that holds it.
        name: &'static str,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// A file could not be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// An allowed host is no host.
    #[error("`{0}` is not a host such as `example.org`: omit scheme, port and path")]
    MediaHost(String),
    /// The HTTP client for image URLs cannot be set up.
    #[error("cannot set up the HTTP client for image URLs: {source}")]
    Client {
        /// The client's error.
        source: reqwest::Error,
    },
    /// The metrics under `/metrics` cannot be set up.
    #[error("cannot set up the metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The engine thread cannot be started.
    #[error(transparent)]
    Inference(#[from] embodied_r_inference::Error),
    /// The listener failed.
    #[error("the HTTP server failed: {0}")]
    Serve(std::io::Error),
    /// The engine thread exited unexpectedly.
    #[error("the engine has stopped, check the server's log and restart it")]
    EngineGone,
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;
