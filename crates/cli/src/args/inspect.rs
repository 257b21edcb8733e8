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
