//! Model presets: published configurations, and small ones for tests.

use embodied_r_policy::{DecoderSizes, ModelConfig, ModelType, Rope, WeightDtype};

use crate::args::bench::Preset;

/// The first of Qwen2.5's special tokens, `<|endoftext|>`.
const QWEN_FIRST_SPECIAL: u32 = 151_643;

/// The first special token of the small models, after the 256 byte tokens.
const SMALL_FIRST_SPECIAL: u32 = 256;

/// The benchmark model, with 38 million parameters.
const SHAPE_E: DecoderSizes = DecoderSizes {
    hidden_size: 512,
    layers: 12,
    heads: 8,
    kv_heads: 2,
    intermediate_size: 1_408,
    vocab: 8_192,
    tied: true,
};

/// A model's configuration, and the first special token of its tokenizer.
pub(super) struct Shape {
    pub(super) config: ModelConfig,
    pub(super) first_special: u32,
}

/// The configuration of a preset.
pub(super) fn shape(preset: Preset) -> Option<Shape> {
    use ModelType::{Llama, Qwen2};
    let tiny = |tied| DecoderSizes {
        hidden_size: 64,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        intermediate_size: 160,
        vocab: 512,
        tied,
    };
    Some(match preset {
        Preset::Qwen2505b => qwen("Qwen2.5-0.5B")?,
        Preset::Qwen2515b => qwen("Qwen2.5-1.5B")?,
        Preset::Qwen253b => qwen("Qwen2.5-3B")?,
        Preset::Qwen257b => qwen("Qwen2.5-7B")?,
        Preset::ShapeE => small(Qwen2, SHAPE_E),
        Preset::TinyQwen2 => small(Qwen2, tiny(false)),
        Preset::TinyQwen2Tied => small(Qwen2, tiny(true)),
        Preset::TinyLlama => small(Llama, tiny(false)),
    })
}

/// A Qwen2.5 model.
fn qwen(name: &str) -> Option<Shape> {
    let config = ModelConfig::published(name)?;
    Some(Shape { config, first_special: QWEN_FIRST_SPECIAL })
}

/// A small model for tests: its weights' standard deviation is large enough for distinct logits.
fn small(model_type: ModelType, sizes: DecoderSizes) -> Shape {
    let first_special = SMALL_FIRST_SPECIAL;
    let config = ModelConfig {
        model_type,
        rope: Rope::plain(10_000.0),
        attention_bias: model_type == ModelType::Qwen2,
        max_position_embeddings: 8_192,
        initializer_range: 0.1,
        dtype: WeightDtype::F32,
        bos_token_id: None,
        // `<|im_end|>`, then `<|endoftext|>`.
        eos_token_ids: vec![first_special + 2, first_special],
        ..ModelConfig::of_sizes(sizes)
    };
    Shape { config, first_special }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_preset_has_a_shape() {
        for preset in Preset::value_variants() {
            let shape = shape(*preset).unwrap();
            assert!(shape.config.eos_token_ids.contains(&shape.first_special), "{preset:?}");
        }
    }
}
