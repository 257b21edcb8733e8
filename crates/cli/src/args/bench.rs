//! Arguments of `embodied-r bench`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::device::DeviceName;
use super::model::{PrecisionName, WeightArgs};
use super::parallel::ParallelArgs;
use super::run::{RankArgs, RecomputeName};

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
    Grpo(GrpoArgs),
    /// Time captions of a video's frames: the vision tower, prompts, and words.
    Caption(CaptionArgs),
    /// Write a model with random weights, in Hugging Face's layout and with a tokenizer.
    MakeModel(MakeModelArgs),
    /// Time each operation beside what the machine can do, or check their results.
    Ops(OpsArgs),
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
    /// What computes.
    #[arg(long, default_value_t)]
    pub(crate) device: DeviceName,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Frames are described as `perceive` has them described: the first alone, each other one beside the one before.
/// One run is done first and not counted; medians are printed.
#[derive(Debug, Args)]
pub(crate) struct CaptionArgs {
    /// Vision-language model: a folder in Hugging Face's layout, a GGUF file with its `mmproj` beside it, or a name on
    /// the hub.
    #[arg(long, value_name = "DIR|NAME")]
    pub(crate) model: String,
    #[command(flatten)]
    pub(crate) weights: WeightArgs,
    /// Key frames of the video.
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub(crate) frames: usize,
    /// Pixels of a frame: width and height.
    #[arg(long, num_args = 2, value_names = ["WIDTH", "HEIGHT"], default_values_t = [640, 480])]
    pub(crate) size: Vec<u32>,
    /// Tokens of each caption; nothing ends one earlier.
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) new: usize,
    /// Counted runs.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(crate) runs: usize,
    #[command(flatten)]
    pub(crate) parallel: ParallelArgs,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What is measured of a training step, and how its memory is spent.
#[derive(Debug, Args)]
pub(crate) struct GrpoArgs {
    #[command(flatten)]
    pub(crate) work: WorkArgs,
    /// Which layers the backward computes again in place of keeping what their forward computed.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) recompute: RecomputeName,
    /// Tokens of a micro-batch, prompts included.
    #[arg(long, value_name = "N", default_value_t = 2048)]
    pub(crate) max_tokens_per_batch: usize,
    #[command(flatten)]
    pub(crate) ranks: RankArgs,
}

/// A model to measure with where no other is at hand. The same seed gives the same bytes.
#[derive(Debug, Args)]
pub(crate) struct MakeModelArgs {
    /// The folder to write to; new or empty.
    #[arg(value_name = "OUT")]
    pub(crate) out: PathBuf,
    /// The model's shape.
    #[arg(long, value_name = "SHAPE")]
    pub(crate) preset: Preset,
    /// Seed of the weights.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Format of the weights [default: bfloat16 for the shapes of Qwen2.5, float32 for the others].
    #[arg(long)]
    pub(crate) dtype: Option<ModelDtype>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// A model's shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Preset {
    /// Qwen2.5-0.5B.
    #[value(name = "qwen2.5-0.5b")]
    Qwen2505b,
    /// Qwen2.5-1.5B.
    #[value(name = "qwen2.5-1.5b")]
    Qwen2515b,
    /// Qwen2.5-3B, which is also the decoder of Qwen2.5-VL-3B.
    #[value(name = "qwen2.5-3b")]
    Qwen253b,
    /// Qwen2.5-7B.
    #[value(name = "qwen2.5-7b")]
    Qwen257b,
    /// Twelve layers of width 512: a few seconds of a CPU's work.
    ShapeE,
    /// Two layers of width 64.
    TinyQwen2,
    /// The same with one table for both ends.
    TinyQwen2Tied,
    /// The same as a Llama.
    TinyLlama,
}

/// Format of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ModelDtype {
    /// 32-bit floats.
    Float32,
    /// bfloat16.
    Bfloat16,
}

/// Achieved rates are shown as shares of the limit that applies: the peak of f32 multiplications and
/// additions, or memory's rate, whichever an operation meets first.
#[derive(Debug, Args)]
pub(crate) struct OpsArgs {
    /// Compare each result with a slow plain computation in place of timing it, or a GPU's with the
    /// processor's; exit code 1 when one is beyond its tolerance.
    #[arg(long)]
    pub(crate) check: bool,
    /// What computes; a GPU's operations are checked, in f32 and in bf16, and not timed.
    #[arg(long, default_value_t)]
    pub(crate) device: DeviceName,
    /// Only the operations with this in their name.
    #[arg(long, value_name = "TEXT")]
    pub(crate) only: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}
