//! Qwen2 and Qwen2.5, and the text decoder of Qwen2.5-VL, which is a Qwen2 decoder with M-RoPE.

use embodied_r_kernels::rope::MropeSections;

use super::{DecoderSizes, Family, GgufArchitecture, ModelType, Published, Source};

pub(super) static FAMILY: Family = Family {
    model_type: ModelType::Qwen2,
    name: "qwen2",
    class: "Qwen2ForCausalLM",
    has_qkv_bias: true,
    has_windows: true,
    sources: &[
        Source { names: &["qwen2"], ..Source::PLAIN },
        Source {
            names: &["qwen2_5_vl", "qwen2_5_vl_text"],
            is_multimodal: true,
            rms_norm_eps: 1e-5,
            rope_theta: 1_000_000.0,
            first_window: 80,
            mrope_section: Some(MropeSections::consecutive([16, 24, 24])),
            ..Source::PLAIN
        },
    ],
    gguf: &[
        GgufArchitecture { name: "qwen2", ..GgufArchitecture::PLAIN },
        // Qwen2-VL and Qwen2.5-VL; llama.cpp stores the vision tower in a separate file.
        GgufArchitecture {
            name: "qwen2vl",
            sections: Some(MropeSections::consecutive),
            ..GgufArchitecture::PLAIN
        },
    ],
    published: &[QWEN2_5],
    ..Family::PLAIN
};

/// Qwen2.5. Qwen2.5-VL has the text decoder of the Qwen2.5 model of the same size.
const QWEN2_5: Published = Published {
    models: &[
        ("Qwen2.5-0.5B", SIZES_0_5B),
        ("Qwen2.5-1.5B", SIZES_1_5B),
        ("Qwen2.5-3B", SIZES_3B),
        ("Qwen2.5-7B", SIZES_7B),
        ("Qwen2.5-14B", SIZES_14B),
        ("Qwen2.5-32B", SIZES_32B),
        ("Qwen2.5-72B", SIZES_72B),
        ("Qwen2.5-VL-3B", SIZES_3B),
        ("Qwen2.5-VL-7B", SIZES_7B),
        ("Qwen2.5-VL-32B", SIZES_32B),
        ("Qwen2.5-VL-72B", SIZES_72B),
    ],
    rope_theta: 1_000_000.0,
    positions: 32_768,
};
const SIZES_0_5B: DecoderSizes = sizes([896, 24, 14, 2, 4_864, 151_936]);
const SIZES_1_5B: DecoderSizes = sizes([1_536, 28, 12, 2, 8_960, 151_936]);
const SIZES_3B: DecoderSizes = sizes([2_048, 36, 16, 2, 11_008, 151_936]);
const SIZES_7B: DecoderSizes = sizes([3_584, 28, 28, 4, 18_944, 152_064]);
const SIZES_14B: DecoderSizes = sizes([5_120, 48, 40, 8, 13_824, 152_064]);
const SIZES_32B: DecoderSizes = sizes([5_120, 64, 40, 8, 27_648, 152_064]);
const SIZES_72B: DecoderSizes = sizes([8_192, 80, 64, 8, 29_568, 152_064]);

const fn sizes(
    [hidden_size, layers, heads, kv_heads, intermediate_size, vocab]: [usize; 6],
) -> DecoderSizes {
    DecoderSizes {
        hidden_size,
        layers,
        heads,
        kv_heads,
        head_dim: None,
        intermediate_size,
        vocab,
        // Exactly the models with tied embeddings have the smaller vocabulary.
        tied: vocab == 151_936,
    }
}
