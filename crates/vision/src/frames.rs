//! The decoded pixels of an image or a video.

use image::RgbImage;

/// The pixels of an image or a video.
#[derive(Debug, Clone)]
pub enum Frames {
    /// An image.
    Image(RgbImage),
    /// A video: one or more frames of one size, `seconds` apart.
    Video {
        /// The frames.
        frames: Vec<RgbImage>,
        /// The time from one frame to the next.
        seconds: f64,
    },
}
