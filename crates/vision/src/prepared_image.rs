//! Images and videos that are ready for the vision tower.

use candle_core::Tensor;
use image::RgbImage;

use crate::config::VisionConfig;
use crate::error::Result;
use crate::image_embeddings::{ImageEmbeddings, Kind, digest, versioned};
use crate::processor::{Pixels, Processor};

/// An image or a video, preprocessed: its pixels by patch, and the digest that identifies it.
#[derive(Debug, Clone)]
pub struct PreparedImage {
    pixels: Pixels,
    kind: Kind,
    digest: u128,
}

impl PreparedImage {
    /// Preprocesses an image.
    ///
    /// # Errors
    /// [`Error::AspectRatio`](crate::Error::AspectRatio).
    pub fn image(processor: &Processor, image: &RgbImage) -> Result<Self> {
        let (pixels, kind) = (processor.image(image)?, Kind::Image);
        Ok(Self { pixels, kind, digest: digest(std::slice::from_ref(image), kind) })
    }

    /// Preprocesses a video of one or more frames, `seconds` apart, for a tower of `config`.
    ///
    /// # Errors
    /// [`Error::AspectRatio`](crate::Error::AspectRatio).
    pub fn video(
        processor: &Processor,
        frames: &[RgbImage],
        seconds: f64,
        config: &VisionConfig,
    ) -> Result<Self> {
        let pixels = processor.video(frames)?;
        let per_patch = seconds * processor.patch().frames as f64;
        let kind = Kind::Video { interval: per_patch * config.tokens_per_second };
        Ok(Self { pixels, kind, digest: digest(frames, kind) })
    }

    /// The pixels, for the tower.
    #[must_use]
    pub fn pixels(&self) -> &Pixels {
        &self.pixels
    }

    /// What identifies the pixels.
    #[must_use]
    pub fn digest(&self) -> u128 {
        self.digest
    }

    /// The embeddings that a tower of this version has computed from the pixels
    /// ([`TrainableTower::encoder`](crate::TrainableTower::encoder)).
    ///
    /// # Shapes
    /// `embeddings` (tokens, hidden size of the decoder), in host memory.
    #[must_use]
    pub fn embedded(&self, embeddings: Tensor, version: u64) -> ImageEmbeddings {
        let digest = versioned(self.digest, version);
        ImageEmbeddings { kind: self.kind, grid: self.pixels.grid, embeddings, digest }
    }
}
