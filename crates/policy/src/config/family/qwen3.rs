//! Qwen3, without experts, and the text decoder of Qwen3-VL, which is a Qwen3 decoder with interleaved M-RoPE.

use embodied_r_kernels::rope::MropeSections;

use super::{DecoderSizes, Family, GgufArchitecture, ModelType, Published, Source};

/// The head dimension of all models of the family, and its default.
const HEAD_DIM: usize = 128;

pub(super) static FAMILY: Family = Family {
    model_type: ModelType::Qwen3,
    name: "qwen3",
    class: "Qwen3ForCausalLM",
    has_qk_norm: true,
    has_windows: true,
    false_flags: &["attention_bias"],
    sources: &[
        Source { names: &["qwen3"], head_dim: Some(HEAD_DIM), ..Source::PLAIN },
        Source {
            names: &["qwen3_vl", "qwen3_vl_text"],
            is_multimodal: true,
            positions: 128_000,
            rope_theta: 500_000.0,
            head_dim: Some(HEAD_DIM),
            mrope_section: Some(MropeSections::interleaved([24, 20, 20])),
            ..Source::PLAIN
        },
    ],
    gguf: &[
        GgufArchitecture { name: "qwen3", ..GgufArchitecture::PLAIN },
        // Qwen3-VL; llama.cpp stores the vision tower in a separate file.
        GgufArchitecture {
            name: "qwen3vl",
            sections: Some(MropeSections::interleaved),
            ..GgufArchitecture::PLAIN
        },
    ],
    published: &[
        Published {
            models: &[
                ("Qwen3-0.6B", sizes([1_024, 28, 16, 3_072], true)),
                ("Qwen3-1.7B", SIZES_1_7B),
                ("Qwen3-4B", SIZES_4B),
                ("Qwen3-8B", SIZES_8B),
            ],
            rope_theta: 1_000_000.0,
            positions: 40_960,
        },
        // Qwen3-VL-2B has the sizes of Qwen3-1.7B.
        Published {
            models: &[
                ("Qwen3-VL-2B", SIZES_1_7B),
                ("Qwen3-VL-4B", SIZES_4B),
                ("Qwen3-VL-8B", SIZES_8B),
            ],
            rope_theta: 5_000_000.0,
            positions: 262_144,
        },
    ],
    ..Family::PLAIN
};

const SIZES_1_7B: DecoderSizes = sizes([2_048, 28, 16, 6_144], true);
const SIZES_4B: DecoderSizes = sizes([2_560, 36, 32, 9_728], true);
const SIZES_8B: DecoderSizes = sizes([4_096, 36, 32, 12_288], false);

const fn sizes(
    [hidden_size, layers, heads, intermediate_size]: [usize; 4],
    tied: bool,
) -> DecoderSizes {
    DecoderSizes {
        hidden_size,
        layers,
        heads,
        kv_heads: 8,
        head_dim: Some(HEAD_DIM),
        intermediate_size,
        vocab: 151_936,
        tied,
    }
}
