//! Options of `embodied-r robot questions`.

use std::path::PathBuf;

use clap::ValueEnum;
use embodied_r_robot::Shares;

use crate::args::value::at_least_one;

/// Make questions about the next key point from demonstrations, as in Robot-R1.
///
/// Reads a LeRobot data set, v2.1 or v3.0, that records the gripper's Cartesian position. Every `--stride` frames there is
/// a question of each kind: the position of the next key point (`waypoint`), the current position (`state`) and the
/// movement to the next key point in words (`movement`), each with four options. The options' text alone does not give the
/// answer away: four questions of a task share their four options, each of which is the answer to one.
///
/// Writes `train.json`, `val.json` and `test.json` (`--split`), which `sft`, `train`, `infer` and
/// `eval` read; the same as `.parquet` in EasyR1's format; `sft_direct.json` and `sft_reasoned.json`, worked examples of the
/// training questions; `images/`; and `episodes.jsonl` and `settings.json`, which say how they were made. The output
/// directory appears once it is complete.
#[derive(Debug, clap::Args)]
pub(crate) struct QuestionsArgs {
    /// LeRobot data set: a directory, or a Hub ID such as `org/name`.
    #[arg(long, value_name = "DIR|NAME")]
    pub(crate) demos: String,
    /// Revision of the data set on the Hub: a branch, tag or commit.
    #[arg(long, value_name = "REV")]
    pub(crate) revision: Option<String>,
    /// Plans and subtasks of the demonstrations, for `sft_reasoned.json`: JSON lines of `episode_index`, `plan` (a list) and
    /// `subtasks` (a list of `frame_index` and `text`) [default: `annotations.jsonl` in a local data set, if there is one].
    #[arg(long, value_name = "FILE")]
    pub(crate) annotations: Option<PathBuf>,
    /// Output directory, which must not exist or be empty.
    #[arg(long, alias = "out", value_name = "DIR")]
    pub(crate) output: PathBuf,
    #[command(flatten)]
    pub(crate) columns: ColumnArgs,
    #[command(flatten)]
    pub(crate) key_points: KeyPointArgs,
    #[command(flatten)]
    pub(crate) made: MadeArgs,
}

/// Which columns of the data set are read.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Columns")]
pub(crate) struct ColumnArgs {
    /// Camera of the images, with or without `observation.images.` [default: the one whose name has `front`, else the only
    /// one].
    #[arg(long, value_name = "NAME")]
    pub(crate) camera: Option<String>,
    /// Feature with the gripper's position [default: `observation.state`, or the only observation with the names x, y and z].
    #[arg(long, value_name = "KEY")]
    pub(crate) state_key: Option<String>,
    /// Indices of x, y and z in the state, in metres with `--position-scale` [default: by the feature's names].
    #[arg(long, value_name = "X,Y,Z", value_parser = dims)]
    pub(crate) position_dims: Option<Dims>,
    /// What coordinates are multiplied by to be metres, such as 0.001 for millimetres [default: 1].
    #[arg(long, value_name = "FACTOR", allow_negative_numbers = true)]
    pub(crate) position_scale: Option<f64>,
    /// Feature with the gripper's opening, numbers or booleans: an observation or `action` [default: the one whose names or
    /// key have `gripper`, first the feature of `--state-key`, then observations].
    #[arg(long, value_name = "KEY")]
    pub(crate) gripper_key: Option<String>,
    /// Index of the gripper's opening in the feature of `--gripper-key`, or of `--state-key` if no gripper feature is given.
    /// `none`: the gripper never changes [default: by the feature's names].
    #[arg(long, value_name = "INDEX", value_parser = gripper)]
    pub(crate) gripper_dim: Option<GripperDim>,
    /// Feature with the joints' velocities in rad/s [default: the one whose key has `joint` and `vel`, if there is one].
    #[arg(long, value_name = "KEY", conflicts_with = "still_epsilon")]
    pub(crate) velocity_key: Option<String>,
}

/// Indices of a position's coordinates.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dims(pub(crate) [usize; 3]);

fn dims(text: &str) -> Result<Dims, String> {
    let parsed: Result<Vec<usize>, _> = text.split(',').map(|part| part.trim().parse()).collect();
    let dims = parsed.ok().and_then(|dims| <[usize; 3]>::try_from(dims).ok());
    dims.map(Dims).ok_or_else(|| "must be three indices, such as `0,1,2`".to_owned())
}

/// Where the gripper's opening is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum GripperDim {
    /// At this index of its feature.
    At(usize),
    /// Nowhere.
    Absent,
}

fn gripper(text: &str) -> Result<GripperDim, String> {
    match (text, text.parse()) {
        ("none", _) => Ok(GripperDim::Absent),
        (_, Ok(index)) => Ok(GripperDim::At(index)),
        _ => Err("must be an index or `none`".to_owned()),
    }
}

/// Where key points are.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Key points")]
pub(crate) struct KeyPointArgs {
    /// Joint velocity up to which the arm stands still, in rad/s [default: 0.1, as in ARM].
    #[arg(
        long,
        value_name = "RAD/S",
        conflicts_with = "still_epsilon",
        allow_negative_numbers = true
    )]
    pub(crate) still_velocity: Option<f64>,
    /// Find stops by displacement instead of joint velocities: the arm stands still if the gripper moves at most this far
    /// from one frame to the next, in metres. Used anyway without joint velocities [default: 0.05 m/s at the frame rate, so
    /// 0.005 at 10 fps: ARM's 0.1 rad/s at half a metre from the joint].
    #[arg(long, value_name = "M", allow_negative_numbers = true)]
    pub(crate) still_epsilon: Option<f64>,
    /// The gripper is open above this value [default: the middle between the smallest and largest value of the data set].
    #[arg(long, value_name = "VALUE", allow_negative_numbers = true)]
    pub(crate) gripper_threshold: Option<f64>,
    /// Also write `keypoints/`: for the first N episodes of each task a contact sheet of the key points, and a plot of
    /// position and gripper over time with the key points marked.
    #[arg(
        long,
        value_name = "N",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "1",
        value_parser = at_least_one
    )]
    pub(crate) show_keypoints: Option<usize>,
}

/// How questions are made.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Questions")]
pub(crate) struct MadeArgs {
    /// Number of frames from one start frame to the next.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = at_least_one)]
    pub(crate) stride: usize,
    /// Distractors of waypoint questions. With `box`, the text alone gives many answers away.
    #[arg(long, value_enum, default_value_t = DistractorsName::Keypoints, conflicts_with = "open_ended")]
    pub(crate) distractors: DistractorsName,
    /// Minimum distance of two options of `waypoint` and `state` questions, in metres.
    #[arg(
        long,
        value_name = "M",
        default_value_t = 0.05,
        conflicts_with = "open_ended",
        allow_negative_numbers = true
    )]
    pub(crate) min_distance: f64,
    /// Which axes movements name [default: paper, or epsilon with `--movement-epsilon`].
    #[arg(long, value_enum)]
    pub(crate) movement_labels: Option<MovementLabels>,
    /// Axes that move less than this, in metres, are left out of movements [default: 0.005 with `--movement-labels epsilon`].
    #[arg(long, value_name = "M", allow_negative_numbers = true)]
    pub(crate) movement_epsilon: Option<f64>,
    /// Leave as many questions of each kind in each split as of its rarest kind.
    #[arg(long)]
    pub(crate) balance_kinds: bool,
    /// Ask for positions without options, for the reward `waypoint_distance`. There are no `movement` questions then.
    #[arg(long)]
    pub(crate) open_ended: bool,
    /// Shares of the episodes of each task for training, validation and testing, in per cent.
    #[arg(long, value_name = "TRAIN,VAL,TEST", value_parser = shares, default_value = "85,5,10")]
    pub(crate) split: Shares,
    /// Tasks of which all episodes are held out of training: their questions are in `held_out.json`. Give them as the data
    /// set words them.
    #[arg(long, value_name = "TASK", num_args = 1..)]
    pub(crate) held_out_tasks: Vec<String>,
    /// Prompts as long as the paper's, or with the same sections in at most 160 tokens of text for small models.
    #[arg(long, value_enum, default_value_t = PromptName::Paper)]
    pub(crate) prompt: PromptName,
    /// Decimals of coordinates in prompts and answers.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(crate) decimals: usize,
    /// What prompts say about the robot and its workspace, a TOML file such as `configs/robots/franka-rlbench.toml`
    /// [default: that of the paper, which is the same].
    #[arg(long, value_name = "FILE")]
    pub(crate) robot: Option<PathBuf>,
    /// Random seed for splits and options.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub(crate) seed: u64,
}

fn shares(text: &str) -> Result<Shares, String> {
    let parsed: Result<Vec<u8>, _> = text.split(',').map(|part| part.trim().parse()).collect();
    let percent = parsed.ok().and_then(|shares| <[u8; 3]>::try_from(shares).ok());
    percent.and_then(Shares::new).ok_or_else(|| {
        "must be three whole numbers of 1 or more that sum to 100, such as `85,5,10`".to_owned()
    })
}

/// Where distractors of waypoint questions come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DistractorsName {
    /// Other key points of the same task.
    Keypoints,
    /// Random positions in the workspace of `--robot`.
    Box,
}

/// Which axes movements name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum MovementLabels {
    /// Each that changes at all, as in the paper.
    Paper,
    /// Those that move at least `--movement-epsilon`.
    Epsilon,
}

/// How long prompts are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PromptName {
    /// The sections of the paper.
    Paper,
    /// For small models.
    Compact,
}
