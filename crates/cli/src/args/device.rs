//! The argument of every command that computes with a model.

use clap::ValueEnum;

/// What computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum DeviceName {
    /// The processor.
    #[default]
    Cpu,
    /// One GPU a process, in a build with CUDA.
    Cuda,
}

impl DeviceName {
    /// This, or GPUs where so many of them are asked for.
    pub(crate) fn or_gpus(self, gpus: Option<usize>) -> Self {
        if gpus.is_some() { Self::Cuda } else { self }
    }
}
