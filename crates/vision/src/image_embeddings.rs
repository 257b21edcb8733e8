//! The embeddings of an image or a video.

use candle_core::Tensor;
use embodied_r_policy::PromptImage;
use image::RgbImage;

use crate::grid::Grid;

/// An encoded image or video: the decoder's input embeddings. May be used in any number of prompts.
#[derive(Debug, Clone)]
pub struct ImageEmbeddings {
    pub(crate) kind: Kind,
    pub(crate) grid: Grid,
    /// (tokens, hidden size of the decoder).
    pub(crate) embeddings: Tensor,
    pub(crate) digest: u128,
}

/// What was encoded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Image,
    /// With `interval` temporal positions from one patch to the next.
    Video {
        interval: f64,
    },
}

impl ImageEmbeddings {
    /// The patch grid.
    #[must_use]
    pub fn grid(&self) -> Grid {
        self.grid
    }

    /// The number of decoder tokens.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.embeddings.dims().first().copied().unwrap_or_default()
    }

    /// What identifies the image and the weights that encoded it.
    #[must_use]
    pub fn digest(&self) -> u128 {
        self.digest
    }

    /// Memory in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.embeddings.elem_count() * size_of::<f32>()
    }

    /// The embeddings (tokens, hidden size of the decoder).
    #[must_use]
    pub fn embeddings(&self) -> &Tensor {
        &self.embeddings
    }

    /// These embeddings at token `offset` of a prompt, with their 3-D position ids.
    pub(crate) fn in_prompt(&self, offset: usize, merge: usize) -> PromptImage {
        let (height, width) = (self.grid.height / merge, self.grid.width / merge);
        let interval = match self.kind {
            Kind::Image => 1.0,
            Kind::Video { interval } => interval,
        };
        let position = |index: usize| {
            let time = (index / (height * width)) as f64 * interval;
            [time as usize, index / width % height, index % width]
        };
        PromptImage {
            offset,
            embeddings: self.embeddings.clone(),
            position_ids: (0..self.tokens()).map(position).collect(),
            digest: self.digest,
        }
    }
}

/// The digest of an image's or a video's pixels.
pub(crate) fn digest(frames: &[RgbImage], kind: Kind) -> u128 {
    let mut hasher = blake3::Hasher::new();
    let interval = match kind {
        Kind::Image => f64::NAN,
        Kind::Video { interval } => interval,
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

/// The digest of the embeddings that a tower of this version computes from the pixels with this digest. Those of
/// version 0 have the digest of the pixels.
pub(crate) fn versioned(digest: u128, version: u64) -> u128 {
    if version == 0 {
        return digest;
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(&digest.to_le_bytes());
    hasher.update(&version.to_le_bytes());
    let mut bytes = [0; 16];
    hasher.finalize_xof().fill(&mut bytes);
    u128::from_le_bytes(bytes)
}
