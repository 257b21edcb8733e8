//! Shapes that are known without a file: those of Qwen2.5 as its `config.json` files on the hub give them.

use super::{ModelConfig, ModelType, Rope, WeightDtype};

/// The sizes of a Qwen2 decoder; widths of heads are the hidden size shared out.
#[derive(Debug, Clone, Copy)]
pub struct DecoderSizes {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Inner width of the feed-forward part.
    pub inner: usize,
    /// Tokens that are known.
    pub vocab: usize,
    /// Whether the LM head is the embedding.
    pub tied: bool,
}

/// `<|endoftext|>`, the first of Qwen2.5's special tokens, and `<|im_end|>`.
const END_OF_TEXT: u32 = 151_643;
const END_OF_TURN: u32 = 151_645;

/// The names that [`ModelConfig::published`] knows, without the organisation. Text decoders of the same size have the
/// same shape in Qwen2.5-VL.
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
    /// The shape of the (text) decoder that the hub has under `name`, such as `Qwen/Qwen2.5-VL-3B-Instruct`: for
    /// estimates and for models with random weights. The organisation and `-Instruct` may be left out.
    pub fn published(name: &str) -> Option<Self> {
        let name = name.rsplit('/').next()?.to_ascii_lowercase();
        let name = name.strip_suffix("-instruct").unwrap_or(&name);
        let known = PUBLISHED.iter().find(|known| known.eq_ignore_ascii_case(name))?;
        let size = known.rsplit('-').next()?;
        Some(Self::of_sizes(sizes(size)?))
    }

    /// The shape of a Qwen2.5 with these sizes.
    pub fn of_sizes(sizes: DecoderSizes) -> Self {
        Self {
            model_type: ModelType::Qwen2,
            vocab_size: sizes.vocab,
            hidden_size: sizes.hidden,
            intermediate_size: sizes.inner,
            num_hidden_layers: sizes.layers,
            num_attention_heads: sizes.heads,
            num_key_value_heads: sizes.kv_heads,
            head_dim: sizes.hidden / sizes.heads,
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
    let sizes = |[hidden, layers, heads, kv_heads, inner, vocab]: [usize; 6]| DecoderSizes {
        hidden,
        layers,
        heads,
        kv_heads,
        inner,
        vocab,
        // The smaller vocabulary is that of the models with one matrix.
        tied: vocab == 151_936,
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
    fn the_shapes_have_the_numbers_of_parameters_that_the_model_cards_count() {
        // By hand for 3B: 151,936 · 2,048 + 36 · (2 · 2,048 · (2,048 + 256) + 2,560 + 3 · 2,048 · 11,008 + 4,096) + 2,048.
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
    fn every_name_of_the_list_is_known_and_no_other() {
        assert!(PUBLISHED.iter().all(|name| ModelConfig::published(name).is_some()));
        for name in ["Qwen2.5-VL-14B", "Qwen/Qwen3-4B", "7B", "", "Qwen2.5-7B-Instruct-AWQ"] {
            assert_eq!(ModelConfig::published(name), None, "{name}");
        }
    }
}
