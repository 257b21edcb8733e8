//! GGUF tensor names, and llama.cpp's row order.

/// The canonical name of a tensor; `None` if it does not belong to a decoder.
pub(super) fn canonical(name: &str) -> Option<String> {
    let whole = match name {
        "token_embd.weight" => "model.embed_tokens.weight",
        "output_norm.weight" => "model.norm.weight",
        "output.weight" => "lm_head.weight",
        _ => return in_layer(name),
    };
    Some(whole.to_owned())
}

fn in_layer(name: &str) -> Option<String> {
    let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    // `007` or `+7` would be an alias of the same tensor.
    let layer = layer.parse::<u32>().ok().filter(|number| number.to_string() == layer)?;
    let (module, kind) = rest.rsplit_once('.')?;
    let module = match module {
        "attn_norm" => "input_layernorm",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_output" => "self_attn.o_proj",
        "ffn_norm" => "post_attention_layernorm",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        _ => return None,
    };
    matches!(kind, "weight" | "bias").then(|| format!("model.layers.{layer}.{module}.{kind}"))
}

/// The stored row of row `row` of a query or key weight, for the architecture `llama`.
///
/// llama.cpp applies RoPE to adjacent elements of a head, `transformers` to its two halves, so the converter moves row
/// `half · head_dim / 2 + i` of a head to `2 · i + half`.
pub(super) fn interleaved(row: usize, head_dim: usize) -> usize {
    let (head, within) = (row / head_dim, row % head_dim);
    let (half, i) = (within / (head_dim / 2), within % (head_dim / 2));
    head * head_dim + 2 * i + half
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_has_exactly_one_stored_name() {
        assert_eq!(canonical("blk.7.attn_q.bias").unwrap(), "model.layers.7.self_attn.q_proj.bias");
        for name in ["blk.07.attn_q.bias", "blk.+7.attn_q.bias", "blk.7.attn_q", "blk.7.x.weight"] {
            assert_eq!(canonical(name), None, "{name}");
        }
    }

    #[test]
    fn rows_of_a_head_are_its_interleaved_halves() {
        let rows: Vec<usize> = (0..8).map(|row| interleaved(row, 4)).collect();
        assert_eq!(rows, [0, 2, 1, 3, 4, 6, 5, 7]);
    }
}
