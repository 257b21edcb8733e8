//! Qwen2.5-VL: RMS norms, gated feed-forward layers, and windows in most blocks.

use embodied_r_policy::GgufFile;
use embodied_r_policy::config::ConfigFault;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{GgufFormat, LARGEST, TowerRows, VisionFamily, fault, span};
use crate::frames::FrameTimes;
use crate::grid::{Grid, PixelLimits};
use crate::image_layout::Kind;
use crate::layout::{FeedForwardKind, MergerLayout, NormKind, TowerLayout};
use crate::processor::{FrameSampling, ProcessorFiles, VideoPixels, VideoRules};
use crate::sizes::TowerSizes;

/// Its fields of `vision_config`, with the defaults of `Qwen2_5_VLVisionConfig`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Qwen25Vl {
    /// Side of an attention window in pixels.
    window_size: usize,
    /// The blocks with full attention over a frame.
    fullatt_block_indexes: Vec<usize>,
    /// Temporal positions per second of video.
    tokens_per_second: f64,
    hidden_act: String,
}

impl Default for Qwen25Vl {
    fn default() -> Self {
        Self {
            window_size: 112,
            fullatt_block_indexes: vec![7, 15, 23, 31],
            tokens_per_second: 4.0,
            hidden_act: "silu".to_owned(),
        }
    }
}

impl Qwen25Vl {
    /// Side of a window in tokens.
    fn side(&self, sizes: &TowerSizes) -> usize {
        (self.window_size / sizes.patch_size / sizes.spatial_merge_size).max(1)
    }
}

impl VisionFamily for Qwen25Vl {
    fn processor_files(&self) -> ProcessorFiles {
        let images = json!({
            "min_pixels": 3_136, "max_pixels": 12_845_056, "patch_size": 14, "temporal_patch_size": 2, "merge_size": 2,
            "image_mean": [0.481_454_66, 0.457_827_5, 0.408_210_73],
            "image_std": [0.268_629_54, 0.261_302_58, 0.275_777_11],
            "image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor",
        });
        ProcessorFiles { images, videos: None }
    }

    /// The decoder's fields are those of the model.
    fn model_config(&self, mut decoder: Value, vision: Value) -> Value {
        decoder["architectures"] = json!(["Qwen2_5_VLForConditionalGeneration"]);
        decoder["model_type"] = json!("qwen2_5_vl");
        decoder["vision_config"] = vision;
        decoder
    }

    fn prefixes(&self) -> [&'static str; 2] {
        ["model.", "visual."]
    }

    fn default_patch_size(&self) -> usize {
        14
    }

    fn layout(&self, sizes: &TowerSizes) -> TowerLayout {
        let names = ["merger.ln_q", "merger.mlp.0", "merger.mlp.2"].map(str::to_owned);
        TowerLayout {
            norm: NormKind::Rms,
            feed_forward: FeedForwardKind::Gated,
            patch_bias: false,
            positions: None,
            mergers: vec![MergerLayout { names, after: sizes.depth - 1, joins_first: false }],
        }
    }

    /// Patches sorted by window.
    fn rows(&self, sizes: &TowerSizes, grids: &[Grid]) -> TowerRows {
        let (merge, merged) = (sizes.spatial_merge_size, sizes.patches_per_token());
        let side = self.side(sizes);
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
        TowerRows { patches: patches.collect(), tokens, position_ids, windows, frames, taps: None }
    }

    fn is_full(&self, block: usize) -> bool {
        self.fullatt_block_indexes.contains(&block)
    }

    fn video_rules(&self) -> VideoRules {
        VideoRules {
            pixels: VideoPixels::Frame,
            default_limits: PixelLimits { min_pixels: 128 * 28 * 28, max_pixels: 768 * 28 * 28 },
            own_file: false,
            sampling: FrameSampling::Even,
        }
    }

    /// Temporal positions follow the time from one patch to the next (`second_per_grid_ts`).
    fn video(&self, times: &FrameTimes, frames_per_patch: usize) -> Kind {
        let second_per_grid = times.interval * frames_per_patch as f64;
        Kind::Video { interval: self.tokens_per_second as f32 * second_per_grid as f32 }
    }

    fn attended(&self, sizes: &TowerSizes, grid: Grid) -> f64 {
        let side = self.side(sizes);
        let window = (side * side * sizes.patches_per_token()) as f64;
        let of_frame = (grid.height * grid.width) as f64;
        let full = (0..sizes.depth).filter(|block| self.is_full(*block)).count() as f64;
        full * of_frame + (sizes.depth as f64 - full) * window.min(of_frame)
    }

    fn faults(&self, sizes: &TowerSizes) -> Vec<ConfigFault> {
        let token = (sizes.patch_size * sizes.spatial_merge_size).max(1);
        let windows = self.window_size >= token && self.window_size <= LARGEST;
        let blocks = &self.fullatt_block_indexes;
        let there = blocks.iter().all(|block| *block < LARGEST);
        let rate = self.tokens_per_second;
        let size = "at least `patch_size` times `spatial_merge_size`";
        [
            fault(self.hidden_act == "silu", "hidden_act", &self.hidden_act, "`silu`"),
            fault(windows, "window_size", &self.window_size, size),
            fault(
                there,
                "fullatt_block_indexes",
                &format!("{blocks:?}"),
                "a list of block indices",
            ),
            fault(rate.is_finite() && rate > 0.0, "tokens_per_second", &rate, "a positive number"),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// Its files of llama.cpp, where each block's query, key and value projections are three matrices.
pub(super) static GGUF: GgufFormat = GgufFormat {
    name: "Qwen2.5-VL",
    model_type: "qwen2_5_vl",
    projector: "qwen2.5vl_merger",
    decoder: "qwen2vl",
    has_fused_qkv: false,
    fields: gguf_fields,
};

/// Every n-th block has full attention; all have if the file does not say.
const FULL_BLOCKS: &str = "clip.vision.n_wa_pattern";

fn gguf_fields(file: &GgufFile, depth: u64) -> embodied_r_policy::Result<Value> {
    let every = file.count(FULL_BLOCKS)?.unwrap_or_default().max(1);
    let blocks = 1..=depth.min(LARGEST as u64);
    let full: Vec<u64> =
        blocks.filter(|block| block.is_multiple_of(every)).map(|block| block - 1).collect();
    let mut fields = json!({ "fullatt_block_indexes": full, "tokens_per_second": 2 });
    if let Some(size) = file.count("clip.vision.window_size")? {
        fields["window_size"] = size.into();
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use embodied_r_kernels::attention::GroupSpan;

    use super::*;

    fn rows(grids: &[Grid]) -> TowerRows {
        let sizes = TowerSizes {
            depth: 1,
            hidden_size: 8,
            intermediate_size: 8,
            num_heads: 1,
            in_channels: 3,
            patch_size: 14,
            temporal_patch_size: 2,
            spatial_merge_size: 2,
            out_hidden_size: 8,
        };
        Qwen25Vl { window_size: 56, ..Qwen25Vl::default() }.rows(&sizes, grids)
    }

    #[test]
    fn tokens_are_sorted_by_frame_and_window() {
        // 3 × 3 tokens in windows of 2 × 2, twice.
        let rows = rows(&[Grid { time: 2, height: 6, width: 6 }]);
        let tokens: Vec<usize> = rows.patches.iter().step_by(4).map(|p| p / 4).collect();
        assert_eq!(tokens[..9], [0, 1, 3, 4, 2, 5, 6, 7, 8]);
        assert_eq!(tokens[9..12], [9, 10, 12]);
        let of = |spans: &[GroupSpan]| -> Vec<Range<usize>> {
            spans.iter().map(|span| span.prompt.clone()).collect()
        };
        assert_eq!(of(&rows.frames), [0..36, 36..72]);
        assert_eq!(of(&rows.windows)[..5], [0..16, 16..24, 24..32, 32..36, 36..52]);
        // The token in the second row and the first column, and its lower right patch.
        assert_eq!(rows.position_ids[2 * 4 + 3], [3, 1, 0]);
        // Each token's row, for the inverse permutation.
        assert_eq!(rows.tokens[..9], [0, 1, 4, 2, 3, 5, 6, 7, 8]);
    }

    #[test]
    fn images_are_concatenated() {
        let grid = Grid { time: 1, height: 2, width: 4 };
        let rows = rows(&[grid, grid]);
        assert_eq!(rows.patches, (0..16).collect::<Vec<_>>());
        assert_eq!(rows.frames.len(), 2);
        assert_eq!(rows.position_ids[8], [0, 0, 0]);
    }
}
