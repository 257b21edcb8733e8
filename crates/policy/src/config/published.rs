//! Built-in configurations of the Qwen2.5 models, as in their `config.json` on the hub.

use super::{ModelConfig, ModelType, Rope, WeightDtype};

/// The sizes of a Qwen2 decoder; the head dimension is the hidden size divided by the heads.
#[derive(Debug, Clone, Copy)]
pub struct DecoderSizes {
    /// Hidden size of the residual stream.
    pub hidden_size: usize,
    /// Layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Hidden size of the MLP.
    pub intermediate_size: usize,
    /// Vocabulary size.
    pub vocab: usize,
    /// Whether the LM head shares the embedding matrix.
    pub tied: bool,
}

/// `<|endoftext|>`, the first special token of Qwen2.5, and `<|im_end|>`.
const END_OF_TEXT: u32 = 151_643;
const END_OF_TURN: u32 = 151_645;

/// The names that [`ModelConfig::published`] accepts, without the organization. Qwen2.5-VL has the text decoder of the
/// Qwen2.5 model of the same size.
pub const PUBLISHED: [&str; 11] = [
    "Qwen2.5-0.5B",
    "Qwen2.5-1.5B",
    "Qwen2.5-3B",
    "Qwen2.5-7B",
    "Qwen2.5-14B",
    "Qwen2.5-32B",
    "Qwen2.5-72B",
    "Qwen2.5-VL-3B",
    "Qwen2.5-VL-7B",
    "Qwen2.5-VL-32B",
    "Qwen2.5-VL-72B",
];

impl ModelConfig {
    /// The configuration of the (text) decoder published on the hub as `name`, such as `Qwen/Qwen2.5-VL-3B-Instruct`,
    /// for estimates and for models with random weights. The organization and `-Instruct` are optional.
    pub fn published(name: &str) -> Option<Self> {
        let name = name.rsplit('/').next()?.to_ascii_lowercase();
        let name = name.strip_suffix("-instruct").unwrap_or(&name);
        let known = PUBLISHED.iter().find(|known| known.eq_ignore_ascii_case(name))?;
        let size = known.rsplit('-').next()?;
        Some(Self::of_sizes(sizes(size)?))
    }

    /// The configuration of a Qwen2.5 with these sizes.
    pub fn of_sizes(sizes: DecoderSizes) -> Self {
        Self {
            model_type: ModelType::Qwen2,
            vocab_size: sizes.vocab,
            hidden_size: sizes.hidden_size,
            intermediate_size: sizes.intermediate_size,
            num_hidden_layers: sizes.layers,
            num_attention_heads: sizes.heads,
            num_key_value_heads: sizes.kv_heads,
            head_dim: sizes.hidden_size / sizes.heads,
            rms_norm_eps: 1e-6,
            rope: Rope::plain(1_000_000.0),
            sliding_window: None,
            tie_word_embeddings: sizes.tied,
            attention_bias: true,
            max_position_embeddings: 32_768,
            initializer_range: 0.02,
            dtype: WeightDtype::Bf16,
            bos_token_id: Some(END_OF_TEXT),
            eos_token_ids: vec![END_OF_TURN, END_OF_TEXT],
        }
    }
}

fn sizes(name: &str) -> Option<DecoderSizes> {
    let sizes = |[hidden_size, layers, heads, kv_heads, intermediate_size, vocab]: [usize; 6]| {
        DecoderSizes {
            hidden_size,
            layers,
            heads,
            kv_heads,
            intermediate_size,
            vocab,
            // Exactly the models with tied embeddings have the smaller vocabulary.
            tied: vocab == 151_936,
        }
    };
    Some(match name {
        "0.5B" => sizes([896, 24, 14, 2, 4_864, 151_936]),
        "1.5B" => sizes([1_536, 28, 12, 2, 8_960, 151_936]),
        "3B" => sizes([2_048, 36, 16, 2, 11_008, 151_936]),
        "7B" => sizes([3_584, 28, 28, 4, 18_944, 152_064]),
        "14B" => sizes([5_120, 48, 40, 8, 13_824, 152_064]),
        "32B" => sizes([5_120, 64, 40, 8, 27_648, 152_064]),
        "72B" => sizes([8_192, 80, 64, 8, 29_568, 152_064]),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameter_counts_match_the_model_cards() {
        // By hand for 3B: 151,936 · 2,048 + 36 · (2 · 2,048 · (2,048 + 256) + 2,560 + 3 · 2,048 · 11,008 + 4,096) +
        // 2,048.
        for (name, parameters) in [
            ("Qwen2.5-0.5B", 494_032_768),
            ("Qwen/Qwen2.5-1.5B-Instruct", 1_543_714_304),
            ("Qwen/Qwen2.5-VL-3B-Instruct", 3_085_938_688),
            ("qwen2.5-vl-7b-instruct", 7_615_616_512),
            ("Qwen2.5-14B", 14_770_033_664),
            ("Qwen/Qwen2.5-VL-32B-Instruct", 32_763_876_352),
            ("Qwen/Qwen2.5-72B-Instruct", 72_706_203_648),
        ] {
            let config = ModelConfig::published(name).unwrap();
            assert_eq!(config.parameter_count(), parameters, "{name}");
            assert_eq!(config.check(), Ok(()), "{name}");
        }
    }

    #[test]
    fn only_listed_names_are_accepted() {
        assert!(PUBLISHED.iter().all(|name| ModelConfig::published(name).is_some()));
        for name in ["Qwen2.5-VL-14B", "Qwen/Qwen3-4B", "7B", "", "Qwen2.5-7B-Instruct-AWQ"] {
            assert_eq!(ModelConfig::published(name), None, "{name}");
        }
    }
}
