//! The command line: clap's types, and nothing else.

use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};

/// Make the small base models that `embodied-r quickstart` starts from.
#[derive(Debug, Parser)]
#[command(name = "embodied-r-pretrain", version, propagate_version = true)]
pub(crate) struct Cli {
    /// Log level or filter for standard error, such as `info` or `embodied_r_grpo=debug`.
    #[arg(
        long,
        global = true,
        env = "EMBODIED_R_LOG",
        value_name = "FILTER",
        default_value = "warn",
        help_heading = "Global options",
        display_order = 1000
    )]
    pub(crate) log: String,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// The error of options that do not fit together; it ends the program with exit code 2.
    pub(crate) fn usage_error(message: impl std::fmt::Display) -> clap::Error {
        Self::command().error(ErrorKind::ValueValidation, message)
    }
}

/// The commands. Their help is that of their options.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Model(Box<ModelArgs>),
    Corpus(CorpusArgs),
}

/// Write a pretraining corpus for a small model.
///
/// The corpus is JSONL of `prompt` and `completion`, and `system` for chats. Each document holds the captions of a room
/// and statements of one step each, from the captions or from made-up sightings, but neither questions nor chains of
/// steps that would answer one.
#[derive(Debug, clap::Args)]
pub(crate) struct CorpusArgs {
    /// Number of documents.
    #[arg(long, value_name = "N")]
    pub(crate) documents: u64,
    /// Random seed for the text.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub(crate) seed: u64,
    /// File to write [default: standard output].
    #[arg(long, alias = "out", value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// Pretrain the small base model of the quickstart.
///
/// Trains a tokenizer and a Qwen2 decoder on lookup tasks and then on the text of `corpus`, and writes both in
/// Hugging Face layout. The text has neither questions nor chains of reasoning. `pretrain.json` records settings and
/// training time.
#[derive(Debug, clap::Args)]
pub(crate) struct ModelArgs {
    /// Directory to write the model to.
    #[arg(long, alias = "out", value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// Continue pretraining from this model and its tokenizer instead of random weights. Use a different
    /// `--seed` than the earlier run: the same seed repeats its text.
    #[arg(long, value_name = "DIR")]
    pub(crate) from: Option<PathBuf>,
    /// Number of optimizer steps.
    #[arg(long, value_name = "N", default_value_t = 25_000)]
    pub(crate) steps: u64,
    /// Number of steps at the start, included in `--steps`, that train only on looking up names in plain lists.
    #[arg(long, value_name = "N", default_value_t = 2000)]
    pub(crate) lookup_steps: u64,
    /// Number of steps before the chat steps, included in `--steps`, whose prompts name an object that statements are about.
    #[arg(long, value_name = "N", default_value_t = 2000)]
    pub(crate) naming_steps: u64,
    /// Number of steps at the end, included in `--steps`, on text that is mostly chats in the format of the quickstart.
    #[arg(long, value_name = "N", default_value_t = 13_000)]
    pub(crate) chat_steps: u64,
    /// Number of tokens per step.
    #[arg(long, value_name = "N", default_value_t = 2048)]
    pub(crate) tokens_per_step: usize,
    /// Peak learning rate, with warmup and cosine decay.
    #[arg(long, value_name = "LR", default_value_t = 3e-3)]
    pub(crate) learning_rate: f64,
    /// Peak learning rate of the lookup steps, which have their own warmup and decay.
    #[arg(long, value_name = "LR", default_value_t = 5e-3)]
    pub(crate) lookup_learning_rate: f64,
    /// Peak learning rate of the naming and chat steps, which have their own warmup and decay each.
    #[arg(long, value_name = "LR", default_value_t = 2e-3)]
    pub(crate) naming_learning_rate: f64,
    /// Random seed for weights and text.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) shape: ShapeArgs,
    #[command(flatten)]
    pub(crate) vision: VisionArgs,
}

/// The vision-language base model.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Vision")]
pub(crate) struct VisionArgs {
    /// Pretrain the small vision-language base model of `quickstart --vision`, or with `--world arm` that of
    /// `quickstart --robot`, from a text model: the one of `--from`, which rooms need (`crates/cli/base` is the bundled one)
    /// [default: with `--world arm` one that is trained first]. A vision encoder first learns to detect objects in rendered frames, then it and the
    /// decoder learn text about frames. If `--from` is a vision-language model, its training continues; give
    /// `--detection-steps 0` to leave out detection. A run that was interrupted goes on after the last of these stages when the
    /// same command is given again.
    #[arg(
        long,
        conflicts_with_all = ["steps", "lookup_steps", "naming_steps", "chat_steps", "learning_rate",
            "lookup_learning_rate", "naming_learning_rate", "vocab_size", "hidden_size", "intermediate_size", "layers",
            "heads", "kv_heads"]
    )]
    pub(crate) vision: bool,
    /// What frames and text are about.
    #[arg(long, value_name = "WORLD", requires = "vision", value_enum, default_value_t = WorldName::Rooms)]
    pub(crate) world: WorldName,
    /// Number of steps of `--world arm` on text without frames at the start [default: 12000, with `--from` 0].
    #[arg(long, value_name = "N", requires = "vision")]
    pub(crate) text_steps: Option<u64>,
    /// Number of detection steps.
    #[arg(long, value_name = "N", requires = "vision", default_value_t = 5000)]
    pub(crate) detection_steps: u64,
    /// Number of images per detection step.
    #[arg(long, value_name = "N", requires = "vision", value_parser = at_least_one, default_value_t = 32)]
    pub(crate) images_per_step: usize,
    /// Peak learning rate of the detection steps, with AdamW.
    #[arg(long, value_name = "LR", requires = "vision", default_value_t = 1.5e-3)]
    pub(crate) detection_learning_rate: f64,
    /// Number of steps on text about frames [default: 4500, of the arm 8000].
    #[arg(long, value_name = "N", requires = "vision")]
    pub(crate) vision_steps: Option<u64>,
    /// Number of rooms, or of scenes of the arm, whose frames the text is about [default: 16000, of the arm 32000].
    #[arg(long, value_name = "N", requires = "vision")]
    pub(crate) rooms: Option<u64>,
    /// Peak learning rate of the decoder.
    #[arg(long, value_name = "LR", requires = "vision", default_value_t = 2e-3)]
    pub(crate) vision_learning_rate: f64,
    /// Peak learning rate of the vision encoder.
    #[arg(long, value_name = "LR", requires = "vision", default_value_t = 1e-3)]
    pub(crate) encoder_learning_rate: f64,
    #[command(flatten)]
    pub(crate) encoder: EncoderShapeArgs,
}

impl VisionArgs {
    /// Steps on text about frames.
    pub(crate) fn vision_steps(&self) -> u64 {
        self.vision_steps.unwrap_or(match self.world {
            WorldName::Rooms => 4500,
            WorldName::Arm => 8000,
        })
    }

    /// Rooms or scenes whose frames the text is about.
    pub(crate) fn rooms(&self) -> u64 {
        self.rooms.unwrap_or(match self.world {
            WorldName::Rooms => 16_000,
            WorldName::Arm => 32_000,
        })
    }
}

/// What the vision-language base model sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WorldName {
    /// Rooms, the base of `quickstart --vision`.
    Rooms,
    /// The robot arm, the base of `quickstart --robot`.
    Arm,
}

/// Architecture of the vision encoder.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Vision encoder")]
pub(crate) struct EncoderShapeArgs {
    /// Hidden size of the vision encoder.
    #[arg(long, value_name = "N", requires = "vision", default_value_t = 128)]
    pub(crate) encoder_hidden_size: usize,
    /// Intermediate size of its feed-forward layers.
    #[arg(long, value_name = "N", requires = "vision", default_value_t = 352)]
    pub(crate) encoder_intermediate_size: usize,
    /// Number of its blocks.
    #[arg(long, value_name = "N", requires = "vision", default_value_t = 4)]
    pub(crate) encoder_depth: usize,
    /// Number of its attention heads.
    #[arg(long, value_name = "N", requires = "vision", default_value_t = 4)]
    pub(crate) encoder_heads: usize,
}

/// Architecture of the decoder.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Architecture")]
pub(crate) struct ShapeArgs {
    /// Maximum vocabulary size of the tokenizer.
    #[arg(long, value_name = "N", conflicts_with = "from", default_value_t = 768)]
    pub(crate) vocab_size: usize,
    /// Hidden size.
    #[arg(long, value_name = "N", conflicts_with = "from", default_value_t = 128)]
    pub(crate) hidden_size: usize,
    /// Intermediate size of the feed-forward layers.
    #[arg(long, value_name = "N", conflicts_with = "from", default_value_t = 352)]
    pub(crate) intermediate_size: usize,
    /// Number of layers.
    #[arg(long, value_name = "N", conflicts_with = "from", default_value_t = 6)]
    pub(crate) layers: usize,
    /// Number of attention heads.
    #[arg(long, value_name = "N", conflicts_with = "from", default_value_t = 4)]
    pub(crate) heads: usize,
    /// Number of key-value heads (GQA).
    #[arg(long, value_name = "N", conflicts_with = "from", default_value_t = 4)]
    pub(crate) kv_heads: usize,
}

/// A count of 1 or more.
fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(n) => Ok(n),
        Err(error) => Err(format!("{error}")),
    }
}
