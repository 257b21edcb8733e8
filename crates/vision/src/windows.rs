//! The order of patches in the vision tower, and its attention windows.

use std::ops::Range;

use embodied_r_kernels::attention::GroupSpan;

use crate::config::VisionConfig;
use crate::grid::Grid;

/// The patches of images and videos, sorted by window.
pub(crate) struct Windows {
    /// The patch in each row.
    pub(crate) patches: Vec<usize>,
    /// The row of each token, counted in tokens: the inverse permutation.
    pub(crate) tokens: Vec<usize>,
    /// The position ids (height, width, 0) of the patch in each row.
    pub(crate) position_ids: Vec<[usize; 3]>,
    /// Rows of each window.
    pub(crate) windows: Vec<GroupSpan>,
    /// Rows of each frame.
    pub(crate) frames: Vec<GroupSpan>,
}

impl Windows {
    /// The windows of `grids`, concatenated.
    pub(crate) fn new(grids: &[Grid], config: &VisionConfig) -> Self {
        let (merge, merged) = (config.spatial_merge_size, config.patches_per_token());
        // Side of a window in tokens.
        let side = (config.window_size / config.patch_size / merge).max(1);
        let (mut order, mut position_ids) = (Vec::new(), Vec::new());
        let (mut windows, mut frames) = (Vec::new(), Vec::new());
        let mut first = 0;
        for grid in grids {
            let (height, width) = (grid.height / merge, grid.width / merge);
            for frame in 0..grid.time {
                let (start, of_frame) = (order.len(), first + frame * height * width);
                for top in (0..height).step_by(side) {
                    for left in (0..width).step_by(side) {
                        let start = order.len();
                        for row in top..height.min(top + side) {
                            for column in left..width.min(left + side) {
                                order.push(of_frame + row * width + column);
                                let inner = (0..merged).map(|i| [i / merge, i % merge]);
                                position_ids.extend(
                                    inner.map(|[y, x]| [row * merge + y, column * merge + x, 0]),
                                );
                            }
                        }
                        windows.push(span(start * merged..order.len() * merged));
                    }
                }
                frames.push(span(start * merged..order.len() * merged));
            }
            first += grid.tokens(merge);
        }
        let patches = order.iter().flat_map(|token| token * merged..(token + 1) * merged);
        let mut tokens = vec![0; order.len()];
        for (row, token) in order.iter().enumerate() {
            tokens[*token] = row;
        }
        Self { patches: patches.collect(), tokens, position_ids, windows, frames }
    }
}

fn span(rows: Range<usize>) -> GroupSpan {
    GroupSpan { prompt: rows, completions: Vec::new(), kv_only: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> VisionConfig {
        serde_json::from_value(serde_json::json!({
            "depth": 1, "hidden_size": 8, "intermediate_size": 8, "num_heads": 1,
            "out_hidden_size": 8, "window_size": 56,
        }))
        .unwrap()
    }

    #[test]
    fn tokens_are_sorted_by_frame_and_window() {
        // 3 × 3 tokens in windows of 2 × 2, twice.
        let grid = Grid { time: 2, height: 6, width: 6 };
        let windows = Windows::new(&[grid], &config());
        let tokens: Vec<usize> = windows.patches.iter().step_by(4).map(|p| p / 4).collect();
        assert_eq!(tokens[..9], [0, 1, 3, 4, 2, 5, 6, 7, 8]);
        assert_eq!(tokens[9..12], [9, 10, 12]);
        let rows = |spans: &[GroupSpan]| -> Vec<Range<usize>> {
            spans.iter().map(|span| span.prompt.clone()).collect()
        };
        assert_eq!(rows(&windows.frames), [0..36, 36..72]);
        assert_eq!(rows(&windows.windows)[..5], [0..16, 16..24, 24..32, 32..36, 36..52]);
        // The token in the second row and the first column, and its lower right patch.
        assert_eq!(windows.position_ids[2 * 4 + 3], [3, 1, 0]);
        // Each token's row, for the inverse permutation.
        assert_eq!(windows.tokens[..9], [0, 1, 4, 2, 3, 5, 6, 7, 8]);
    }

    #[test]
    fn images_are_concatenated() {
        let grid = Grid { time: 1, height: 2, width: 4 };
        let windows = Windows::new(&[grid, grid], &config());
        assert_eq!(windows.patches, (0..16).collect::<Vec<_>>());
        assert_eq!(windows.frames.len(), 2);
        assert_eq!(windows.position_ids[8], [0, 0, 0]);
    }
}
