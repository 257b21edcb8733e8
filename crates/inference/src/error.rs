//! The crate's error.

use std::sync::Arc;

/// Errors of models, their engines and requests.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An error of the decoder, its files or its tokenizer; of a request, the engine's reason to reject it.
    #[error(transparent)]
    Policy(Box<embodied_r_policy::Error>),
    /// An error of the vision encoder, or of an image.
    #[error(transparent)]
    Vision(Box<embodied_r_vision::Error>),
    /// A step of the engine failed, for all requests in it.
    #[error(transparent)]
    Step(Arc<Error>),
    /// A step of the engine failed, and it serves no further requests.
    #[error(transparent)]
    LastStep(Arc<Error>),
    /// A message between the tensor-parallel ranks cannot be serialized or deserialized.
    #[error("the ranks cannot decode each other's messages, run the same version on all: {0}")]
    RankProtocol(#[source] postcard::Error),
    /// The engine thread cannot be spawned.
    #[error("cannot start the model's engine thread: {0}")]
    Thread(#[source] std::io::Error),
    /// The engine thread has ended unexpectedly.
    #[error("the model's engine has stopped, see the earlier error")]
    EngineStopped,
    /// [`EngineClient::abort`](crate::EngineClient::abort) ended the request.
    #[error("the request was aborted")]
    Aborted,
    /// More events wait to be read than [`GenerationOptions`](crate::GenerationOptions) allow.
    #[error("the completion is read more slowly than it is generated")]
    SlowReader,
    /// A blocking task panicked or was cancelled.
    #[error("the task of a prompt failed: {0}")]
    TaskFailed(#[source] tokio::task::JoinError),
}

impl From<embodied_r_policy::Error> for Error {
    fn from(error: embodied_r_policy::Error) -> Self {
        Self::Policy(Box::new(error))
    }
}

impl From<embodied_r_vision::Error> for Error {
    fn from(error: embodied_r_vision::Error) -> Self {
        Self::Vision(Box::new(error))
    }
}

impl Error {
    /// Whether the engine serves no further requests.
    #[must_use]
    pub fn ends_engine(&self) -> bool {
        matches!(self, Self::LastStep(_) | Self::EngineStopped)
    }
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;
