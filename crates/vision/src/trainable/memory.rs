//! Activation memory of a trainable tower, for estimates.

use std::collections::BTreeSet;

use candle_core::DType;
use embodied_r_kernels::attention::{self, Heads};

use super::FrozenParts;
use crate::config::VisionConfig;
use crate::grid::Grid;
use crate::layout::{FeedForwardKind, MergerLayout, TowerLayout};
use crate::tower::batch_lengths;

/// Activation memory of a forward and backward pass over images and videos, without weights and gradients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TowerBytes {
    /// The patches of the images, in f32 in host memory. They are needed until the backward if the patch embedding is
    /// trained.
    pub patches: usize,
    /// The inputs of blocks and mergers that a gradient reaches, each once, and these mergers' activations, which are always
    /// saved.
    pub inputs: usize,
    /// The other activations of one block that is not recomputed.
    pub block: usize,
    /// Peak workspace of the backward, or of a forward that saves nothing.
    pub workspace: usize,
}

/// Elements per patch or token, of the dtype of activations and in f32.
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
    /// Activation memory of a pass over images and videos with activations of `element_bytes` bytes, if every tensor
    /// outside of the `frozen` parts is trained.
    #[must_use]
    pub fn pass_bytes(
        &self,
        grids: &[Grid],
        element_bytes: usize,
        frozen: FrozenParts,
    ) -> TowerBytes {
        let patches: Vec<usize> = grids.iter().map(Grid::patches).collect();
        let all: usize = patches.iter().sum();
        let mut left = patches.as_slice();
        let mut largest = 0;
        for length in batch_lengths(patches.iter().copied()) {
            let (batch, rest) = left.split_at(length);
            largest = largest.max(batch.iter().sum::<usize>());
            left = rest;
        }
        let saved = self.saved_elements_per_token(frozen).bytes(element_bytes);
        let block = self.block_elements().bytes(element_bytes);
        TowerBytes {
            patches: all * self.patch_elements() * size_of::<f32>(),
            inputs: all / self.patches_per_token() * saved,
            block: all * block,
            workspace: largest * (block + self.workspace_elements().bytes(element_bytes)),
        }
    }

    /// Memory per patch of the activations of one block.
    pub(super) fn block_bytes_per_patch(&self, dtype: DType) -> usize {
        self.block_elements().bytes(dtype.size_in_bytes())
    }

    /// The inputs of the blocks, if they are trained, and of the mergers, which are the outputs of blocks; and of each merger
    /// its input of GELU and the statistics of its norm.
    fn saved_elements_per_token(&self, frozen: FrozenParts) -> Elements {
        let TowerLayout { mergers, norm, .. } = self.layout();
        let (hidden, patches) = (self.hidden_size, self.patches_per_token());
        let inputs = match (frozen.vision_tower, frozen.aligner) {
            // Each block's output but the last is the next one's input.
            (false, _) => self.depth + 1,
            (true, false) => mergers.iter().map(|it| it.after).collect::<BTreeSet<_>>().len(),
            (true, true) => return Elements { activations: 0, f32: 0 },
        };
        let rows = |merger: &MergerLayout| if merger.joins_first { 1 } else { patches };
        Elements {
            activations: inputs * patches * hidden + mergers.len() * self.merged_size(),
            f32: mergers.iter().map(rows).sum::<usize>() * norm.statistics(),
        }
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
