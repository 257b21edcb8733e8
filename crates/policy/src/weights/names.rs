//! The canonical names of tensors of other layouts.

/// Ends of the names of tensors that no model needs. All others that the configuration does not have are faults.
///
/// They are the RoPE frequencies in old checkpoints, of a decoder and of an encoder. The configuration determines them;
/// `transformers` drops them too.
const WITHOUT_USE: [&str; 2] = [".rotary_emb.inv_freq", "rotary_pos_emb.inv_freq"];

/// Whether no model needs the tensor of this name.
pub(super) fn is_without_use(name: &str) -> bool {
    WITHOUT_USE.iter().any(|end| name.ends_with(end))
}

/// The canonical name of a checkpoint's tensor; `None` if it belongs to an encoder or is [`WITHOUT_USE`].
///
/// Qwen2.5-VL uses `model.…` and `visual.…` on the hub, and `model.language_model.…` and `model.visual.…` when saved by
/// `transformers` 4.52 or later.
pub(crate) fn canonical(name: &str) -> Option<String> {
    if is_encoder(name) || is_without_use(name) {
        return None;
    }
    for prefix in ["model.language_model.", "language_model.model."] {
        if let Some(rest) = name.strip_prefix(prefix) {
            return Some(format!("model.{rest}"));
        }
    }
    Some(name.strip_prefix("language_model.").unwrap_or(name).to_owned())
}

/// How the canonical names of an encoder's tensors begin.
pub const ENCODER: &str = "visual.";

/// The canonical name of a checkpoint's tensor, such as `visual.merger.mlp.0.weight`, if it belongs to an encoder.
pub(crate) fn of_encoder(name: &str) -> Option<&str> {
    let name = name.strip_prefix("model.").unwrap_or(name);
    name.starts_with(ENCODER).then_some(name)
}

/// Whether a checkpoint's tensor belongs to an encoder.
pub(super) fn is_encoder(name: &str) -> bool {
    of_encoder(name).is_some()
}
