//! Settings of vision-language models.

use embodied_r_vision::{FrozenParts, PixelOptions, VideoPixels};
use serde::{Deserialize, Serialize};

use super::faults::{Fault, Faults};

/// What of a vision-language model is trained, and how images are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VisionSettings {
    /// Freeze the vision tower: patch embedding and blocks. With `use_peft`, false adds adapters to its blocks. If all is
    /// frozen, each image is encoded once per run. Default: true.
    pub freeze_vision_tower: bool,
    /// Freeze the aligner (merger), between vision tower and decoder. With `use_peft`, false adds adapters to it. Default:
    /// true.
    pub freeze_aligner: bool,
    /// Peak learning rate of vision tower and aligner. Default: `learning_rate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vision_learning_rate: Option<f64>,
    /// Memory for the embeddings of images under a frozen vision tower, in GB; others are read from the `image_cache`
    /// directory of the run. Default: 1.
    pub image_cache_gb: f64,
    /// Downscale larger images, and frames of videos, to this many pixels. Default: the model's image processor decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_pixels: Option<usize>,
    /// Enlarge smaller images, and frames of videos, to this many pixels. Default: the model's image processor decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_pixels: Option<usize>,
    /// What the limits of the model's video processor apply to: the whole `clip`, so that a short one has larger frames, or
    /// each `frame`, of at most 768 tokens. Qwen2.5-VL limits frames in either case. Default: `clip`.
    pub video_pixels: VideoPixels,
}

impl Default for VisionSettings {
    fn default() -> Self {
        Self {
            freeze_vision_tower: true,
            freeze_aligner: true,
            vision_learning_rate: None,
            image_cache_gb: 1.0,
            max_pixels: None,
            min_pixels: None,
            video_pixels: VideoPixels::Clip,
        }
    }
}

impl VisionSettings {
    /// The limits on the pixels of images and videos.
    #[must_use]
    pub fn pixels(&self) -> PixelOptions {
        let Self { min_pixels, max_pixels, video_pixels, .. } = *self;
        PixelOptions { min_pixels, max_pixels, video_pixels: Some(video_pixels) }
    }

    /// All invalid settings at once.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = Faults::default();
        self.add_faults(&mut faults);
        faults.0
    }

    pub(super) fn add_faults(&self, faults: &mut Faults) {
        if let Some(rate) = self.vision_learning_rate {
            faults.positive("vision_learning_rate", rate);
            faults.unless(self.frozen_parts().is_some(), "vision_learning_rate", || {
                "has no effect without `freeze_vision_tower = false` or `freeze_aligner = false`".into()
            });
        }
        let is_size = self.image_cache_gb.is_finite() && self.image_cache_gb >= 0.0;
        faults.unless(is_size, "image_cache_gb", || {
            format!("must be a number from 0, not {}", self.image_cache_gb)
        });
        for (key, pixels) in [("max_pixels", self.max_pixels), ("min_pixels", self.min_pixels)] {
            if let Some(pixels) = pixels {
                faults.at_least(key, pixels as u64, 1);
            }
        }
        let (least, most) = (self.min_pixels.unwrap_or(0), self.max_pixels.unwrap_or(usize::MAX));
        faults.unless(least <= most, "min_pixels", || {
            format!("is {least}, more than `max_pixels`, {most}")
        });
    }

    /// The frozen parts of a vision encoder that is trained; `None` if all of it is frozen.
    #[must_use]
    pub fn frozen_parts(&self) -> Option<FrozenParts> {
        let (vision_tower, aligner) = (self.freeze_vision_tower, self.freeze_aligner);
        (!(vision_tower && aligner)).then_some(FrozenParts { vision_tower, aligner })
    }
}
