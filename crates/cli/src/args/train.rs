//! Arguments of `embodied-r train`.

use std::path::PathBuf;

use super::run::RunArgs;

/// Train with GRPO.
///
/// Settings come from defaults (the paper's run), then the file, then `--set`, then the flags.
#[derive(Debug, clap::Args)]
pub(crate) struct TrainArgs {
    #[command(flatten)]
    pub(crate) run: RunArgs,
    /// Questions to train on: JSON as `perceive` writes it.
    #[arg(long, value_name = "FILE")]
    pub(crate) data: Option<PathBuf>,
    /// Questions to evaluate on in the course of training.
    #[arg(long, value_name = "FILE")]
    pub(crate) eval_data: Option<PathBuf>,
    /// Compare the gradients of the run's first step with those of every completion by itself, unpacked
    /// and behind a prompt of its own.
    #[arg(long)]
    pub(crate) verify_packing: bool,
}
