//! The place that an image or a video takes in a prompt, which is known without encoding it.

use candle_core::Tensor;
use embodied_r_policy::PromptImage;

use crate::grid::Grid;
use crate::image_embeddings::Kind;

/// The tokens of an image or a video, and what identifies its pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ImageLayout {
    pub(crate) kind: Kind,
    pub(crate) grid: Grid,
    /// Patches merged into one token, along each side.
    pub(crate) merge: usize,
    pub(crate) digest: u128,
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
        PromptImage { offset, position_ids, digest: self.digest, embeddings }
    }
}
