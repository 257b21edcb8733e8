//! The decoded pixels of an image or a video.

use image::RgbImage;

/// The pixels of an image or a video.
#[derive(Debug, Clone)]
pub enum Frames {
    /// An image.
    Image(RgbImage),
    /// A video.
    Video(SampledVideo),
}

/// The selected frames of a video.
#[derive(Debug, Clone, PartialEq)]
pub struct SampledVideo {
    /// The frames, in order and all of one size. Where the model's processor would shrink them, they may be resized
    /// already, to the same bits.
    pub frames: Vec<RgbImage>,
    /// When they are shown.
    pub times: FrameTimes,
}

/// When the frames of a video are shown.
#[derive(Debug, Clone, PartialEq)]
pub struct FrameTimes {
    /// The mean seconds from one frame to the next, as `transformers` and `qwen-vl-utils` count them: the video's
    /// duration divided by the number of selected frames. `second_per_grid_ts` is this times the temporal patch size.
    pub interval: f64,
    /// The seconds from the start of the video to each frame: its index divided by the average frame rate.
    pub starts: Vec<f64>,
}

impl FrameTimes {
    /// The times of `frames` frames at `fps` frames per second.
    #[must_use]
    pub fn at_rate(frames: usize, fps: f64) -> Self {
        let starts = (0..frames).map(|index| index as f64 / fps).collect();
        Self { interval: 1.0 / fps, starts }
    }
}
