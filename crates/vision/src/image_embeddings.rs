//! The embeddings of an image or a video.

use candle_core::Tensor;

use crate::grid::Grid;
use crate::image_layout::ImageLayout;

/// An encoded image or video: the decoder's input embeddings. May be used in any number of prompts.
#[derive(Debug, Clone)]
pub struct ImageEmbeddings {
    pub(crate) layout: ImageLayout,
    /// (levels · tokens, hidden size of the decoder), level by level.
    pub(crate) embeddings: Tensor,
}

impl ImageEmbeddings {
    /// Its place in a prompt, and what identifies it.
    #[must_use]
    pub fn layout(&self) -> &ImageLayout {
        &self.layout
    }

    /// The patch grid.
    #[must_use]
    pub fn grid(&self) -> Grid {
        self.layout.grid()
    }

    /// Whether it is a video.
    #[must_use]
    pub fn is_video(&self) -> bool {
        self.layout.is_video()
    }

    /// Identifies pixels and times: equal digests count as equal content.
    #[must_use]
    pub fn digest(&self) -> u128 {
        self.layout.digest()
    }

    /// The number of decoder tokens.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.layout.tokens()
    }

    /// The embeddings (levels · tokens, hidden size of the decoder), level by level
    /// ([`VisionConfig::feature_levels`](crate::VisionConfig::feature_levels)).
    #[must_use]
    pub fn embeddings(&self) -> &Tensor {
        &self.embeddings
    }
}
