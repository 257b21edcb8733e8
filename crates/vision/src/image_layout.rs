//! The place that an image or a video takes in a prompt, which is known without encoding it.

use candle_core::Tensor;
use embodied_r_policy::{ImageSpan, PromptImage};
use image::RgbImage;
use serde::{Deserialize, Serialize};

use crate::grid::Grid;

/// The tokens of an image or a video, and what identifies its pixels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageLayout {
    pub(crate) kind: Kind,
    pub(crate) grid: Grid,
    /// Patches merged into one token, along each side.
    pub(crate) merge: usize,
    pub(crate) digest: u128,
}

/// What was encoded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Kind {
    Image,
    /// A video whose tokens are consecutive, with `interval` temporal positions from one patch to the next. In f32, as
    /// `transformers` multiplies it, because the product is truncated.
    Video {
        interval: f32,
    },
    /// A video with the tokens of each temporal patch behind its timestamp.
    TimestampedVideo {
        timestamps: Vec<String>,
    },
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
        !matches!(self.kind, Kind::Image)
    }

    /// The timestamps of a video's temporal patches as they are in the prompt; none of an image, or of a video without.
    #[must_use]
    pub fn timestamps(&self) -> &[String] {
        match &self.kind {
            Kind::Image | Kind::Video { .. } => &[],
            Kind::TimestampedVideo { timestamps } => timestamps,
        }
    }

    /// Number of decoder tokens.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.grid.tokens(self.merge)
    }

    /// Number of placeholders that become its tokens: one, or one for each timestamp.
    pub(crate) fn placeholders(&self) -> usize {
        self.timestamps().len().max(1)
    }

    /// Number of decoder tokens of each placeholder.
    pub(crate) fn tokens_per_placeholder(&self) -> usize {
        self.tokens() / self.placeholders()
    }

    /// Identifies pixels and, of a video, times: equal digests count as equal content.
    #[must_use]
    pub fn digest(&self) -> u128 {
        self.digest
    }

    /// The image in a prompt, in which the tokens of its placeholders begin at `offsets`, with its 3-D position ids
    /// (`get_vision_position_ids` of `transformers`).
    pub(crate) fn in_prompt(&self, offsets: &[usize], embeddings: Option<Tensor>) -> PromptImage {
        let (height, width) = (self.grid.height / self.merge, self.grid.width / self.merge);
        let interval = match self.kind {
            Kind::Video { interval } => interval,
            Kind::Image | Kind::TimestampedVideo { .. } => 1.0,
        };
        let position = |index: usize| {
            let time = (index / (height * width)) as f32 * interval;
            [time as usize, index / width % height, index % width]
        };
        let tokens = self.tokens_per_placeholder();
        let span = |offset: &usize| ImageSpan {
            offset: *offset,
            position_ids: (0..tokens).map(position).collect(),
        };
        let spans = offsets.iter().map(span).collect();
        PromptImage { spans, digest: self.digest, embeddings }
    }
}

/// The digest of an image's or a video's pixels.
pub(crate) fn digest(frames: &[RgbImage], kind: &Kind) -> u128 {
    let mut hasher = blake3::Hasher::new();
    let interval = match kind {
        Kind::Image => f64::NAN,
        Kind::Video { interval } => f64::from(*interval),
        Kind::TimestampedVideo { .. } => f64::INFINITY,
    };
    hasher.update(&interval.to_le_bytes());
    if let Kind::TimestampedVideo { timestamps } = kind {
        hasher.update(timestamps.concat().as_bytes());
    }
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
    digest(std::slice::from_ref(image), &Kind::Image)
}
