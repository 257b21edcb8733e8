//! How a vision-language model is loaded.

use embodied_r_policy::{WeightFormat, WeightPlacement};

/// Options for loading a vision-language model.
#[derive(Debug, Clone)]
pub struct VisionOptions {
    /// Weight format and device of decoder and vision tower; weights of GGUF files keep their format.
    pub placement: WeightPlacement,
    /// Larger images are reduced to this many pixels. `None` uses the processor's limit.
    pub max_pixels: Option<usize>,
}

impl From<WeightFormat> for VisionOptions {
    fn from(format: WeightFormat) -> Self {
        Self { placement: format.into(), max_pixels: None }
    }
}
