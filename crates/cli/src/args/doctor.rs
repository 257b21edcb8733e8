//! Options of `embodied-r doctor`.

use std::path::PathBuf;

/// Check the installation: CPU, GPUs, FFmpeg, NCCL, data and models.
///
/// Exits with code 1 if something required is missing, and says how to fix it.
#[derive(Debug, clap::Args)]
pub(crate) struct DoctorArgs {
    /// Also check this data directory: the downloaded benchmarks, or the output of `preprocess`.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Also check this model directory.
    #[arg(long, value_name = "DIR")]
    pub(crate) model: Option<PathBuf>,
    /// Print one JSON object instead of text.
    #[arg(long)]
    pub(crate) json: bool,
}
