//! A key frame as a model gets it: pixels in this process, a JPEG file on a server.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use image::RgbImage;

use crate::error::{Error, Result};
use crate::jpeg;

/// How a model gets images. Completions depend on it, so it is part of the images' identifiers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageForm {
    /// The pixels themselves.
    Pixels,
    /// A JPEG file.
    Jpeg,
}

impl ImageForm {
    /// What an image's identifier ends with.
    pub(super) fn suffix(self) -> String {
        match self {
            Self::Pixels => String::new(),
            Self::Jpeg => format!(" jpeg {}", jpeg::QUALITY),
        }
    }
}

/// The image of a key frame. Its JPEG file is encoded when it is first needed.
#[derive(Debug)]
pub struct FrameImage {
    pixels: RgbImage,
    jpeg: OnceLock<Vec<u8>>,
    /// For errors.
    video: PathBuf,
}

impl FrameImage {
    /// A frame of `video`.
    pub fn new(pixels: RgbImage, video: &Path) -> Self {
        Self { pixels, jpeg: OnceLock::new(), video: video.to_owned() }
    }

    /// The pixels.
    pub fn pixels(&self) -> &RgbImage {
        &self.pixels
    }

    /// The JPEG file.
    ///
    /// # Errors
    /// A side is larger than the format allows.
    pub fn jpeg(&self) -> Result<&[u8]> {
        if let Some(file) = self.jpeg.get() {
            return Ok(file);
        }
        let failed = |source| Error::Image { action: "encode", path: self.video.clone(), source };
        let file = jpeg::encode(&self.pixels).map_err(failed)?;
        Ok(self.jpeg.get_or_init(|| file))
    }
}
