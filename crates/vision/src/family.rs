//! The families of vision-language models: what their towers have of their own.

mod qwen2_5_vl;
mod qwen3_vl;

use embodied_r_kernels::attention::GroupSpan;
use embodied_r_policy::GgufFile;
use embodied_r_policy::config::ConfigFault;
use serde_json::Value;

use crate::frames::FrameTimes;
use crate::grid::Grid;
use crate::image_layout::Kind;
use crate::layout::TowerLayout;
use crate::processor::{ProcessorFiles, VideoRules};
use crate::sizes::TowerSizes;
use qwen2_5_vl::Qwen25Vl;
use qwen3_vl::Qwen3Vl;

/// What a family has of its own.
pub(crate) trait VisionFamily {
    /// The files of the processors of its published models.
    fn processor_files(&self) -> ProcessorFiles;

    /// The `config.json` of a model with the configuration files of this decoder and this tower, without token ids.
    fn model_config(&self, decoder: Value, vision: Value) -> Value;

    /// How the names of the decoder's and of the tower's tensors begin in its published checkpoints.
    fn prefixes(&self) -> [&'static str; 2];

    /// Side of a patch if the configuration does not say.
    fn default_patch_size(&self) -> usize;

    /// What its tower is made of.
    fn layout(&self, sizes: &TowerSizes) -> TowerLayout;

    /// The order of patches in the tower, their positions, and which attend to each other.
    fn rows(&self, sizes: &TowerSizes, grids: &[Grid]) -> TowerRows;

    /// Whether a block has full attention over each frame.
    fn is_full(&self, block: usize) -> bool;

    /// What its video processor does.
    fn video_rules(&self) -> VideoRules;

    /// A video in a prompt, whose temporal patches have `frames_per_patch` frames.
    fn video(&self, times: &FrameTimes, frames_per_patch: usize) -> Kind;

    /// Patches of a frame that a patch attends to, in all blocks together.
    fn attended(&self, sizes: &TowerSizes, grid: Grid) -> f64;

    /// Wrong fields of the configuration.
    fn faults(&self, sizes: &TowerSizes) -> Vec<ConfigFault>;
}

/// A family, with its fields of the configuration.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Family {
    Qwen25Vl(Qwen25Vl),
    Qwen3Vl(Qwen3Vl),
}

impl Default for Family {
    fn default() -> Self {
        Self::Qwen25Vl(Qwen25Vl::default())
    }
}

impl Family {
    /// The family of a `model_type`, and its fields of `vision_config`. A configuration without a type, or beside a decoder
    /// of another, is Qwen2.5-VL's.
    ///
    /// # Errors
    /// A field has the wrong type.
    pub(crate) fn of(model_type: &str, vision: &Value) -> serde_json::Result<Self> {
        // `transformers` 5 calls the tower's type as the model's with `_vision`.
        Ok(match model_type.strip_suffix("_vision").unwrap_or(model_type) {
            "qwen3_vl" => Self::Qwen3Vl(serde_json::from_value(vision.clone())?),
            _ => Self::Qwen25Vl(serde_json::from_value(vision.clone())?),
        })
    }

    /// All families, with the defaults of their fields.
    pub(crate) fn all() -> [Self; 2] {
        [Self::Qwen25Vl(Qwen25Vl::default()), Self::Qwen3Vl(Qwen3Vl::default())]
    }

    pub(crate) fn get(&self) -> &dyn VisionFamily {
        match self {
            Self::Qwen25Vl(family) => family,
            Self::Qwen3Vl(family) => family,
        }
    }
}

/// What the GGUF files of a family have of their own: the decoder's, and the vision tower's (`mmproj`). The names and
/// layouts are those of llama.cpp's converter.
pub(crate) struct GgufFormat {
    /// The family in messages.
    pub(crate) name: &'static str,
    /// `model_type` in `config.json`.
    pub(crate) model_type: &'static str,
    /// The projector type of its `mmproj` files.
    pub(crate) projector: &'static str,
    /// `general.architecture` of its decoders.
    pub(crate) decoder: &'static str,
    /// Whether the query, key and value projections of a block are one matrix.
    pub(crate) has_fused_qkv: bool,
    /// The family's fields of `vision_config`, of an `mmproj` file with this number of blocks.
    pub(crate) fields: fn(&GgufFile, u64) -> embodied_r_policy::Result<Value>,
}

impl GgufFormat {
    /// All families, in the order of messages.
    pub(crate) const ALL: [&Self; 2] = [&qwen2_5_vl::GGUF, &qwen3_vl::GGUF];
}

/// The patches of images and videos in the tower's order.
pub(crate) struct TowerRows {
    /// The patch in each row.
    pub(crate) patches: Vec<usize>,
    /// The row of each token, counted in tokens: the inverse permutation.
    pub(crate) tokens: Vec<usize>,
    /// The position ids (height, width, 0) of the patch in each row.
    pub(crate) position_ids: Vec<[usize; 3]>,
    /// Rows that attend to each other in a block without full attention.
    pub(crate) windows: Vec<GroupSpan>,
    /// Rows of each frame.
    pub(crate) frames: Vec<GroupSpan>,
    /// What is interpolated of the learned positions for the patch in each row, if there are any.
    pub(crate) taps: Option<Taps>,
}

/// Weighted sums of entries of a table, four for each row.
#[derive(Debug, Default)]
pub(crate) struct Taps {
    /// By corner: the entry of each row.
    pub(crate) entries: [Vec<usize>; 4],
    /// By corner: the weight of each row.
    pub(crate) weights: [Vec<f32>; 4],
}

/// The rows `rows` attend to each other.
fn span(rows: std::ops::Range<usize>) -> GroupSpan {
    GroupSpan { prompt: rows, completions: Vec::new(), kv_only: 0 }
}

/// A wrong field of `vision_config`, unless the condition holds.
pub(crate) fn fault(
    holds: bool,
    field: &str,
    found: &dyn ToString,
    want: &'static str,
) -> Option<ConfigFault> {
    let wrong = || ConfigFault::Wrong {
        field: format!("vision_config.{field}"),
        found: found.to_string(),
        want,
    };
    (!holds).then(wrong)
}

/// Larger sizes mean that the file is corrupt.
pub(crate) const LARGEST: usize = 1 << 16;
