//! Llama, and models of its architecture without biases.

use super::{Family, GgufArchitecture, ModelType, Source};

pub(super) static FAMILY: Family = Family {
    model_type: ModelType::Llama,
    name: "llama",
    class: "LlamaForCausalLM",
    has_qkv_bias: false,
    has_windows: false,
    false_flags: &["attention_bias", "mlp_bias"],
    sources: &[Source {
        names: &["llama"],
        is_multimodal: false,
        positions: 2_048,
        rms_norm_eps: 1e-6,
        rope_theta: 10_000.0,
        first_window: usize::MAX,
        mrope_section: None,
    }],
    gguf: &[GgufArchitecture { name: "llama", is_interleaved: true, has_sections: false }],
    published: None,
};
