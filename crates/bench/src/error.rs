//! The crate's error type.

/// Why a benchmark failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No kernel is selected.
    #[error("no kernel name contains `{part}`")]
    NoKernel {
        /// The text that the names lack.
        part: String,
    },
    /// A published preset has no published shape.
    #[error("the preset has no published shape")]
    NoShape,
    /// A result cannot be given out.
    #[error(transparent)]
    Output(std::io::Error),
    /// A kernel failed.
    #[error(transparent)]
    Kernels(#[from] embodied_r_kernels::Error),
    /// A file cannot be written.
    #[error(transparent)]
    Files(#[from] embodied_r_files::Error),
    /// The decoder, or a model's files.
    #[error(transparent)]
    Policy(#[from] embodied_r_policy::Error),
    /// The vision encoder.
    #[error(transparent)]
    Vision(#[from] embodied_r_vision::Error),
    /// A rank was lost.
    #[error(transparent)]
    Ranks(#[from] embodied_r_dist::Error),
    /// A training step.
    #[error(transparent)]
    Grpo(#[from] embodied_r_grpo::Error),
}

/// The crate's result type.
pub type Result<T, E = Error> = std::result::Result<T, E>;
