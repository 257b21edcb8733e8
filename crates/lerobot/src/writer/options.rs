//! What a new data set contains.

use crate::error::{Error, Result};
use crate::info::check_key;
use crate::version::Version;

/// The columns that every data set has.
pub(super) const INDEX_COLUMNS: [&str; 5] =
    ["timestamp", "frame_index", "episode_index", "index", "task_index"];

/// The codec of the videos.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VideoCodec {
    /// H.264, by libx264.
    H264,
    /// AV1, by libsvtav1, or else libaom-av1, which also encodes frames below 64 pixels.
    Av1,
}

impl VideoCodec {
    /// As `video.codec` has it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::H264 => "h264",
            Self::Av1 => "av1",
        }
    }
}

/// A feature of named numbers to write, of dtype `float32`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VectorFeature {
    /// Its key, such as `observation.state`.
    pub key: String,
    /// The names of its values; as many as it has values.
    pub names: Vec<String>,
}

/// A camera to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Camera {
    /// Its key, such as `observation.images.front`.
    pub key: String,
    /// Width of its frames in pixels, an even number.
    pub width: u32,
    /// Height of its frames in pixels, an even number.
    pub height: u32,
}

/// What a new data set contains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriterOptions {
    /// The version of the format.
    pub version: Version,
    /// Frames per second.
    pub fps: u32,
    /// The robot's name.
    pub robot_type: String,
    /// The features of each frame; at least one.
    pub features: Vec<VectorFeature>,
    /// The camera.
    pub camera: Camera,
    /// The codec of its videos.
    pub codec: VideoCodec,
}

impl WriterOptions {
    /// Checks the options.
    ///
    /// # Errors
    /// An option is wrong.
    pub(super) fn check(&self) -> Result<()> {
        const MAX_FPS: u32 = 1000;
        const MAX_SIDE: u32 = 8192;
        let wrong = |option: &str, reason: String| {
            Err(Error::WriterOption { option: option.to_owned(), reason })
        };
        if !(1..=MAX_FPS).contains(&self.fps) {
            return wrong("fps", format!("is {}; it must be from 1 to {MAX_FPS}", self.fps));
        }
        if self.features.is_empty() {
            return wrong("features", "is empty".to_owned());
        }
        let keys = self.features.iter().map(|feature| &feature.key).chain([&self.camera.key]);
        let keys: Vec<&String> = keys.collect();
        for (at, key) in keys.iter().enumerate() {
            if let Err(reason) = check_key(key) {
                return wrong("features", reason);
            }
            if keys[..at].contains(key) || INDEX_COLUMNS.contains(&key.as_str()) {
                return wrong(key, "is the name of another feature, too".to_owned());
            }
        }
        if let Some(feature) = self.features.iter().find(|feature| feature.names.is_empty()) {
            return wrong(
                &feature.key,
                "has no names, which say how many values it has".to_owned(),
            );
        }
        // Chroma has half the resolution in yuv420p.
        let (width, height) = (self.camera.width, self.camera.height);
        let is_valid = |side: u32| side.is_multiple_of(2) && (16..=MAX_SIDE).contains(&side);
        if !is_valid(width) || !is_valid(height) {
            let reason = format!(
                "has frames of {width} × {height} pixels; both must be even, and from 16 to {MAX_SIDE}"
            );
            return wrong(&self.camera.key, reason);
        }
        Ok(())
    }
}
