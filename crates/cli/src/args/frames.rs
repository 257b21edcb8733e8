//! Options that select the frames of a video for a model that sees them itself.

use embodied_r_media::sampled_video::FrameSelection;

use crate::exit::Usage;

/// Which frames of a video a vision-language model sees.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct FrameArgs {
    /// Frames of a video: `key` (the key frames of `keyframes`), `uniform=N` (N evenly spaced ones) or `linspace=N` (numpy's rounding).
    #[arg(long, value_name = "FRAMES", help_heading = "Videos", conflicts_with_all = ["fps", "max_frames"])]
    pub(crate) frames: Option<String>,
    /// Sample videos at this many frames per second instead, as the model's video processor does: at least 4 frames, for
    /// Qwen2.5-VL an even number.
    #[arg(long, value_name = "FPS", help_heading = "Videos", allow_negative_numbers = true)]
    pub(crate) fps: Option<f64>,
    /// Maximum number of frames with `--fps` [default: 768].
    #[arg(long, value_name = "N", help_heading = "Videos")]
    pub(crate) max_frames: Option<usize>,
}

impl FrameArgs {
    /// The selection; `default` if no option is given.
    ///
    /// # Errors
    /// A value is invalid.
    pub(crate) fn selection(&self, default: FrameSelection) -> Result<FrameSelection, Usage> {
        let typed = FrameSelection::from_options(self.frames.as_deref(), self.fps, self.max_frames);
        let typed = typed.map_err(|error| Usage(format!("the frames of videos: {error}")))?;
        Ok(typed.unwrap_or(default))
    }

    /// Whether an option is given.
    pub(crate) fn is_given(&self) -> bool {
        self.frames.is_some() || self.fps.is_some() || self.max_frames.is_some()
    }
}
