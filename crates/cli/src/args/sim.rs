//! Options of `embodied-r sim`.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use embodied_r_lerobot::{Version, VideoCodec};
use embodied_r_sim::Category;
use embodied_r_sim::arm::Task;

/// Generate simulated rooms, videos, questions and training text.
#[derive(Debug, clap::Args)]
pub(crate) struct SimArgs {
    #[command(subcommand)]
    pub(crate) command: SimCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SimCommand {
    Rooms(RoomsArgs),
    Views(ViewsArgs),
    Corpus(CorpusArgs),
    Pretrain(PretrainArgs),
    Conversations(ConversationsArgs),
    Arm(ArmArgs),
}

/// Render rooms as videos with questions, in the layout of the two benchmarks.
///
/// Writes `VSI-Bench/` and `UrbanVideo-Bench/`, which `preprocess` reads, and `scenes/`, the ground truth that
/// `perceive --backend scene` captions from. Interrupted runs keep finished rooms; run the command again to resume.
#[derive(Debug, clap::Args)]
pub(crate) struct RoomsArgs {
    /// Output directory.
    #[arg(long, alias = "out", value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// Number of rooms, divided between the two benchmarks.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) rooms: u64,
    /// Random seed for rooms and questions.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Number of questions per category and room.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) per_category: usize,
    /// Comma-separated question categories, by their official names [default: all].
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) categories: Vec<Category>,
}

/// Render rooms as a few frames with questions for a vision-language model.
///
/// Writes `train_data.json`, `val_data.json` and `test_data.json`, which `sft`, `train`, `infer` and `eval` read, and
/// `frames/`. A question has a room of its own; its prompt has four frames as images and the actions between them as
/// text. The field `perceived` has the prompt with captions in place of the images.
#[derive(Debug, clap::Args)]
pub(crate) struct ViewsArgs {
    /// Output directory.
    #[arg(long, alias = "out", value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// Number of questions for training.
    #[arg(long, value_name = "N", default_value_t = 1080)]
    pub(crate) train: u64,
    /// Number of questions for validation.
    #[arg(long, value_name = "N", default_value_t = 120)]
    pub(crate) val: u64,
    /// Number of questions for testing.
    #[arg(long, value_name = "N", default_value_t = 600)]
    pub(crate) test: u64,
    /// Random seed for rooms and questions.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Comma-separated question categories, by their official names [default: all that four frames answer].
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) categories: Vec<Category>,
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
/// Trains a tokenizer and a Qwen2 decoder on lookup tasks and then on the text of `sim corpus`, and writes both in
/// Hugging Face layout. The text has neither questions nor chains of reasoning. `pretrain.json` records settings and
/// training time.
#[derive(Debug, clap::Args)]
pub(crate) struct PretrainArgs {
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
    pub(crate) vision: VisionPretrainArgs,
}

/// The vision-language base model.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Vision")]
pub(crate) struct VisionPretrainArgs {
    /// Pretrain the small vision-language base model of `quickstart --vision`, or with `--world arm` that of
    /// `quickstart --robot`, from a text model: the one of `--from` [default: the bundled one, with `--world arm` one that
    /// is trained first]. A vision encoder first learns to detect objects in rendered frames, then it and the
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
    #[arg(long, value_name = "N", requires = "vision", value_parser = super::value::at_least_one, default_value_t = 32)]
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

impl VisionPretrainArgs {
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

/// Write SFT conversations for the cold start: worked examples, and examples of the judge's task.
///
/// Questions are sampled from captioned data, as many of each category as possible; their reasoning is derived from the
/// captions alone and kept only if it ends in the correct answer. The judge's examples are about other rooms and consist
/// of plain sentences.
#[derive(Debug, clap::Args)]
pub(crate) struct ConversationsArgs {
    /// Captioned questions, as written by `perceive`, or questions about frames, as written by `sim views`, or with
    /// `--demos` by `robot questions --prompt compact`.
    #[arg(long, value_name = "FILE")]
    pub(crate) data: PathBuf,
    /// Demonstrations that the questions are about, as written by `sim arm`. Reasoning follows from what the simulated
    /// scene shows; questions are sampled uniformly over kinds, and of each kind over subtasks.
    #[arg(long, value_name = "DIR")]
    pub(crate) demos: Option<PathBuf>,
    /// JSONL file of `messages` to write, the input of `sft`. For questions about frames write it beside them, as its
    /// `images` are relative to it.
    #[arg(long, alias = "out", value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Maximum number of questions, sampled from the whole file.
    #[arg(long, value_name = "N", default_value_t = 40)]
    pub(crate) questions: usize,
    /// Write the correct answers without reasoning, after an empty `<think>` tag.
    #[arg(long)]
    pub(crate) answers_only: bool,
    /// Number of examples of the judge's task.
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) judge_examples: usize,
    /// Random seed for selecting questions and for the judge's examples.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub(crate) seed: u64,
    /// System prompt [default: the one used in training].
    #[arg(long, value_name = "TEXT")]
    pub(crate) system_prompt: Option<String>,
}

/// Write demonstrations of a simulated robot arm as a LeRobot data set.
///
/// Also writes `annotations.jsonl`, the plan and subtasks of each episode, which `robot questions` reads, and `bench.json`,
/// questions with true answers for `robot bench`, about demonstrations of all ten tasks that are not in the data set. The
/// output directory appears when all is complete.
#[derive(Debug, clap::Args)]
pub(crate) struct ArmArgs {
    /// Output directory.
    #[arg(long, alias = "out", value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// Comma-separated tasks [default: the five after Robot-R1's: pick_up_cup, push_button, put_rubbish_in_bin,
    /// phone_on_base, take_lid_off_saucepan]. Five others have the same motions with other objects:
    /// slide_block_to_target, stack_blocks, put_knife_on_chopping_board, close_jar, lamp_on.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) tasks: Vec<Task>,
    /// Number of episodes per task.
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub(crate) episodes: u64,
    /// Random seed for scenes, movements and questions.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Version of the data set's format.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = ArmFormat::V30)]
    pub(crate) format: ArmFormat,
    /// Codec of the videos. Decoding AV1 needs an FFmpeg with an AV1 decoder.
    #[arg(long, value_name = "CODEC", value_enum, default_value_t = ArmCodec::H264)]
    pub(crate) codec: ArmCodec,
    /// Width and height of the frames in pixels, even numbers from 32 to 1024.
    #[arg(long, value_name = "WxH", value_parser = super::value::size, default_value = "224x224")]
    pub(crate) image_size: (usize, usize),
    /// Number of images per task in `bench.json`, with four questions each; 0 writes none.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) bench_frames: u64,
}

/// A version of LeRobot's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ArmFormat {
    /// v3.0: several episodes per file.
    #[value(name = "lerobot-v3.0")]
    V30,
    /// v2.1: a parquet file and a video per episode.
    #[value(name = "lerobot-v2.1")]
    V21,
}

impl ArmFormat {
    pub(crate) fn version(self) -> Version {
        match self {
            Self::V30 => Version::V30,
            Self::V21 => Version::V21,
        }
    }
}

/// A video codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ArmCodec {
    /// H.264
    H264,
    /// AV1, the default of LeRobot
    Av1,
}

impl ArmCodec {
    pub(crate) fn codec(self) -> VideoCodec {
        match self {
            Self::H264 => VideoCodec::H264,
            Self::Av1 => VideoCodec::Av1,
        }
    }
}
