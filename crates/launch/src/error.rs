//! Why ranks cannot be launched or joined.

use std::io;

/// Why ranks cannot be launched or joined.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This build has no MPI.
    #[error("ranks on CPUs need MPI, and this program was built without it")]
    NoMpi,
    /// This build has no CUDA.
    #[error("`--gpus` needs CUDA, and this program was built without it")]
    NoCuda,
    /// The GPUs cannot be listed.
    #[error("cannot run `nvidia-smi` to list the GPUs of this machine")]
    NoNvidiaSmi,
    /// The launcher of MPI ranks is not installed.
    #[error("`mpirun`, which launches the ranks, was not found")]
    NoMpirun,
    /// There are fewer GPUs than ranks.
    #[error("`--gpus` is {requested}, but there are {found} {}", place(.is_limited))]
    TooFewGpus {
        /// GPUs asked for.
        requested: usize,
        /// GPUs that there are.
        found: usize,
        /// Whether `CUDA_VISIBLE_DEVICES` limits them.
        is_limited: bool,
    },
    /// The variables that a launcher set make no sense.
    #[error(transparent)]
    Environment(embodied_r_dist::Error),
    /// The operating system refused.
    #[error("cannot {what}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// The ranks cannot connect.
    #[error(transparent)]
    Dist(#[from] embodied_r_dist::Error),
}

fn place(is_limited: &bool) -> &'static str {
    if *is_limited { "in `CUDA_VISIBLE_DEVICES`" } else { "in this machine" }
}

impl Error {
    /// Makes an error of what was tried from its cause.
    pub(crate) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
