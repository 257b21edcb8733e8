//! Arguments of `embodied-r bench`.

use clap::{Args, Subcommand};

use super::model::PrecisionName;

/// Measure speed.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    pub(crate) command: BenchCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Time the sampling of completions of a fixed length.
    Generate(WorkArgs),
    /// Time whole GRPO steps: rollout, reference log-probabilities, backward, optimiser.
    Grpo(WorkArgs),
}

/// What is measured. One run is done first and not counted; medians are printed.
#[derive(Debug, Args)]
pub(crate) struct WorkArgs {
    /// Model: a folder in Hugging Face's layout, or a name on the hub.
    #[arg(long, value_name = "DIR|NAME")]
    pub(crate) model: String,
    /// What products with weights are made of: bf16 is faster, and its sums are f32.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) precision: PrecisionName,
    /// Tokens of each prompt, drawn at random.
    #[arg(long, value_name = "N", default_value_t = 1024)]
    pub(crate) prompt: usize,
    /// Tokens of each completion; nothing ends one earlier.
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub(crate) new: usize,
    /// Completions of each prompt.
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub(crate) group_size: usize,
    /// Prompts.
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub(crate) groups: usize,
    /// Counted runs.
    #[arg(long, visible_alias = "steps", value_name = "N", default_value_t = 3)]
    pub(crate) runs: usize,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}
