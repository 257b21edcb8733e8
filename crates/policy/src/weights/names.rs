//! Canonical tensor names and shapes, and the names of other layouts.

use indexmap::IndexMap;

use crate::config::ModelConfig;

/// The embedding matrix.
pub(super) const EMBEDDING: &str = "model.embed_tokens.weight";

/// The LM head, unless it shares the embedding matrix.
pub(super) const HEAD: &str = "lm_head.weight";

/// Ends of the names of tensors that no model needs. All others that the configuration does not have are faults.
///
/// They are the RoPE frequencies in old checkpoints, of a decoder and of a vision tower. The configuration determines them;
/// `transformers` drops them too.
const WITHOUT_USE: [&str; 2] = [".rotary_emb.inv_freq", "rotary_pos_emb.inv_freq"];

/// Whether no model needs the tensor of this name.
pub(super) fn is_without_use(name: &str) -> bool {
    WITHOUT_USE.iter().any(|end| name.ends_with(end))
}

/// The tensors of a decoder in the model's order, by canonical name.
///
/// # Shapes
/// Linear weights are `(out, in)`, biases and norms `(out)`, embeddings `(vocab_size, hidden_size)`.
pub fn tensor_shapes(config: &ModelConfig) -> IndexMap<String, Vec<usize>> {
    let hidden = config.hidden_size;
    let queries = config.num_attention_heads * config.head_dim;
    let keys = config.num_key_value_heads * config.head_dim;
    let mut shapes = IndexMap::new();
    shapes.insert(EMBEDDING.to_owned(), vec![config.vocab_size, hidden]);
    for layer in 0..config.num_hidden_layers {
        let mut add = |name: &str, shape: Vec<usize>| {
            shapes.insert(format!("model.layers.{layer}.{name}"), shape);
        };
        add("input_layernorm.weight", vec![hidden]);
        for (product, out) in [("q_proj", queries), ("k_proj", keys), ("v_proj", keys)] {
            add(&format!("self_attn.{product}.weight"), vec![out, hidden]);
            if config.model_type.family().has_qkv_bias {
                add(&format!("self_attn.{product}.bias"), vec![out]);
            }
        }
        add("self_attn.o_proj.weight", vec![hidden, queries]);
        add("post_attention_layernorm.weight", vec![hidden]);
        add("mlp.gate_proj.weight", vec![config.intermediate_size, hidden]);
        add("mlp.up_proj.weight", vec![config.intermediate_size, hidden]);
        add("mlp.down_proj.weight", vec![hidden, config.intermediate_size]);
    }
    shapes.insert("model.norm.weight".to_owned(), vec![hidden]);
    if !config.tie_word_embeddings {
        shapes.insert(HEAD.to_owned(), vec![config.vocab_size, hidden]);
    }
    shapes
}

/// The canonical name of a checkpoint's tensor; `None` if it belongs to the vision tower or is [`WITHOUT_USE`].
///
/// Qwen2.5-VL uses `model.…` and `visual.…` on the hub, and `model.language_model.…` and `model.visual.…` when saved by
/// `transformers` 4.52 or later.
pub(crate) fn canonical(name: &str) -> Option<String> {
    if is_vision(name) || is_without_use(name) {
        return None;
    }
    for prefix in ["model.language_model.", "language_model.model."] {
        if let Some(rest) = name.strip_prefix(prefix) {
            return Some(format!("model.{rest}"));
        }
    }
    Some(name.strip_prefix("language_model.").unwrap_or(name).to_owned())
}

/// Name prefix of the vision tower's tensors.
pub(super) const VISION: &str = "visual.";

/// The name of a checkpoint's tensor within the vision tower, if it belongs to it.
pub(crate) fn of_vision(name: &str) -> Option<&str> {
    name.strip_prefix("model.").unwrap_or(name).strip_prefix(VISION)
}

/// Whether a checkpoint's tensor belongs to the vision tower.
pub(super) fn is_vision(name: &str) -> bool {
    of_vision(name).is_some()
}
