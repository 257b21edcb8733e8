//! The frames of a video for a vision-language model, which sees them itself.
//!
//! A [`FrameSelection`] says which frames; a [`FramePlan`] knows them before any is decoded, so that tokens and memory
//! are known in time; a [`SampledVideo`] has their pixels and times. It is given to
//! [`VisionEncoder::encode_video`](embodied_r_vision::VisionEncoder::encode_video) as one video, whose temporal patches are
//! two frames, or its frames are encoded as separate images.
//!
//! ```no_run
//! use embodied_r_media::sampled_video::{FramePlan, FrameSelection, FrameUse};
//! use embodied_r_video::Limits;
//! # fn encode(encoder: &embodied_r_vision::VisionEncoder) -> Result<(), Box<dyn std::error::Error>> {
//!
//! let selection: FrameSelection = "uniform=16".parse()?;
//! let (processor, limits) = (encoder.processor(), Limits::default());
//! let plan = FramePlan::of_file("walk.mp4".as_ref(), &selection, processor, &limits)?;
//! let video = plan.decode(FrameUse::Video, processor, &limits)?;
//! let embeddings = encoder.encode_video(&video)?;
//! # Ok(())
//! # }
//! ```

mod frame_list;
mod indices;
mod plan;
mod selection;

use embodied_r_vision::Processor;
pub use embodied_r_vision::SampledVideo;
pub use frame_list::from_frames;
pub use plan::{FramePlan, MAX_VIDEO_PIXELS};
pub use selection::{FrameSelection, MAX_FRAMES};
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// What a model sees in the frames of a video.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FrameUse {
    /// A video, in temporal patches of two frames.
    #[default]
    Video,
    /// Separate images.
    Images,
}

impl FrameUse {
    /// The size at which each of `frames` frames of `size` is kept.
    fn kept_size(
        self,
        processor: &Processor,
        frames: usize,
        size: (u32, u32),
    ) -> Result<(u32, u32)> {
        Ok(match self {
            Self::Video => processor.kept_frame_size(frames, size)?,
            Self::Images => processor.kept_image_size(size)?,
        })
    }
}
