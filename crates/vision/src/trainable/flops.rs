//! FLOPs of a vision tower, for estimates.

use super::FrozenParts;
use crate::config::VisionConfig;
use crate::grid::Grid;
use crate::layout::TowerPart;

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
        let (h, patches) = (self.hidden_size as f64, grid.patches() as f64);
        let products = |of_mergers: bool| -> f64 {
            let parts = self.parts().into_iter();
            let weights = parts.filter(|(stage, _)| stage.is_merger() == of_mergers);
            let weights = weights.map(|(_, part)| match part {
                TowerPart::Linear(_, outputs, inputs) => outputs * inputs,
                TowerPart::Qkv(_, width) => 3 * width * width,
                TowerPart::Patches | TowerPart::Vector(..) | TowerPart::Positions(_) => 0,
            });
            weights.sum::<usize>() as f64
        };
        let seen = self.family().attended(self, grid);
        let merger = products(true) / self.patches_per_token() as f64;
        let embedding = self.patch_elements() as f64 * h;
        Parts {
            embedding: 2.0 * patches * embedding,
            blocks: 2.0 * patches * (products(false) + 2.0 * h * seen),
            merger: 2.0 * patches * merger,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backward_has_two_products_for_each_of_the_forwards_but_one_where_either_is_not_needed() {
        let config: VisionConfig = serde_json::from_value(serde_json::json!({
            "depth": 2, "hidden_size": 8, "intermediate_size": 12, "num_heads": 2,
            "out_hidden_size": 10, "patch_size": 2, "window_size": 8, "fullatt_block_indexes": [1],
        }))
        .unwrap();
        // 36 patches: of 9 tokens, in windows of 16, 8, 8 and 4 patches, but estimated as if all were whole.
        let grid = Grid { time: 1, height: 6, width: 6 };
        let embedding = 2.0 * 36.0 * 24.0 * 8.0;
        let linear = 2.0 * 36.0 * (4.0 * 64.0 + 3.0 * 96.0);
        let blocks = 2.0 * linear + 4.0 * 36.0 * 8.0 * (16.0 + 36.0);
        let merger = 2.0 * 9.0 * (32.0 * 32.0 + 32.0 * 10.0);
        assert_eq!(config.flops(grid), embedding + blocks + merger);
        let backward = |vision_tower, aligner| {
            config.backward_flops(grid, FrozenParts { vision_tower, aligner })
        };
        assert_eq!(backward(false, false), embedding + 2.0 * (blocks + merger));
        assert_eq!(backward(false, true), embedding + 2.0 * blocks + merger);
        assert_eq!(backward(true, false), 2.0 * merger);
        assert_eq!(backward(true, true), 0.0);
        assert_eq!(config.recompute_flops(grid, 1), blocks / 2.0);
    }
}
