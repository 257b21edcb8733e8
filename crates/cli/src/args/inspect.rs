//! Arguments of `embodied-r inspect`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::device::DeviceName;
use super::model::{PrecisionName, WeightArgs};
use super::parallel::ParallelArgs;

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
    /// Print what a vision-language model sees in pictures and says of them.
    Caption(CaptionArgs),
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
    /// What computes.
    #[arg(long, default_value_t)]
    pub(crate) device: DeviceName,
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

/// The pictures and then the prompt are one turn of the user, in the model's chat template; the likeliest tokens
/// follow, up to one of the model's stop tokens.
#[derive(Debug, Args)]
pub(crate) struct CaptionArgs {
    /// Vision-language model: a folder in Hugging Face's layout, a GGUF file with its `mmproj` beside it, or a name on
    /// the hub.
    #[arg(long, value_name = "DIR|NAME")]
    pub(crate) model: String,
    /// Pictures, PNG or JPEG.
    #[arg(long, num_args = 1.., value_name = "FILE", required = true)]
    pub(crate) image: Vec<PathBuf>,
    /// What is asked of them.
    #[arg(long, value_name = "TEXT")]
    pub(crate) prompt: String,
    /// Most tokens that follow.
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub(crate) max_tokens: usize,
    /// Reduce larger pictures to so many pixels [default: what the model's processor says].
    #[arg(long, value_name = "N", value_parser = super::perceive::at_least_one)]
    pub(crate) max_pixels: Option<usize>,
    #[command(flatten)]
    pub(crate) weights: WeightArgs,
    #[command(flatten)]
    pub(crate) parallel: ParallelArgs,
    /// Print JSON; without it, a line a picture and then what is said.
    #[arg(long)]
    pub(crate) json: bool,
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
    /// What computes.
    #[arg(long, default_value_t)]
    pub(crate) device: DeviceName,
    /// Print JSON; without it, a line a figure.
    #[arg(long)]
    pub(crate) json: bool,
}
