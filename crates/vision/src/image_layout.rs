//! The place that an image or a video takes in a prompt, which is known without encoding it.

use candle_core::Tensor;
use embodied_r_policy::PromptImage;
use image::RgbImage;
use serde::{Deserialize, Serialize};

use crate::grid::Grid;

/// The tokens of an image or a video, and what identifies its pixels.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ImageLayout {
    pub(crate) kind: Kind,
    pub(crate) grid: Grid,
    /// Patches merged into one token, along each side.
    pub(crate) merge: usize,
    pub(crate) digest: u128,
}

/// What was encoded.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) enum Kind {
    Image,
    /// With `interval` temporal positions from one patch to the next. In f32, as `transformers` multiplies it, because
    /// the product is truncated.
    Video {
        interval: f32,
    },
}

impl Kind {
    /// A video with `second_per_grid` seconds from one temporal patch to the next (`second_per_grid_ts`).
    pub(crate) fn video(second_per_grid: f64, tokens_per_second: f64) -> Self {
        Self::Video { interval: tokens_per_second as f32 * second_per_grid as f32 }
    }
}

impl ImageLayout {
    /// The patch grid.
    #[must_use]
    pub fn grid(&self) -> Grid {
        self.grid
    }

    /// Whether it is a video.
    #[must_use]
    pub fn is_video(&self) -> bool {
        matches!(self.kind, Kind::Video { .. })
    }

    /// Number of decoder tokens.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.grid.tokens(self.merge)
    }

    /// Identifies pixels and, of a video, times: equal digests count as equal content.
    #[must_use]
    pub fn digest(&self) -> u128 {
        self.digest
    }

    /// The image at token `offset` of a prompt, with its 3-D position ids (`get_vision_position_ids` of `transformers`).
    pub(crate) fn in_prompt(&self, offset: usize, embeddings: Option<Tensor>) -> PromptImage {
        let (height, width) = (self.grid.height / self.merge, self.grid.width / self.merge);
        let interval = match self.kind {
            Kind::Image => 1.0,
            Kind::Video { interval } => interval,
        };
        let position = |index: usize| {
            let time = (index / (height * width)) as f32 * interval;
            [time as usize, index / width % height, index % width]
        };
        let position_ids = (0..self.tokens()).map(position).collect();
        PromptImage { embeddings, ..PromptImage::consecutive(offset, position_ids, self.digest) }
    }
}

/// The digest of an image's or a video's pixels.
pub(crate) fn digest(frames: &[RgbImage], kind: Kind) -> u128 {
    let mut hasher = blake3::Hasher::new();
    let interval = match kind {
        Kind::Image => f64::NAN,
        Kind::Video { interval } => f64::from(interval),
    };
    hasher.update(&interval.to_le_bytes());
    for frame in frames {
        hasher.update(&frame.width().to_le_bytes());
        hasher.update(&frame.height().to_le_bytes());
        hasher.update(frame);
    }
    let mut bytes = [0; 16];
    hasher.finalize_xof().fill(&mut bytes);
    u128::from_le_bytes(bytes)
}

/// The digest of an image's pixels, as [`ImageLayout::digest`].
#[must_use]
pub fn image_digest(image: &RgbImage) -> u128 {
    digest(std::slice::from_ref(image), Kind::Image)
}
