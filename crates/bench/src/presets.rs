//! Model presets: published configurations, and small ones for tests.

use serde_json::{Value, json};

use embodied_r_policy::{DecoderSizes, ModelConfig, ModelType, MropeSections, Rope, WeightDtype};
use embodied_r_vision::VisionConfig;

/// A model architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// Qwen2.5-0.5B.
    Qwen2505b,
    /// Qwen2.5-1.5B.
    Qwen2515b,
    /// Qwen2.5-3B.
    Qwen253b,
    /// Qwen2.5-7B.
    Qwen257b,
    /// Qwen3-0.6B.
    Qwen306b,
    /// The benchmark model.
    ShapeE,
    /// The benchmark model with Qwen3's architecture.
    ShapeE3,
    /// The benchmark model with a vision encoder.
    ShapeV,
    /// The benchmark model with a vision encoder and Qwen3-VL's architecture.
    ShapeV3,
    /// Qwen3-VL-2B.
    Qwen3Vl2b,
    /// The vision encoder of Qwen2.5-VL-3B with a small decoder.
    Qwen25Vl3bTower,
    /// A small Qwen2 model with as many layers as Qwen2.5-3B.
    DeepQwen2,
    /// As [`Self::DeepQwen2`], with the Qwen3 architecture.
    DeepQwen3,
    /// A tiny Qwen2 model.
    TinyQwen2,
    /// A tiny Qwen2 model with tied embeddings.
    TinyQwen2Tied,
    /// A tiny Qwen3 model.
    TinyQwen3,
    /// A tiny Llama model.
    TinyLlama,
}

/// The first special token of Qwen2.5 and Qwen3, `<|endoftext|>`.
const QWEN_FIRST_SPECIAL: u32 = 151_643;

/// The first special token of the small models, after the 256 byte tokens.
const SMALL_FIRST_SPECIAL: u32 = 256;

/// The benchmark model, with 38 million parameters.
const SHAPE_E: DecoderSizes = DecoderSizes {
    hidden_size: 512,
    layers: 12,
    heads: 8,
    kv_heads: 2,
    head_dim: None,
    intermediate_size: 1_408,
    vocab: 8_192,
    tied: true,
};

/// The vision encoder of the benchmark model.
const SMALL_TOWER: TowerSizes = TowerSizes {
    depth: 8,
    hidden_size: 320,
    heads: 5,
    intermediate_size: 856,
    full_attention_every: 4,
};

/// The vision encoder of Qwen2.5-VL-3B.
const QWEN25_VL_3B_TOWER: TowerSizes = TowerSizes {
    depth: 32,
    hidden_size: 1_280,
    heads: 16,
    intermediate_size: 3_420,
    full_attention_every: 8,
};

/// A model's configuration, and the first special token of its tokenizer.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub(crate) config: ModelConfig,
    pub(crate) first_special: u32,
    /// The `vision_config` of a vision-language model.
    pub(crate) vision: Option<Value>,
}

impl Preset {
    /// All architectures.
    pub const ALL: [Self; 17] = [
        Self::Qwen2505b,
        Self::Qwen2515b,
        Self::Qwen253b,
        Self::Qwen257b,
        Self::Qwen306b,
        Self::ShapeE,
        Self::ShapeE3,
        Self::ShapeV,
        Self::ShapeV3,
        Self::Qwen3Vl2b,
        Self::Qwen25Vl3bTower,
        Self::DeepQwen2,
        Self::DeepQwen3,
        Self::TinyQwen2,
        Self::TinyQwen2Tied,
        Self::TinyQwen3,
        Self::TinyLlama,
    ];

    /// The name on a command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Qwen2505b => "qwen2.5-0.5b",
            Self::Qwen2515b => "qwen2.5-1.5b",
            Self::Qwen253b => "qwen2.5-3b",
            Self::Qwen257b => "qwen2.5-7b",
            Self::Qwen306b => "qwen3-0.6b",
            Self::ShapeE => "shape-e",
            Self::ShapeE3 => "shape-e3",
            Self::ShapeV => "shape-v",
            Self::ShapeV3 => "shape-v3",
            Self::Qwen3Vl2b => "qwen3-vl-2b",
            Self::Qwen25Vl3bTower => "qwen2.5-vl-3b-tower",
            Self::DeepQwen2 => "deep-qwen2",
            Self::DeepQwen3 => "deep-qwen3",
            Self::TinyQwen2 => "tiny-qwen2",
            Self::TinyQwen2Tied => "tiny-qwen2-tied",
            Self::TinyQwen3 => "tiny-qwen3",
            Self::TinyLlama => "tiny-llama",
        }
    }

    /// What it is, in a phrase.
    pub const fn description(self) -> &'static str {
        match self {
            Self::Qwen2505b => "Qwen2.5-0.5B",
            Self::Qwen2515b => "Qwen2.5-1.5B",
            Self::Qwen253b => "Qwen2.5-3B, also the decoder of Qwen2.5-VL-3B",
            Self::Qwen257b => "Qwen2.5-7B",
            Self::Qwen306b => "Qwen3-0.6B",
            Self::ShapeE => "12 layers, hidden size 512; runs in seconds on a CPU",
            Self::ShapeE3 => "As shape-e, with the Qwen3 architecture",
            Self::ShapeV => {
                "As shape-e, with the vision encoder of Qwen2.5-VL: 8 blocks, hidden size 320"
            }
            Self::ShapeV3 => {
                "As shape-e3, with the vision encoder of Qwen3-VL: 8 blocks, hidden size 320"
            }
            Self::Qwen3Vl2b => "Qwen3-VL-2B",
            Self::Qwen25Vl3bTower => "Vision encoder of Qwen2.5-VL-3B, with a decoder of 2 layers",
            Self::DeepQwen2 => "36 layers, hidden size 128",
            Self::DeepQwen3 => "As deep-qwen2, with the Qwen3 architecture and heads of 64",
            Self::TinyQwen2 => "2 layers, hidden size 64",
            Self::TinyQwen2Tied => "As tiny-qwen2, with tied embeddings",
            Self::TinyQwen3 => "As tiny-qwen2, with the Qwen3 architecture",
            Self::TinyLlama => "As tiny-qwen2, with the Llama architecture",
        }
    }

    /// The configuration; `None` if a published model has none.
    pub(crate) fn shape(self) -> Option<Shape> {
        use ModelType::{Llama, Qwen2, Qwen3};
        let tiny = |tied| DecoderSizes {
            hidden_size: 64,
            layers: 2,
            heads: 4,
            kv_heads: 2,
            head_dim: None,
            intermediate_size: 160,
            vocab: 512,
            tied,
        };
        Some(match self {
            Self::Qwen2505b => qwen("Qwen2.5-0.5B")?,
            Self::Qwen2515b => qwen("Qwen2.5-1.5B")?,
            Self::Qwen253b => qwen("Qwen2.5-3B")?,
            Self::Qwen257b => qwen("Qwen2.5-7B")?,
            Self::Qwen306b => qwen("Qwen3-0.6B")?,
            Self::ShapeE => small(Qwen2, SHAPE_E),
            Self::ShapeE3 => small(Qwen3, SHAPE_E),
            Self::ShapeV => seeing(SHAPE_E, SMALL_TOWER),
            Self::ShapeV3 => {
                let Shape { config, first_special, .. } = small(Qwen3, SHAPE_E);
                let config = ModelConfig { initializer_range: 0.02, ..config };
                let tower = json!({
                    "model_type": "qwen3_vl", "depth": 8, "hidden_size": 320, "num_heads": 5,
                    "intermediate_size": 856, "out_hidden_size": config.hidden_size, "patch_size": 16,
                    "spatial_merge_size": 2, "temporal_patch_size": 2, "in_channels": 3,
                    "num_position_embeddings": 2_304, "deepstack_visual_indexes": [1, 3, 5],
                    "hidden_act": "gelu_pytorch_tanh",
                });
                seeing3(config, first_special, tower)
            }
            Self::Qwen3Vl2b => {
                let name = "Qwen3-VL-2B";
                let tower = VisionConfig::published_fields(name)?;
                seeing3(ModelConfig::published(name)?, QWEN_FIRST_SPECIAL, tower)
            }
            Self::Qwen25Vl3bTower => {
                let decoder = DecoderSizes { hidden_size: 2_048, layers: 2, heads: 16, ..SHAPE_E };
                let shape = seeing(decoder, QWEN25_VL_3B_TOWER);
                Shape { config: ModelConfig { dtype: WeightDtype::Bf16, ..shape.config }, ..shape }
            }
            Self::DeepQwen2 => deep(Qwen2, tiny(true)),
            Self::DeepQwen3 => deep(Qwen3, DecoderSizes { head_dim: Some(64), ..tiny(true) }),
            Self::TinyQwen2 => small(Qwen2, tiny(false)),
            Self::TinyQwen2Tied => small(Qwen2, tiny(true)),
            Self::TinyQwen3 => small(Qwen3, tiny(false)),
            Self::TinyLlama => small(Llama, tiny(false)),
        })
    }
}

/// A published model.
fn qwen(name: &str) -> Option<Shape> {
    let config = ModelConfig::published(name)?;
    Some(Shape { config, first_special: QWEN_FIRST_SPECIAL, vision: None })
}

/// A small model for tests: its weights' standard deviation is large enough for distinct logits.
fn small(model_type: ModelType, sizes: DecoderSizes) -> Shape {
    let first_special = SMALL_FIRST_SPECIAL;
    let config = ModelConfig {
        model_type,
        rope: Rope::plain(10_000.0),
        max_position_embeddings: 8_192,
        initializer_range: 0.1,
        dtype: WeightDtype::F32,
        bos_token_id: None,
        // `<|im_end|>`, then `<|endoftext|>`.
        eos_token_ids: vec![first_special + 2, first_special],
        placeholder_token_ids: Vec::new(),
        ..ModelConfig::of_sizes(model_type, sizes)
    };
    Shape { config, first_special, vision: None }
}

/// As [`small`], with many layers.
fn deep(model_type: ModelType, sizes: DecoderSizes) -> Shape {
    let sizes = DecoderSizes { hidden_size: 128, layers: 36, heads: 4, ..sizes };
    let Shape { config, first_special, vision } = small(model_type, sizes);
    let config = ModelConfig { initializer_range: 0.05, ..config };
    Shape { config, first_special, vision }
}

/// Sizes of a vision tower.
#[derive(Clone, Copy)]
struct TowerSizes {
    depth: usize,
    hidden_size: usize,
    heads: usize,
    intermediate_size: usize,
    /// The distance between the blocks with full attention.
    full_attention_every: usize,
}

/// A small vision-language model of the architecture of Qwen2.5-VL.
fn seeing(sizes: DecoderSizes, tower: TowerSizes) -> Shape {
    let Shape { config, first_special, .. } = small(ModelType::Qwen2, sizes);
    // A quarter of a head's pairs for the time, and three eighths each for height and width, as Qwen2.5-VL.
    let pairs = config.head_dim / 2;
    let (time, height) = (pairs / 4, pairs * 3 / 8);
    let section = MropeSections::consecutive([time, height, pairs - time - height]);
    let rope = Rope { mrope_section: Some(section), ..Rope::plain(1e6) };
    let config = ModelConfig { rope, initializer_range: 0.02, ..config };
    let TowerSizes { depth, hidden_size, heads, intermediate_size, full_attention_every } = tower;
    let full: Vec<usize> =
        (1..=depth / full_attention_every).map(|n| n * full_attention_every - 1).collect();
    let vision = json!({
        "depth": depth, "hidden_size": hidden_size, "num_heads": heads, "intermediate_size": intermediate_size,
        "hidden_act": "silu", "out_hidden_size": config.hidden_size, "patch_size": 14, "spatial_merge_size": 2,
        "spatial_patch_size": 14, "temporal_patch_size": 2, "window_size": 112, "tokens_per_second": 2,
        "in_channels": 3, "fullatt_block_indexes": full,
    });
    Shape { config, first_special, vision: Some(vision) }
}

/// A model of the architecture of Qwen3-VL: with the frequencies of positions interleaved in its shares, 24, 20 and 20 of
/// 64 pairs for time, height and width.
fn seeing3(config: ModelConfig, first_special: u32, vision: Value) -> Shape {
    let pairs = config.head_dim / 2;
    let height = pairs * 20 / 64;
    let section = MropeSections::interleaved([pairs - 2 * height, height, height]);
    let rope = Rope { mrope_section: Some(section), ..config.rope.clone() };
    Shape { config: ModelConfig { rope, ..config }, first_special, vision: Some(vision) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_has_a_shape() {
        for preset in Preset::ALL {
            let shape = preset.shape().unwrap();
            assert!(shape.config.eos_token_ids.contains(&shape.first_special), "{preset:?}");
        }
    }

    #[test]
    fn the_tower_of_qwen25_vl_3b_is_the_published_one() {
        let vision = Preset::Qwen25Vl3bTower.shape().unwrap().vision.unwrap();
        let tower: VisionConfig = serde_json::from_value(vision).unwrap();
        assert_eq!(Some(tower), VisionConfig::published("Qwen2.5-VL-3B"));
    }
}
