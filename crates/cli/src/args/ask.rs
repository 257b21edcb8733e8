//! Options of `embodied-r ask`.

use std::path::PathBuf;

use super::captioner::CaptionerArgs;
use super::direct::{MediaLimits, ViewArgs};
use super::model::{DecodingArgs, WeightArgs};
use super::perceive::KeyFrameArgs;

/// Answer a question about a video.
///
/// Extracts the video's key frames, captions them, and lets a language model reason over the captions: `perceive` and
/// `infer` for a single question. The completion is streamed to standard output.
#[derive(Debug, clap::Args)]
pub(crate) struct AskArgs {
    /// Video file.
    #[arg(value_name = "VIDEO")]
    pub(crate) video: PathBuf,
    /// Question about the video.
    #[arg(value_name = "QUESTION")]
    pub(crate) question: String,
    /// Answer option, such as `A=Left` or `Left`; repeat it for each option. Without options the question is
    /// open-ended.
    #[arg(long = "option", value_name = "LETTER=TEXT")]
    pub(crate) options: Vec<String>,
    /// Language model that reasons: a directory in Hugging Face layout, a GGUF file, or a Hub ID [default: the decoder
    /// of a local `--captioner`].
    #[arg(long, alias = "model", value_name = "MODEL")]
    pub(crate) policy: Option<String>,
    #[command(flatten)]
    pub(crate) weights: WeightArgs,
    /// Print one JSON object: key frames with captions, prompt, completion and answer.
    #[arg(long)]
    pub(crate) json: bool,
    /// Save frames, captions and the completion to this directory, with an HTML page that shows them.
    #[arg(long, value_name = "DIR", conflicts_with = "direct")]
    pub(crate) save_trace: Option<PathBuf>,
    /// Let `--policy`, a vision-language model, answer from the frames of the video, without captions. The prompt is that
    /// of training.
    #[arg(long, help_heading = "Images and videos", requires = "policy", conflicts_with_all = [
        "captioner", "captioner_base_url", "scenes",
    ])]
    pub(crate) direct: bool,
    #[command(flatten)]
    pub(crate) view: ViewArgs,
    #[command(flatten)]
    pub(crate) captioner: CaptionerArgs,
    #[command(flatten)]
    pub(crate) decoding: DecodingArgs,
    #[command(flatten)]
    pub(crate) key_frames: KeyFrameArgs,
}

impl AskArgs {
    /// Limits of the frames that the model sees.
    pub(crate) fn media_limits(&self) -> MediaLimits {
        MediaLimits {
            video_dir: None,
            max_frames: self.key_frames.max_frames,
            max_pixels: self.captioner.max_pixels,
        }
    }
}
