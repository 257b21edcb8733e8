//! Llama, and models of its architecture without biases.

use super::{Family, GgufArchitecture, ModelType, Source};

pub(super) static FAMILY: Family = Family {
    model_type: ModelType::Llama,
    name: "llama",
    class: "LlamaForCausalLM",
    false_flags: &["attention_bias", "mlp_bias"],
    sources: &[Source { names: &["llama"], positions: 2_048, ..Source::PLAIN }],
    gguf: &[GgufArchitecture { name: "llama", is_interleaved: true, ..GgufArchitecture::PLAIN }],
    ..Family::PLAIN
};
