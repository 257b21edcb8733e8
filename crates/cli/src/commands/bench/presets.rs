//! Shapes of models: published ones, and small ones.

use embodied_r_policy::{ModelConfig, ModelType, Rope, WeightDtype};

use crate::args::bench::Preset;

/// The first of Qwen2.5's special tokens, `<|endoftext|>`.
const QWEN_FIRST_SPECIAL: u32 = 151_643;

/// The first special token of the small models, behind the bytes.
const SMALL_FIRST_SPECIAL: u32 = 256;

/// A model's shape, and where its tokenizer's special tokens begin.
pub(super) struct Shape {
    pub(super) config: ModelConfig,
    pub(super) first_special: u32,
}

/// The sizes of a decoder; widths of heads are the hidden size shared out.
struct Sizes {
    hidden: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    ffn: usize,
    vocab: usize,
    embeddings: Embeddings,
}

#[derive(PartialEq, Eq)]
enum Embeddings {
    Tied,
    Apart,
}

/// The shape of that name.
pub(super) fn shape(preset: Preset) -> Option<Shape> {
    use Embeddings::{Apart, Tied};
    use ModelType::{Llama, Qwen2};
    let sizes = |hidden, layers, heads, kv_heads, ffn, vocab, embeddings| Sizes {
        hidden,
        layers,
        heads,
        kv_heads,
        ffn,
        vocab,
        embeddings,
    };
    Some(match preset {
        Preset::Qwen2505b => qwen("Qwen2.5-0.5B")?,
        Preset::Qwen2515b => qwen("Qwen2.5-1.5B")?,
        Preset::Qwen253b => qwen("Qwen2.5-3B")?,
        Preset::Qwen257b => qwen("Qwen2.5-7B")?,
        Preset::ShapeE => small(Qwen2, sizes(512, 12, 8, 2, 1_408, 8_192, Tied)),
        Preset::TinyQwen2 => small(Qwen2, sizes(64, 2, 4, 2, 160, 512, Apart)),
        Preset::TinyQwen2Tied => small(Qwen2, sizes(64, 2, 4, 2, 160, 512, Tied)),
        Preset::TinyLlama => small(Llama, sizes(64, 2, 4, 2, 160, 512, Apart)),
    })
}

/// A Qwen2.5.
fn qwen(name: &str) -> Option<Shape> {
    let config = ModelConfig::published(name)?;
    Some(Shape { config, first_special: QWEN_FIRST_SPECIAL })
}

/// A model made to be tried out: deviations large enough for logits that differ.
fn small(model_type: ModelType, sizes: Sizes) -> Shape {
    let first_special = SMALL_FIRST_SPECIAL;
    Shape { config: config(model_type, &sizes, first_special), first_special }
}

fn config(model_type: ModelType, sizes: &Sizes, first_special: u32) -> ModelConfig {
    ModelConfig {
        model_type,
        vocab_size: sizes.vocab,
        hidden_size: sizes.hidden,
        intermediate_size: sizes.ffn,
        num_hidden_layers: sizes.layers,
        num_attention_heads: sizes.heads,
        num_key_value_heads: sizes.kv_heads,
        head_dim: sizes.hidden / sizes.heads,
        rms_norm_eps: 1e-6,
        rope: Rope::plain(10_000.0),
        sliding_window: None,
        tie_word_embeddings: sizes.embeddings == Embeddings::Tied,
        attention_bias: model_type == ModelType::Qwen2,
        max_position_embeddings: 8_192,
        initializer_range: 0.1,
        dtype: WeightDtype::F32,
        bos_token_id: None,
        // The end of a turn, then that of a text.
        eos_token_ids: vec![first_special + 2, first_special],
    }
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
