//! Options of the commands that caption the videos of a question file on the fly.

use std::path::PathBuf;

use super::captioner::CaptionerArgs;
use super::perceive::KeyFrameArgs;

/// The captioner of questions without captions: those of `preprocess`, those that begin with `<video>`, and benchmarks
/// published as videos.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct VideoArgs {
    /// Directory of the videos [default: as the questions say, else `videos` beside the data file].
    #[arg(
        long,
        aliases = ["folder-path", "folder_path"],
        value_name = "DIR",
        help_heading = "Captioner"
    )]
    pub(crate) video_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) captioner: CaptionerArgs,
    #[command(flatten)]
    pub(crate) key_frames: KeyFrameArgs,
}
