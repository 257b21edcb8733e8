//! The sizes that every vision tower has.

/// The sizes of a vision tower, named as in `transformers`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TowerSizes {
    /// Number of blocks.
    pub depth: usize,
    /// Hidden size.
    pub hidden_size: usize,
    /// Hidden size of the feed-forward layer.
    pub intermediate_size: usize,
    /// Attention heads.
    pub num_heads: usize,
    /// Color channels.
    pub in_channels: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Frames per patch.
    pub temporal_patch_size: usize,
    /// Patches merged into one token, along each side.
    pub spatial_merge_size: usize,
    /// Hidden size of the output tokens, which is the decoder's.
    pub out_hidden_size: usize,
}

impl TowerSizes {
    /// Size of a head.
    #[must_use]
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_heads
    }

    /// Elements per patch.
    #[must_use]
    pub fn patch_elements(&self) -> usize {
        self.in_channels * self.temporal_patch_size * self.patch_size * self.patch_size
    }

    /// Patches merged into one token.
    #[must_use]
    pub fn patches_per_token(&self) -> usize {
        self.spatial_merge_size * self.spatial_merge_size
    }

    /// Width of the patches of a token.
    pub(crate) fn merged_size(&self) -> usize {
        self.hidden_size * self.patches_per_token()
    }
}
