//! Options of `embodied-r sim`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use embodied_r_lerobot::{Version, VideoCodec};
use embodied_r_sim::Category;
use embodied_r_sim::arm::Task;
use embodied_r_sim::views::ViewAnswer;

/// Generate simulated rooms, videos, questions and conversations.
#[derive(Debug, clap::Args)]
pub(crate) struct SimArgs {
    #[command(subcommand)]
    pub(crate) command: SimCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SimCommand {
    Rooms(RoomsArgs),
    Views(ViewsArgs),
    Conversations(ConversationsArgs),
    Arm(ArmArgs),
    #[command(hide = true, disable_help_flag = true)]
    Corpus(MovedArgs),
    #[command(hide = true, disable_help_flag = true)]
    Pretrain(MovedArgs),
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
    /// Comma-separated answer types of questions about where an object is in one frame, `point` and `box`, in place of multiple
    /// choice. Their field `rationale` has the reasoning of a worked example.
    #[arg(long, value_name = "TYPE", value_delimiter = ',', conflicts_with = "categories")]
    pub(crate) answers: Vec<ViewAnswer>,
}

/// A command of another binary, `embodied-r-pretrain`.
#[derive(Debug, clap::Args)]
pub(crate) struct MovedArgs {
    /// Its options, which are not read.
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) words: Vec<OsString>,
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
