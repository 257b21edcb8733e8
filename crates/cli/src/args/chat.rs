//! Options of `embodied-r chat`.

use super::captioner::CaptionerArgs;
use super::direct::{MediaLimits, ViewArgs};
use super::model::{DecodingArgs, StoredModel};
use super::perceive::KeyFrameArgs;

/// Chat with a model in the terminal.
///
/// End a line with `\` to continue the message on the next one. `/help` lists the commands. Ctrl-C stops generation,
/// Ctrl-D quits. After `/video FILE`, questions are about that video; it is captioned by `--captioner`, or by the model
/// itself if it is a vision-language model. With `--direct` the model sees the frames of the video instead. `/image FILE`
/// attaches an image for a vision-language model.
#[derive(Debug, clap::Args)]
pub(crate) struct ChatArgs {
    #[command(flatten)]
    pub(crate) stored: StoredModel,
    #[command(flatten)]
    pub(crate) decoding: DecodingArgs,
    /// Show the frames of `/video` to the model, a vision-language model, without captions. The prompt is that of training.
    #[arg(long, help_heading = "Images and videos", conflicts_with_all = [
        "captioner", "captioner_base_url", "scenes",
    ])]
    pub(crate) direct: bool,
    #[command(flatten)]
    pub(crate) view: ViewArgs,
    #[command(flatten)]
    pub(crate) captioner: CaptionerArgs,
    #[command(flatten)]
    pub(crate) key_frames: KeyFrameArgs,
}

impl ChatArgs {
    /// Limits of the frames that the model sees.
    pub(crate) fn media_limits(&self) -> MediaLimits {
        MediaLimits {
            video_dir: None,
            max_frames: self.key_frames.max_frames,
            max_pixels: self.captioner.max_pixels,
        }
    }
}
