//! Options of `embodied-r inspect`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::device::DeviceName;
use super::direct::VideoPixelsName;
use super::frames::FrameArgs;
use super::model::WeightArgs;
use super::parallel::ParallelArgs;
use super::precision::PrecisionName;

/// Print a model's log-probabilities, greedy tokens, captions or losses.
///
/// Use it to compare this implementation with others token by token.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    #[command(subcommand)]
    pub(crate) command: InspectCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum InspectCommand {
    /// Print the log-probability of each token after the first.
    Logprobs(SequencesArgs),
    /// Continue token sequences with greedy decoding.
    Greedy(GreedyArgs),
    Caption(CaptionArgs),
    Loss(LossArgs),
}

/// A model and its input sequences.
#[derive(Debug, Args)]
pub(crate) struct SequencesArgs {
    /// Model: a directory in Hugging Face layout, or a Hub ID.
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: String,
    /// JSON file of token IDs: `{"sequences": [[1, 2, …], …]}`.
    #[arg(long, alias = "input", value_name = "FILE")]
    pub(crate) data: PathBuf,
    /// Precision of matrix multiplications; `bf16` is faster on GPUs and on most CPUs with AVX-512 BF16.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) precision: PrecisionName,
    /// Device to run on.
    #[arg(long, default_value_t)]
    pub(crate) device: DeviceName,
    /// Print JSON instead of one line per sequence.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct GreedyArgs {
    #[command(flatten)]
    pub(crate) sequences: SequencesArgs,
    /// Maximum number of tokens to generate per sequence; stop tokens end it earlier.
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub(crate) max_tokens: usize,
}

/// Print a vision-language model's input tokens for images and videos, and its greedy completion.
///
/// The images, the videos and then the prompt form one user message in the model's chat template. Decoding is greedy and
/// ends at a stop token.
#[derive(Debug, Args)]
pub(crate) struct CaptionArgs {
    /// Vision-language model: a directory in Hugging Face layout, a GGUF file with its `mmproj`, or a Hub ID.
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: String,
    /// Images: PNG, JPEG, WebP or GIF.
    #[arg(long, num_args = 1.., value_name = "FILE", required_unless_present = "video")]
    pub(crate) image: Vec<PathBuf>,
    /// Videos, whose frames the model sees as a video.
    #[arg(long, num_args = 1.., value_name = "FILE")]
    pub(crate) video: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) frames: FrameArgs,
    /// What the limits of the model's video processor apply to; Qwen2.5-VL limits frames in either case.
    #[arg(long, value_enum, value_name = "WHAT", help_heading = "Videos", default_value_t)]
    pub(crate) video_pixels: VideoPixelsName,
    /// Text of the message, after the images and videos.
    #[arg(long, value_name = "TEXT")]
    pub(crate) prompt: String,
    /// Maximum number of tokens to generate.
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub(crate) max_tokens: usize,
    /// Downscale larger images to this many pixels [default: the model's image processor decides].
    #[arg(long, value_name = "PIXELS", value_parser = super::value::at_least_one)]
    pub(crate) max_pixels: Option<usize>,
    #[command(flatten)]
    pub(crate) weights: WeightArgs,
    /// Print JSON instead of one line per image or video and the completion.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) parallel: ParallelArgs,
}

/// Print the GRPO loss of given completions and the gradient norm of each tensor.
///
/// Loss settings start from TRL's defaults, overridden by those in the data file (`train` writes one when it skips a
/// step), then by `--set`. With `--set use_peft=true`, gradients are those of a LoRA adapter, without dropout: a new one, or
/// that of `--model`.
#[derive(Debug, Args)]
pub(crate) struct LossArgs {
    /// Model: a directory in Hugging Face layout, a LoRA adapter, or a Hub ID.
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: String,
    /// JSON file of groups: `{"groups": [{"prompt_ids": [1, …], "completions": [{"ids": [2, …],
    /// "advantage": 0.5, "old_logps"?: […], "ref_logps"?: […], "sampling_logps"?: […]}]}]}`.
    #[arg(long, alias = "batch", value_name = "FILE")]
    pub(crate) data: PathBuf,
    /// Override one setting, such as `loss_type=dapo` or `freeze_vision_tower=false`; repeatable.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) sets: Vec<String>,
    /// Precision of matrix multiplications; `bf16` is faster on GPUs and on most CPUs with AVX-512 BF16.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) precision: PrecisionName,
    /// Device to run on.
    #[arg(long, default_value_t)]
    pub(crate) device: DeviceName,
    /// Print JSON instead of one line per metric.
    #[arg(long)]
    pub(crate) json: bool,
}
