//! Arguments of `embodied-r inspect`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::model::PrecisionName;

/// Look into a model: tokens in, numbers out.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    #[command(subcommand)]
    pub(crate) command: InspectCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum InspectCommand {
    /// Print the log-probability of each token but the first.
    Logprobs(SequencesArgs),
    /// Print the likeliest tokens behind each sequence, one after the other.
    Greedy(GreedyArgs),
    /// Print the loss of GRPO on given tokens, and the norm of each tensor's gradient.
    Loss(LossArgs),
}

/// A model and what it reads.
#[derive(Debug, Args)]
pub(crate) struct SequencesArgs {
    /// Model: a folder in Hugging Face's layout, or a name on the hub.
    #[arg(long, value_name = "DIR|NAME")]
    pub(crate) model: String,
    /// JSON file of token ids: `{"sequences": [[1, 2, …], …]}`.
    #[arg(long, value_name = "FILE")]
    pub(crate) input: PathBuf,
    /// What products with weights are made of: bf16 is faster, and its sums are f32.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) precision: PrecisionName,
    /// Print JSON; without it, a line a sequence.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct GreedyArgs {
    #[command(flatten)]
    pub(crate) sequences: SequencesArgs,
    /// Tokens behind each sequence, at most; the model's own stop tokens end it earlier.
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub(crate) max_tokens: usize,
}

/// Settings are TRL's, with TRL's defaults: below those in the file, which a run writes when it has to
/// leave out a step, and those below `--set`.
#[derive(Debug, Args)]
pub(crate) struct LossArgs {
    /// Model: a folder in Hugging Face's layout, or a name on the hub.
    #[arg(long, value_name = "DIR|NAME")]
    pub(crate) model: String,
    /// JSON file of groups: `{"groups": [{"prompt_ids": [1, …], "completions": [{"ids": [2, …],
    /// "advantage": 0.5, "old_logps"?: […], "ref_logps"?: […], "sampling_logps"?: […]}]}]}`.
    #[arg(long, value_name = "FILE")]
    pub(crate) batch: PathBuf,
    /// Changes one setting, such as `loss_type=dapo`; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) sets: Vec<String>,
    /// What products with weights are made of: bf16 is faster, and its sums are f32.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) precision: PrecisionName,
    /// Print JSON; without it, a line a figure.
    #[arg(long)]
    pub(crate) json: bool,
}
