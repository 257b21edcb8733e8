//! Qwen3-VL: LayerNorms, plain feed-forward layers, interpolated learned positions, full attention in each frame, and
//! DeepStack (Meng et al., 2024): further mergers behind some blocks, whose features the decoder adds after its first
//! layers.

use embodied_r_policy::config::ConfigFault;
use embodied_r_policy::weights::WeightFault;
use embodied_r_policy::{GgufFault, GgufFile};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{GgufFormat, LARGEST, Taps, TowerRows, VisionFamily, fault, span};
use crate::frames::FrameTimes;
use crate::gguf_names;
use crate::grid::{Grid, PixelLimits};
use crate::image_layout::Kind;
use crate::layout::{FeedForwardKind, MergerLayout, NormKind, TowerLayout};
use crate::processor::{FrameSampling, ProcessorFiles, VideoPixels, VideoRules};
use crate::sizes::TowerSizes;

/// Its fields of `vision_config`, with the defaults of `Qwen3VLVisionConfig`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Qwen3Vl {
    /// Learned positions: a square number.
    num_position_embeddings: usize,
    /// The blocks behind which DeepStack has a merger, in the order of the decoder's layers.
    deepstack_visual_indexes: Vec<usize>,
    hidden_act: String,
}

impl Default for Qwen3Vl {
    fn default() -> Self {
        Self {
            num_position_embeddings: 2_304,
            deepstack_visual_indexes: vec![8, 16, 24],
            hidden_act: "gelu_pytorch_tanh".to_owned(),
        }
    }
}

impl Qwen3Vl {
    /// Learned positions along a side.
    fn side(&self) -> usize {
        self.num_position_embeddings.isqrt()
    }
}

impl VisionFamily for Qwen3Vl {
    fn processor_files(&self) -> ProcessorFiles {
        let file = |size: [u32; 2], more: [&str; 2]| {
            json!({
                "size": {"shortest_edge": size[0], "longest_edge": size[1]}, "patch_size": 16,
                "temporal_patch_size": 2, "merge_size": 2, "image_mean": [0.5, 0.5, 0.5],
                "image_std": [0.5, 0.5, 0.5], "processor_class": "Qwen3VLProcessor", more[0]: more[1],
            })
        };
        let images = ["image_processor_type", "Qwen2VLImageProcessorFast"];
        let videos = ["video_processor_type", "Qwen3VLVideoProcessor"];
        ProcessorFiles {
            images: file([65_536, 16_777_216], images),
            videos: Some(file([4_096, 25_165_824], videos)),
        }
    }

    fn model_config(&self, mut decoder: Value, mut vision: Value) -> Value {
        decoder["model_type"] = json!("qwen3_vl_text");
        vision["model_type"] = json!("qwen3_vl");
        json!({
            "architectures": ["Qwen3VLForConditionalGeneration"], "model_type": "qwen3_vl",
            "tie_word_embeddings": decoder["tie_word_embeddings"], "text_config": decoder, "vision_config": vision,
        })
    }

    fn prefixes(&self) -> [&'static str; 2] {
        ["model.language_model.", "model.visual."]
    }

    fn default_patch_size(&self) -> usize {
        16
    }

    fn layout(&self, sizes: &TowerSizes) -> TowerLayout {
        let merger = |name: &str, after, joins_first| {
            let names = ["norm", "linear_fc1", "linear_fc2"].map(|part| format!("{name}.{part}"));
            MergerLayout { names, after, joins_first }
        };
        let of_deepstack = self.deepstack_visual_indexes.iter().enumerate();
        let of_deepstack = of_deepstack
            .map(|(index, after)| merger(&format!("deepstack_merger_list.{index}"), *after, true));
        TowerLayout {
            norm: NormKind::Layer,
            feed_forward: FeedForwardKind::Plain,
            patch_bias: true,
            positions: Some(self.side()),
            mergers: std::iter::once(merger("merger", sizes.depth - 1, false))
                .chain(of_deepstack)
                .collect(),
        }
    }

    /// Patches in the processor's order, frame by frame.
    fn rows(&self, sizes: &TowerSizes, grids: &[Grid]) -> TowerRows {
        let (merge, merged) = (sizes.spatial_merge_size, sizes.patches_per_token());
        let (mut position_ids, mut frames) = (Vec::new(), Vec::new());
        let mut taps = Taps::default();
        for grid in grids {
            let along = [grid.height, grid.width].map(|count| Along::new(self.side(), count));
            for _ in 0..grid.time {
                let start = position_ids.len();
                for token in 0..grid.height * grid.width / merged {
                    let of_row = grid.width / merge;
                    let (row, column) = (token / of_row, token % of_row);
                    for patch in 0..merged {
                        let y = row * merge + patch / merge;
                        let x = column * merge + patch % merge;
                        position_ids.push([y, x, 0]);
                        taps.push(self.side(), [along[0].at(y), along[1].at(x)]);
                    }
                }
                frames.push(span(start..position_ids.len()));
            }
        }
        let count = position_ids.len();
        TowerRows {
            patches: (0..count).collect(),
            tokens: (0..count / merged).collect(),
            position_ids,
            windows: Vec::new(),
            frames,
            taps: Some(taps),
        }
    }

    fn is_full(&self, _block: usize) -> bool {
        true
    }

    fn video_rules(&self) -> VideoRules {
        VideoRules {
            pixels: VideoPixels::Clip,
            default_limits: PixelLimits { min_pixels: 128 * 32 * 32, max_pixels: 768 * 32 * 32 },
            own_file: true,
            sampling: FrameSampling::Any,
        }
    }

    /// A temporal patch follows the mean time of its first and its last frame (`_calculate_timestamps`).
    fn video(&self, times: &FrameTimes, frames_per_patch: usize) -> Kind {
        let timestamp = |starts: &[f64]| {
            // The last frame fills the last patch.
            let ends = starts.first().zip(starts.last());
            let mean = ends.map_or(0.0, |(first, last)| (first + last) / 2.0);
            format!("<{mean:.1} seconds>")
        };
        let patches = times.starts.chunks(frames_per_patch);
        Kind::TimestampedVideo { timestamps: patches.map(timestamp).collect() }
    }

    fn attended(&self, sizes: &TowerSizes, grid: Grid) -> f64 {
        (sizes.depth * grid.height * grid.width) as f64
    }

    fn faults(&self, sizes: &TowerSizes) -> Vec<ConfigFault> {
        let (act, count) = (&self.hidden_act, self.num_position_embeddings);
        let is_square = self.side() * self.side() == count;
        let blocks = &self.deepstack_visual_indexes;
        let there = blocks.iter().all(|block| *block < sizes.depth);
        let distinct = blocks.iter().collect::<std::collections::BTreeSet<_>>().len();
        [
            fault(act == "gelu_pytorch_tanh", "hidden_act", act, "`gelu_pytorch_tanh`"),
            fault(
                is_square && (1..=LARGEST).contains(&count),
                "num_position_embeddings",
                &count,
                "a square number from 1 to 65536",
            ),
            fault(
                there && distinct == blocks.len(),
                "deepstack_visual_indexes",
                &format!("{blocks:?}"),
                "different indices of blocks, below `depth`",
            ),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// Positions along a side of an image, spread over the learned ones with both ends aligned (`align_corners`).
struct Along {
    last: usize,
    count: usize,
}

impl Along {
    fn new(side: usize, count: usize) -> Self {
        Self { last: side - 1, count }
    }

    /// The two learned positions next to that of patch `index`, and the share of the second. In f32 from the nearer end, as
    /// `torch.linspace`.
    fn at(&self, index: usize) -> ([usize; 2], f32) {
        let last = self.last as f32;
        let step = last / (self.count - 1).max(1) as f32;
        let position = match index < self.count / 2 || self.count == 1 {
            true => index as f32 * step,
            false => last - (self.count - 1 - index) as f32 * step,
        };
        let below = (position as usize).min(self.last);
        ([below, (below + 1).min(self.last)], position - below as f32)
    }
}

impl Taps {
    /// Adds a row between two entries along each side.
    fn push(&mut self, side: usize, [(rows, down), (columns, right)]: [([usize; 2], f32); 2]) {
        let corners = [(0, 0), (0, 1), (1, 0), (1, 1)];
        let shares = [[1.0 - down, down], [1.0 - right, right]];
        for (corner, (y, x)) in corners.into_iter().enumerate() {
            self.entries[corner].push(rows[y] * side + columns[x]);
            self.weights[corner].push(shares[0][y] * shares[1][x]);
        }
    }
}

/// Its files of llama.cpp.
pub(super) static GGUF: GgufFormat = GgufFormat {
    name: "Qwen3-VL",
    model_type: "qwen3_vl",
    projector: "qwen3vl_merger",
    decoder: "qwen3vl",
    has_fused_qkv: true,
    fields: gguf_fields,
};

/// The flags of the blocks behind which DeepStack has a merger.
const DEEPSTACK_BLOCKS: &str = "clip.vision.is_deepstack_layers";

/// Whether the activation is GELU, by the tanh approximation.
const USE_GELU: &str = "clip.use_gelu";

fn gguf_fields(file: &GgufFile, depth: u64) -> embodied_r_policy::Result<Value> {
    let wrong = |key: &str, found: &str, want: String| {
        let (key, found) = (key.to_owned(), found.to_owned());
        file.error(GgufFault::Value { key, found, want })
    };
    if file.flag(USE_GELU)? == Some(false) {
        return Err(wrong(USE_GELU, "false", "true".to_owned()));
    }
    let positions = file.shape(gguf_names::POSITIONS).and_then(<[usize]>::first);
    let missing =
        || file.weights_error(WeightFault::Missing { name: gguf_names::POSITIONS.to_owned() });
    let positions = positions.ok_or_else(missing)?;
    let missing = || file.error(GgufFault::Missing { key: DEEPSTACK_BLOCKS.to_owned() });
    let flags = file.flags(DEEPSTACK_BLOCKS)?.ok_or_else(missing)?;
    if flags.len() as u64 != depth {
        let want = format!("an array of {depth} flags, one of each block");
        return Err(wrong(DEEPSTACK_BLOCKS, &flags.len().to_string(), want));
    }
    let blocks: Vec<usize> = (0..flags.len()).filter(|block| flags[*block]).collect();
    let is_unexpected = |name: &&str| {
        let of_merger = name.strip_prefix(gguf_names::DEEPSTACK);
        let block = of_merger.and_then(|rest| rest.split('.').next());
        block.is_some_and(|block| !blocks.iter().any(|known| known.to_string() == block))
    };
    if let Some(name) = file.tensor_names().find(is_unexpected) {
        return Err(file.weights_error(WeightFault::Unexpected { name: name.to_owned() }));
    }
    Ok(json!({ "num_position_embeddings": positions, "deepstack_visual_indexes": blocks }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_at_the_corners_are_the_learned_ones() {
        let sizes = TowerSizes {
            depth: 2,
            hidden_size: 8,
            intermediate_size: 8,
            num_heads: 1,
            in_channels: 3,
            patch_size: 16,
            temporal_patch_size: 2,
            spatial_merge_size: 2,
            out_hidden_size: 8,
        };
        let family = Qwen3Vl { num_position_embeddings: 49, ..Qwen3Vl::default() };
        let rows = family.rows(&sizes, &[Grid { time: 2, height: 4, width: 6 }]);
        assert_eq!(rows.position_ids[..5], [[0, 0, 0], [0, 1, 0], [1, 0, 0], [1, 1, 0], [0, 2, 0]]);
        assert_eq!(rows.frames.len(), 2);
        let taps = rows.taps.unwrap();
        // The last patch of a frame of 4 × 6 is at the last of 7 × 7 positions.
        assert_eq!((taps.entries[0][23], taps.weights[0][23]), (48, 1.0));
        // The second patch of the first row: 6 / 5 positions to the right.
        assert_eq!((taps.entries[0][1], taps.entries[1][1]), (1, 2));
        assert!((taps.weights[1][1] - 0.2).abs() < 1e-6);
        let sums = (0..48).map(|row| taps.weights.iter().map(|of| of[row]).sum::<f32>());
        assert!(sums.into_iter().all(|sum| (sum - 1.0).abs() < 1e-6));
    }
}
