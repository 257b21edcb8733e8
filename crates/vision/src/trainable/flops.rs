//! FLOPs of a vision tower, for estimates.

use super::FrozenParts;
use crate::config::VisionConfig;
use crate::grid::Grid;

/// FLOPs of the matrix products in a forward pass.
struct Parts {
    embedding: f64,
    blocks: f64,
    merger: f64,
}

impl VisionConfig {
    /// Floating-point operations of the matrix products in a forward pass over an image or a video.
    #[must_use]
    pub fn flops(&self, grid: Grid) -> f64 {
        let Parts { embedding, blocks, merger } = self.forward_parts(grid);
        embedding + blocks + merger
    }

    /// Those of the backward pass, without recomputation: for each matrix product that of the gradient of the input and,
    /// unless the part is frozen, that of the weight. It ends at the lowest trained part.
    #[must_use]
    pub fn backward_flops(&self, grid: Grid, frozen: FrozenParts) -> f64 {
        let Parts { embedding, blocks, merger } = self.forward_parts(grid);
        match (frozen.vision_tower, frozen.aligner) {
            // The patches need no gradient.
            (false, false) => embedding + 2.0 * blocks + 2.0 * merger,
            (false, true) => embedding + 2.0 * blocks + merger,
            (true, false) => 2.0 * merger,
            (true, true) => 0.0,
        }
    }

    /// Those of recomputing `blocks` blocks of the backward pass.
    #[must_use]
    pub fn recompute_flops(&self, grid: Grid, blocks: usize) -> f64 {
        self.forward_parts(grid).blocks * blocks as f64 / self.depth as f64
    }

    fn forward_parts(&self, grid: Grid) -> Parts {
        let (h, inner) = (self.hidden_size as f64, self.intermediate_size as f64);
        let patches = grid.patches() as f64;
        let linear = h * (4.0 * h + 3.0 * inner);
        let side = (self.window_size / self.patch_size / self.spatial_merge_size).max(1);
        let window = (side * side * self.patches_per_token()) as f64;
        let of_frame = (grid.height * grid.width) as f64;
        let full = (0..self.depth).filter(|block| self.is_full(*block)).count() as f64;
        let seen = full * of_frame + (self.depth as f64 - full) * window.min(of_frame);
        let wide = h * self.patches_per_token() as f64;
        let merger = wide * (wide + self.out_hidden_size as f64) / self.patches_per_token() as f64;
        let embedding = self.patch_elements() as f64 * h;
        Parts {
            embedding: 2.0 * patches * embedding,
            blocks: 2.0 * patches * (self.depth as f64 * linear + 2.0 * h * seen),
            merger: 2.0 * patches * merger,
        }
    }
}
