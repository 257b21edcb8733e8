//! What a picture is to the decoder.

use candle_core::Tensor;
use embodied_r_policy::Insert;
use image::RgbImage;

use crate::grid::Grid;

/// A picture or a video as the decoder reads it. It costs the tower's work once, and may stand in any number of
/// prompts.
#[derive(Debug, Clone)]
pub struct Seen {
    pub(crate) kind: Kind,
    pub(crate) grid: Grid,
    /// (tokens, hidden of the decoder).
    pub(crate) embeddings: Tensor,
    pub(crate) digest: u128,
}

/// What was seen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Image,
    /// With so many positions in time from one patch to the next.
    Video {
        interval: f64,
    },
}

impl Seen {
    /// Its patches.
    #[must_use]
    pub fn grid(&self) -> Grid {
        self.grid
    }

    /// Tokens that it takes.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.embeddings.dims().first().copied().unwrap_or_default()
    }

    /// Memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.embeddings.elem_count() * size_of::<f32>()
    }

    /// What the decoder reads (tokens, hidden).
    #[must_use]
    pub fn embeddings(&self) -> &Tensor {
        &self.embeddings
    }

    /// As it stands in a prompt from the token `at` on.
    pub(crate) fn insert(&self, at: usize, merge: usize) -> Insert {
        let (height, width) = (self.grid.height / merge, self.grid.width / merge);
        let interval = match self.kind {
            Kind::Image => 1.0,
            Kind::Video { interval } => interval,
        };
        let place = |index: usize| {
            let time = (index / (height * width)) as f64 * interval;
            [time as usize, index / width % height, index % width]
        };
        Insert {
            at,
            embeddings: self.embeddings.clone(),
            places: (0..self.tokens()).map(place).collect(),
            digest: self.digest,
        }
    }
}

/// A name for an image, by its pixels.
pub(crate) fn image_digest(picture: &RgbImage) -> u128 {
    digest(std::slice::from_ref(picture), Kind::Image)
}

/// A name for what is seen, by its pixels.
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
