//! Activation memory of a trainable tower, for estimates.

use candle_core::DType;
use embodied_r_kernels::attention::{self, Heads};

use crate::config::VisionConfig;
use crate::grid::Grid;
use crate::layout::FeedForwardKind;
use crate::tower::batch_lengths;

/// Activation memory of a forward and backward pass over images and videos, without weights and gradients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TowerBytes {
    /// The patches of the images, in f32 in host memory. They are needed until the backward if the patch embedding is
    /// trained.
    pub patches: usize,
    /// The inputs of all blocks and the mergers' activations, which are always saved.
    pub inputs: usize,
    /// The other activations of one block that is not recomputed.
    pub block: usize,
    /// Peak workspace of the backward, or of a forward that saves nothing.
    pub workspace: usize,
}

/// Elements per patch, of the dtype of activations and in f32.
#[derive(Debug, Clone, Copy)]
struct Elements {
    activations: usize,
    f32: usize,
}

impl Elements {
    fn bytes(self, element_bytes: usize) -> usize {
        self.activations * element_bytes + self.f32 * size_of::<f32>()
    }
}

impl VisionConfig {
    /// Activation memory of a pass over images and videos with activations of `element_bytes` bytes, if every tensor is
    /// trained.
    #[must_use]
    pub fn pass_bytes(&self, grids: &[Grid], element_bytes: usize) -> TowerBytes {
        let patches: Vec<usize> = grids.iter().map(Grid::patches).collect();
        let all: usize = patches.iter().sum();
        let mut left = patches.as_slice();
        let mut largest = 0;
        for length in batch_lengths(patches.iter().copied()) {
            let (batch, rest) = left.split_at(length);
            largest = largest.max(batch.iter().sum::<usize>());
            left = rest;
        }
        let saved = self.saved_elements().bytes(element_bytes);
        let block = self.block_elements().bytes(element_bytes);
        TowerBytes {
            patches: all * self.patch_elements() * size_of::<f32>(),
            inputs: all * saved,
            block: all * block,
            workspace: largest * (block + self.workspace_elements().bytes(element_bytes)),
        }
    }

    /// Memory per patch of the activations of one block.
    pub(super) fn block_bytes_per_patch(&self, dtype: DType) -> usize {
        self.block_elements().bytes(dtype.size_in_bytes())
    }

    /// The inputs of all blocks and of the last merger, and of each merger its input of GELU and the statistics of its norm,
    /// counted as if patches were not joined before it.
    fn saved_elements(&self) -> Elements {
        let layout = self.layout();
        let mergers = layout.mergers.len();
        let activations = (self.depth + 1 + mergers) * self.hidden_size;
        Elements { activations, f32: mergers * layout.norm.statistics() }
    }

    /// Queries, keys, values, attention output, residual stream, and what the first layers of the feed-forward layer give;
    /// log-sum-exp and the statistics of both norms.
    fn block_elements(&self) -> Elements {
        let (hidden, inner, layout) = (self.hidden_size, self.intermediate_size, self.layout());
        let wide = match layout.feed_forward {
            FeedForwardKind::Gated => 2 * inner,
            FeedForwardKind::Plain => inner,
        };
        let f32 = self.num_heads + 2 * layout.norm.statistics();
        Elements { activations: 5 * hidden + wide, f32 }
    }

    /// Besides a block's activations: a norm's output, its gradient, that of the residual stream, the gradients of
    /// queries, keys and values, and the larger of the down projection's input with its gradient, attention's own
    /// workspace, and the patches with their copy.
    fn workspace_elements(&self) -> Elements {
        let (heads, dim) = (self.num_heads, self.head_dim());
        let attention = attention::workspace_elements(Heads { query: heads, kv: heads, dim });
        let larger = (2 * self.intermediate_size).max(attention).max(2 * self.patch_elements());
        Elements { activations: 6 * self.hidden_size + larger, f32: 0 }
    }
}
