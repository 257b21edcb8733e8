//! Arguments that all training commands have.

use std::path::PathBuf;

use super::model::PrecisionName;

/// A run: its settings, its model and its folder.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// Settings, such as those in `configs/`.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Folder of the model to begin with, or its name on the Hugging Face hub.
    #[arg(long, value_name = "DIR|NAME")]
    pub(crate) model: Option<String>,
    /// Folder of the run: checkpoints, events, completions.
    #[arg(long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
    /// What products with weights are made of: bf16 is faster, and its sums are f32 [default: f32].
    #[arg(long, value_enum)]
    pub(crate) precision: Option<PrecisionName>,
    /// Changes one setting; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) sets: Vec<String>,
    /// Go on from the last checkpoint in the output folder (`auto`; a new run if there is none), in
    /// another run's folder, or from one checkpoint.
    #[arg(long, value_name = "auto|DIR", num_args = 0..=1, default_missing_value = "auto")]
    pub(crate) resume: Option<PathBuf>,
    /// Print the batch arithmetic, and train nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}
