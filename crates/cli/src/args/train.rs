//! Arguments of `embodied-r train`.

use std::path::PathBuf;

/// Train with GRPO.
///
/// Settings come from defaults (the paper's run), then the file, then `--set`, then the flags.
#[derive(Debug, clap::Args)]
pub(crate) struct TrainArgs {
    /// Settings, such as `configs/embodied-r.toml`.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Folder of the model to begin with, or its name on the Hugging Face hub.
    #[arg(long, value_name = "DIR|NAME")]
    pub(crate) model: Option<String>,
    /// Questions to train on: JSON as `perceive` writes it.
    #[arg(long, value_name = "FILE")]
    pub(crate) data: Option<PathBuf>,
    /// Questions to evaluate on in the course of training.
    #[arg(long, value_name = "FILE")]
    pub(crate) eval_data: Option<PathBuf>,
    /// Folder of the run: checkpoints, events, completions.
    #[arg(long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
    /// Changes one setting; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) sets: Vec<String>,
    #[command(flatten)]
    pub(crate) resume: ResumeArgs,
    /// Print the batch arithmetic and the stages, and train nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Where to go on.
#[derive(Debug, clap::Args)]
pub(crate) struct ResumeArgs {
    /// Go on from the last checkpoint in the output folder (`auto`; a new run if there is none), in
    /// another run's folder, or from one checkpoint.
    #[arg(long, value_name = "auto|DIR", num_args = 0..=1, default_missing_value = "auto")]
    pub(crate) resume: Option<PathBuf>,
}
