//! Writing a data set.

use std::collections::BTreeMap;
use std::path::Path;

use image::RgbImage;

use crate::episode::Column;
use crate::error::Result;
use crate::info::Version;

/// The codec of the videos.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VideoCodec {
    /// H.264, by libx264.
    H264,
    /// AV1, by libsvtav1.
    Av1,
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
    /// The features of each frame.
    pub features: Vec<VectorFeature>,
    /// The camera.
    pub camera: Camera,
    /// The codec of its videos.
    pub codec: VideoCodec,
}

/// Writes a data set, one episode after the other. Without [`finish`](Self::finish) it has no `meta/info.json`, and no
/// reader takes it for complete. The same input gives the same bytes.
#[derive(Debug)]
pub struct Writer {}

impl Writer {
    /// Starts a data set in the folder `dir`, which is created, and must be empty if it exists.
    ///
    /// # Errors
    /// The options are wrong, the folder is not empty or cannot be created, or FFmpeg or its encoder is missing.
    pub fn create(_dir: &Path, _options: WriterOptions) -> Result<Self> {
        Ok(Self {})
    }

    /// Writes an episode: its instruction, its columns, one per feature, and its frames, as many as the columns have rows.
    ///
    /// # Errors
    /// Columns or frames are missing, superfluous, or of another size, a value is not finite, or a file cannot be
    /// written.
    pub fn episode(
        &mut self,
        _task: &str,
        _columns: &BTreeMap<String, Column>,
        _frames: impl Iterator<Item = RgbImage>,
    ) -> Result<()> {
        Ok(())
    }

    /// Writes the metadata.
    ///
    /// # Errors
    /// There are no episodes, or a file cannot be written.
    pub fn finish(self) -> Result<()> {
        Ok(())
    }
}
