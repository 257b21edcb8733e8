//! Options of the commands that caption the videos of a question file on the fly.

use std::path::PathBuf;

use super::captioner::CaptionerArgs;
use super::direct::{DirectArgs, MediaLimits};
use super::perceive::KeyFrameArgs;
use crate::direct::Direct;
use crate::exit::Usage;

/// The captioner of questions without captions: those of `preprocess`, those that begin with `<video>`, and benchmarks
/// published as videos.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct VideoArgs {
    /// Directory of the videos [default: as the questions say, else `videos` beside the data file].
    #[arg(long, alias = "folder-path", value_name = "DIR", help_heading = "Captioner")]
    pub(crate) video_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) captioner: CaptionerArgs,
    #[command(flatten)]
    pub(crate) key_frames: KeyFrameArgs,
}

impl VideoArgs {
    /// How the model sees the images and videos itself; `None` without `--direct`.
    ///
    /// # Errors
    /// There is a captioner too, or the frames of videos are invalid.
    pub(crate) fn direct(&self, direct: &DirectArgs) -> Result<Option<Direct>, Usage> {
        if direct.direct && self.captioner.is_given() {
            let what = "with `--direct` the model sees the frames itself; leave out the captioner, or `--direct`";
            return Err(Usage(what.into()));
        }
        let limits = MediaLimits {
            video_dir: self.video_dir.clone(),
            max_frames: self.key_frames.max_frames,
            max_pixels: self.captioner.max_pixels,
        };
        Direct::new(direct, limits)
    }
}
