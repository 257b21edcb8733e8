//! Built-in configurations of models on the hub, as in their `config.json`.

use super::family::{DecoderSizes, Family};
use super::{ModelConfig, ModelType, Rope, WeightDtype};

/// `<|endoftext|>`, the first special token of Qwen2.5, and `<|im_end|>`.
const END_OF_TEXT: u32 = 151_643;
const END_OF_TURN: u32 = 151_645;

/// The names that [`ModelConfig::published`] accepts, without the organization.
pub fn published_names() -> impl Iterator<Item = &'static str> {
    let published = Family::all().flat_map(|family| family.published);
    published.flat_map(|published| published.models).map(|(name, _)| *name)
}

impl ModelConfig {
    /// The configuration of the (text) decoder published on the hub as `name`, such as `Qwen/Qwen2.5-VL-3B-Instruct`,
    /// for estimates and for models with random weights. The organization and `-Instruct` are optional.
    pub fn published(name: &str) -> Option<Self> {
        let name = name.rsplit('/').next()?.to_ascii_lowercase();
        let name = name.strip_suffix("-instruct").unwrap_or(&name);
        let published =
            |family: &'static Family| family.published.iter().map(move |it| (family, it));
        Family::all().flat_map(published).find_map(|(family, published)| {
            let is_named = |(known, _): &&(&str, _)| known.eq_ignore_ascii_case(name);
            let (_, sizes) = published.models.iter().find(is_named)?;
            Some(Self {
                rope: Rope::plain(published.rope_theta),
                max_position_embeddings: published.positions,
                ..Self::of_sizes(family.model_type, *sizes)
            })
        })
    }

    /// A configuration of the family `model_type` with these sizes.
    pub fn of_sizes(model_type: ModelType, sizes: DecoderSizes) -> Self {
        Self {
            model_type,
            vocab_size: sizes.vocab,
            hidden_size: sizes.hidden_size,
            intermediate_size: sizes.intermediate_size,
            num_hidden_layers: sizes.layers,
            num_attention_heads: sizes.heads,
            num_key_value_heads: sizes.kv_heads,
            head_dim: sizes.head_dim.unwrap_or(sizes.hidden_size / sizes.heads),
            rms_norm_eps: 1e-6,
            rope: Rope::plain(1_000_000.0),
            sliding_window: None,
            tie_word_embeddings: sizes.tied,
            max_position_embeddings: 32_768,
            initializer_range: 0.02,
            dtype: WeightDtype::Bf16,
            bos_token_id: Some(END_OF_TEXT),
            eos_token_ids: vec![END_OF_TURN, END_OF_TEXT],
            placeholder_token_ids: Vec::new(),
        }
    }
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
            ("Qwen/Qwen3-0.6B", 596_049_920),
            ("Qwen3-1.7B", 1_720_574_976),
            ("Qwen3-4B", 4_022_468_096),
            ("Qwen3-8B", 8_190_735_360),
            ("Qwen/Qwen3-VL-2B-Instruct", 1_720_574_976),
            ("Qwen3-VL-8B", 8_190_735_360),
        ] {
            let config = ModelConfig::published(name).unwrap();
            assert_eq!(config.parameter_count(), parameters, "{name}");
            assert_eq!(config.check(), Ok(()), "{name}");
        }
    }

    #[test]
    fn only_listed_names_are_accepted() {
        assert!(published_names().all(|name| ModelConfig::published(name).is_some()));
        for name in ["Qwen2.5-VL-14B", "Qwen/Qwen3-30B-A3B", "7B", "", "Qwen2.5-7B-Instruct-AWQ"] {
            assert_eq!(ModelConfig::published(name), None, "{name}");
        }
    }
}
