//! Options of `embodied-r bench`.

use std::path::PathBuf;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand, ValueEnum};
use embodied_r_bench::gpu::Step;
use embodied_r_bench::{Preset, Work};
use embodied_r_policy::Precision;

use super::device::DeviceName;
use super::model::WeightArgs;
use super::parallel::ParallelArgs;
use super::precision::PrecisionName;
use super::run::{RankArgs, RecomputeName};

/// Benchmark generation, training and kernels.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    pub(crate) command: BenchCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    Generate(WorkArgs),
    Grpo(GrpoArgs),
    Caption(CaptionArgs),
    MakeModel(MakeModelArgs),
    Ops(OpsArgs),
    Gpu(GpuArgs),
}

/// Benchmark generation of fixed-length completions.
///
/// Prints medians of the measured runs, after one warmup run.
#[derive(Debug, Args)]
pub(crate) struct WorkArgs {
    /// Model: a directory in Hugging Face layout, or a Hub ID.
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: String,
    /// Precision of matrix multiplications; `bf16` is faster on GPUs and on most CPUs with AVX-512 BF16 [default: f32
    /// on a CPU, bf16 on a GPU].
    #[arg(long, value_enum)]
    pub(crate) precision: Option<PrecisionName>,
    /// Prompt length in tokens; prompts are random tokens.
    #[arg(long, value_name = "TOKENS", default_value_t = 1024)]
    pub(crate) prompt: usize,
    /// Completion length in tokens; stop tokens are ignored.
    #[arg(long, value_name = "TOKENS", default_value_t = 128)]
    pub(crate) new: usize,
    /// Number of completions per prompt.
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub(crate) group_size: usize,
    /// Number of prompts.
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub(crate) groups: usize,
    /// Number of measured runs.
    #[arg(long, visible_alias = "steps", value_name = "N", default_value_t = 3)]
    pub(crate) runs: usize,
    /// Device to run on.
    #[arg(long, default_value_t)]
    pub(crate) device: DeviceName,
    /// Print one JSON object instead of text.
    #[arg(long)]
    pub(crate) json: bool,
}

impl WorkArgs {
    /// The device, and the precision of matrix multiplications on it, for a rank of a run on `gpus` GPUs.
    pub(crate) fn device_and_precision(&self, gpus: Option<usize>) -> (DeviceName, Precision) {
        let device = self.device.or_gpus(gpus);
        (device, self.precision.unwrap_or_else(|| device.default_precision()).into())
    }

    /// What a run generates.
    pub(crate) fn work(&self) -> Work {
        let &Self { prompt, new, group_size, groups, runs, .. } = self;
        Work { prompt, new, group_size, groups, runs }
    }
}

/// Benchmark captioning: vision encoder, prefill and decoding.
///
/// Captions frames as `perceive` does: the first frame alone, each later frame together with the one before it. Prints
/// medians of the measured runs, after one warmup run.
#[derive(Debug, Args)]
pub(crate) struct CaptionArgs {
    /// Vision-language model: a directory in Hugging Face layout, a GGUF file with its `mmproj`, or a Hub ID.
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: String,
    #[command(flatten)]
    pub(crate) weights: WeightArgs,
    /// Number of key frames.
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub(crate) frames: usize,
    /// Frame size in pixels.
    #[arg(long, num_args = 2, value_names = ["WIDTH", "HEIGHT"], default_values_t = [640, 480])]
    pub(crate) size: Vec<u32>,
    /// Caption length in tokens; stop tokens are ignored.
    #[arg(long, value_name = "TOKENS", default_value_t = 64)]
    pub(crate) new: usize,
    /// Number of measured runs.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(crate) runs: usize,
    /// Print one JSON object instead of text.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) parallel: ParallelArgs,
}

/// Benchmark whole GRPO steps: rollout, reference log-probabilities, backward pass, optimizer.
///
/// Prints medians of the measured runs, after one warmup run.
#[derive(Debug, Args)]
pub(crate) struct GrpoArgs {
    #[command(flatten)]
    pub(crate) work: WorkArgs,
    /// Activation recomputation (gradient checkpointing) policy: trades time for memory; results change only by
    /// rounding.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) recompute: RecomputeName,
    /// Maximum number of tokens per micro-batch, prompts included.
    #[arg(long, value_name = "N", default_value_t = 2048)]
    pub(crate) max_tokens_per_batch: usize,
    /// Side in pixels of a square image in every prompt, besides its text, for a vision-language model. The images of
    /// every step are new; with a frozen vision encoder, steps whose images are encoded already are timed besides.
    #[arg(long, value_name = "PIXELS")]
    pub(crate) image: Option<u32>,
    /// Override one setting of the vision encoder, such as `freeze_vision_tower=false`; repeatable.
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "image")]
    pub(crate) sets: Vec<String>,
    #[command(flatten)]
    pub(crate) ranks: RankArgs,
}

/// Write a model with random weights and a tokenizer, for benchmarks.
///
/// The output is in Hugging Face layout. The same seed gives identical files.
#[derive(Debug, Args)]
pub(crate) struct MakeModelArgs {
    /// Directory to write to; must be new or empty.
    #[arg(value_name = "OUTPUT")]
    pub(crate) output: PathBuf,
    /// Architecture of the model.
    #[arg(long, value_name = "SHAPE", value_parser = preset())]
    pub(crate) preset: Preset,
    /// Random seed for the weights.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Data type of the weights [default: bfloat16 for the Qwen2.5 presets, float32 for the others].
    #[arg(long)]
    pub(crate) dtype: Option<ModelDtype>,
    /// Print one JSON object instead of text.
    #[arg(long)]
    pub(crate) json: bool,
}

/// The steps of a check, by name.
fn step() -> impl TypedValueParser<Value = Step> {
    let named = |step: Step| PossibleValue::new(step.name()).help(step.description());
    PossibleValuesParser::new(Step::ALL.map(named)).try_map(|name| {
        let known = Step::ALL.into_iter().find(|step| step.name() == name);
        known.ok_or("is no step")
    })
}

/// The architectures, by name.
fn preset() -> impl TypedValueParser<Value = Preset> {
    let named = |preset: Preset| PossibleValue::new(preset.name()).help(preset.description());
    PossibleValuesParser::new(Preset::ALL.map(named)).try_map(|name| {
        let known = Preset::ALL.into_iter().find(|preset| preset.name() == name);
        known.ok_or("is no architecture")
    })
}

/// Data type of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ModelDtype {
    /// float32.
    Float32,
    /// bfloat16.
    Bfloat16,
}

/// Benchmark kernels against the hardware limits, or check their results.
///
/// Reports each kernel's utilization of its bottleneck: peak f32 FLOP/s or memory bandwidth.
#[derive(Debug, Args)]
pub(crate) struct OpsArgs {
    /// Check results instead of timing: CPU kernels against naive reference implementations, GPU kernels against the
    /// CPU kernels. Exits with code 1 if an error exceeds its tolerance.
    #[arg(long)]
    pub(crate) check: bool,
    /// Device to run on. A GPU's operations are checked in f32 and bf16, and timed by CUDA events at the sizes of a
    /// 3B model in bf16.
    #[arg(long, default_value_t)]
    pub(crate) device: DeviceName,
    /// Run only the kernels whose name contains TEXT.
    #[arg(long, value_name = "TEXT")]
    pub(crate) only: Option<String>,
    /// Rotate over more inputs than a GPU's L2 cache holds, as a model does, whose layers have weights of their own.
    #[arg(long, conflicts_with = "check")]
    pub(crate) cold: bool,
    /// Print one JSON object instead of text, a line for each operation as soon as it is done.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Check and measure a GPU, one JSON line per fact.
///
/// A line is printed as soon as its fact is known: `{"step", "fact", "value", "unit", "ok", "seconds"}`. `ok` says whether
/// a checked value is within its bound, which `unit` names; `seconds` counts from the start of the step. The last fact
/// of a step is `finished`. `scripts/gpu_check.sh` runs all steps within time limits.
#[derive(Debug, Args)]
pub(crate) struct GpuArgs {
    /// Steps to run, in this order.
    #[arg(long = "step", value_name = "STEP", value_parser = step(), value_delimiter = ',', required = true)]
    pub(crate) steps: Vec<Step>,
    /// Architecture of the model that decodes and trains, with random weights.
    #[arg(long, value_name = "SHAPE", value_parser = preset(), default_value = "qwen2.5-3b")]
    pub(crate) preset: Preset,
    /// Short prompts and few operations, to rehearse a check.
    #[arg(long)]
    pub(crate) small: bool,
    #[command(flatten)]
    pub(crate) ranks: RankArgs,
}
