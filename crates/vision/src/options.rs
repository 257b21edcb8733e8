//! How a vision-language model is loaded.

use embodied_r_policy::{WeightFormat, WeightPlacement};

use crate::processor::PixelOptions;

/// Options for loading a vision-language model.
#[derive(Debug, Clone)]
pub struct VisionOptions {
    /// Weight format and device of decoder and vision tower; weights of GGUF files keep their format.
    pub placement: WeightPlacement,
    /// Limits on the pixels of images and videos.
    pub pixels: PixelOptions,
}

impl From<WeightFormat> for VisionOptions {
    fn from(format: WeightFormat) -> Self {
        Self { placement: format.into(), pixels: PixelOptions::default() }
    }
}
