//! Options of the commands in which a vision-language model may answer from images and video frames itself.

use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{ArgMatches, Command};
use embodied_r_grpo::settings::FrameUse;
use embodied_r_vision::{PixelOptions, VideoPixels};

use super::reasoner::refuse_local;
use super::value::at_least_one;
use crate::questions::Reader;

/// How a vision-language model sees the images and videos of the questions.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Images and videos")]
pub(crate) struct DirectArgs {
    /// Let `--model`, a vision-language model, answer from the images and video frames of the questions, without
    /// captions, with the prompts of training. With `--base-url`, images and frames are sent as JPEG
    /// files, each frame of a video as an image of its own.
    #[arg(long)]
    pub(crate) direct: bool,
    /// Columns of the data under other names, such as `answer=label,images=image_paths`.
    #[arg(long, value_name = "NAME=COLUMN,…", requires = "direct")]
    pub(crate) columns: Option<String>,
    /// Directory of the images and videos that the data names [default: the data file's].
    #[arg(long, value_name = "DIR", requires = "direct")]
    pub(crate) image_dir: Option<PathBuf>,
    /// Leave out records that cannot be read, and those with a missing or broken image or video, and count them.
    #[arg(long, requires = "direct")]
    pub(crate) skip_bad_records: bool,
    #[command(flatten)]
    pub(crate) view: ViewArgs,
}

impl DirectArgs {
    /// Who reads the questions.
    pub(crate) fn reader(&self) -> Reader {
        if self.direct { Reader::Vision } else { Reader::Text }
    }
}

/// Which frames of a video a model sees, and how.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Images and videos")]
pub(crate) struct ViewArgs {
    /// Frames of a video: `key` (the key frames of `keyframes`), `uniform=N` (N evenly spaced ones) or `linspace=N` (the same
    /// with numpy's rounding, as benchmarks have them) [default: the benchmark's, else uniform=16].
    #[arg(long, value_name = "FRAMES", requires = "direct", conflicts_with = "fps")]
    pub(crate) frames: Option<String>,
    /// Sample videos at this many frames per second instead, at most `--max-frames` of them [default: 768].
    #[arg(long, value_name = "FPS", requires = "direct", allow_negative_numbers = true)]
    pub(crate) fps: Option<f64>,
    /// What the model sees in the frames of a video: a video, or separate images [default: video].
    #[arg(long, value_enum, value_name = "USE", requires = "direct")]
    pub(crate) frame_use: Option<FrameUseName>,
    /// Enlarge smaller images, and frames of videos, to this many pixels [default: the model's image processor decides].
    #[arg(long, value_name = "PIXELS", requires = "direct", value_parser = at_least_one)]
    pub(crate) min_pixels: Option<usize>,
    /// What the limits of the model's video processor apply to: the whole `clip`, or each `frame`, of at most 768 tokens;
    /// Qwen2.5-VL limits frames in either case [default: clip].
    #[arg(long, value_enum, value_name = "WHAT", requires = "direct")]
    pub(crate) video_pixels: Option<VideoPixelsName>,
}

impl ViewArgs {
    /// Limits on the pixels of images and videos, with the largest from another option.
    pub(crate) fn pixels(&self, max_pixels: Option<usize>) -> PixelOptions {
        let video_pixels = Some(self.video_pixels.unwrap_or_default().into());
        PixelOptions { min_pixels: self.min_pixels, max_pixels, video_pixels }
    }
}

/// What the limits of a video processor apply to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum VideoPixelsName {
    /// All frames of a clip together.
    #[default]
    Clip,
    /// Each frame.
    Frame,
}

impl From<VideoPixelsName> for VideoPixels {
    fn from(name: VideoPixelsName) -> Self {
        match name {
            VideoPixelsName::Clip => Self::Clip,
            VideoPixelsName::Frame => Self::Frame,
        }
    }
}

/// What a model sees in the frames of a video.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum FrameUseName {
    /// A video, in temporal patches of two frames.
    Video,
    /// Separate images.
    Images,
}

impl From<FrameUseName> for FrameUse {
    fn from(name: FrameUseName) -> Self {
        match name {
            FrameUseName::Video => Self::Video,
            FrameUseName::Images => Self::Images,
        }
    }
}

/// Refuses what a model on a server cannot see; `command` has options of images and of servers.
///
/// # Errors
/// Such an option was given with `--base-url`.
pub(super) fn check_server(matches: &ArgMatches, command: &mut Command) -> Result<(), clap::Error> {
    if !matches.contains_id("base_url") {
        return Ok(());
    }
    if matches.get_one("frame_use") == Some(&FrameUseName::Video) {
        let message = "`--frame-use video` belongs to a local model: a server gets the frames of a video as separate images";
        return Err(command.error(ErrorKind::ArgumentConflict, message));
    }
    refuse_local(matches, command, &["min_pixels", "video_pixels"])
}

/// Options of videos and images that a command also has for other uses.
#[derive(Debug, Clone, Default)]
pub(crate) struct MediaLimits {
    /// Directory of the videos.
    pub(crate) video_dir: Option<PathBuf>,
    /// Maximum number of frames per video at a frame rate.
    pub(crate) max_frames: Option<usize>,
    /// Larger images are downscaled to this many pixels.
    pub(crate) max_pixels: Option<usize>,
}
