//! Arguments of `embodied-r doctor`.

use std::path::PathBuf;

/// Check what the machine has and what is missing.
///
/// Ends with code 1 when something required is missing, and says what to do about it.
#[derive(Debug, clap::Args)]
pub(crate) struct DoctorArgs {
    /// Folder of the benchmarks, or of `preprocess`'s output, to check.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Folder of a model to check.
    #[arg(long, value_name = "DIR")]
    pub(crate) model: Option<PathBuf>,
    /// Print one JSON object instead of text.
    #[arg(long)]
    pub(crate) json: bool,
}
