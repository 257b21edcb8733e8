//! FLOPs and activation memory of a model, for estimates.

use embodied_r_kernels::attention::{self, Heads};

use crate::config::ModelConfig;
use crate::decoder::Activations;
use crate::layer::Module;
use crate::packed::Group;

/// FLOPs of a backward pass relative to a forward pass: gradients of inputs and of weights.
const BACKWARD: f64 = 2.0;

/// FLOPs of a forward pass.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ForwardFlops {
    /// Linear layers and the LM head.
    pub linear: f64,
    /// The two matmuls of attention, `Q·Kᵀ` and `P·V`.
    pub attention: f64,
}

impl ForwardFlops {
    /// The total.
    pub fn total(self) -> f64 {
        self.linear + self.attention
    }
}

impl ModelConfig {
    /// Matmul FLOPs of one forward pass over `groups`, with each prompt computed once: linear layers, attention, and
    /// the LM head for the completion tokens. In the last layer, prompt tokens but the last only need keys and values.
    ///
    /// Sampling the completions takes the same: it also computes every token once.
    pub fn pass_flops(&self, groups: &[Group]) -> ForwardFlops {
        let (hidden, linear) = (self.hidden_size as f64, self.layer_matrices() as f64);
        let keys_and_values = [Module::K, Module::V].map(|module| module.weights(self));
        let keys_and_values = keys_and_values.iter().sum::<usize>() as f64;
        let layers = self.num_hidden_layers as f64;
        let (mut linear_macs, mut pairs) = (0.0, 0.0);
        for group in groups {
            let prompt = group.prompt.len() as f64;
            let own = group.completions.iter().map(|ids| ids.len().saturating_sub(1) as f64);
            let per_layer = triangle(prompt) + own.map(|n| n * prompt + triangle(n)).sum::<f64>();
            let scored: usize = group.completions.iter().map(Vec::len).sum();
            let kv_only = prompt - 1.0;
            linear_macs += layers * group.tokens() as f64 * linear
                - kv_only * (linear - keys_and_values)
                + scored as f64 * hidden * self.vocab_size as f64;
            pairs += layers * per_layer - triangle(kv_only);
        }
        ForwardFlops {
            linear: 2.0 * linear_macs,
            attention: self.attention_flops_per_pair() * pairs,
        }
    }

    /// The total of [`Self::pass_flops`].
    pub fn forward_flops(&self, groups: &[Group]) -> f64 {
        self.pass_flops(groups).total()
    }

    /// As [`Self::forward_flops`] for a forward and backward pass, without recomputation.
    pub fn training_flops(&self, groups: &[Group]) -> f64 {
        (1.0 + BACKWARD) * self.forward_flops(groups)
    }

    /// Number of parameters in the matrices that every token is multiplied with, LM head included: the weights that a
    /// decode step reads.
    pub fn matmul_parameters(&self) -> usize {
        self.num_hidden_layers * self.layer_matrices() + self.hidden_size * self.vocab_size
    }

    /// Attention FLOPs for one query-key pair, over all heads of a layer.
    pub fn attention_flops_per_pair(&self) -> f64 {
        (4 * self.num_attention_heads * self.head_dim) as f64
    }
}

/// Activation memory of a training pass, without weights, gradients and logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActivationBytes {
    /// The inputs of all layers, which are always saved.
    pub inputs: usize,
    /// The remaining activations of one layer that is not recomputed.
    pub layer: usize,
    /// Peak workspace of a layer's backward.
    pub workspace: usize,
}

impl ModelConfig {
    /// Activation memory of a forward and backward pass over `tokens` tokens, with elements of `element_bytes` bytes.
    pub fn pass_bytes(&self, tokens: usize, element_bytes: usize) -> ActivationBytes {
        let (hidden, inner) = (self.hidden_size, self.intermediate_size);
        let bytes = |elements: usize| tokens * elements * element_bytes;
        let layer = bytes(Activations::elements_per_token(self));
        // A recomputed layer, the gradients of its output and of the residual stream, and the larger of the
        // down projection's input gradient and the workspace of attention's backward.
        let layer_workspace = Activations::workspace_per_token(self);
        let heads = Heads {
            query: self.num_attention_heads,
            kv: self.num_key_value_heads,
            dim: self.head_dim,
        };
        let larger = inner.max(attention::workspace_elements(heads));
        let workspace = layer + bytes(layer_workspace + 3 * hidden + larger);
        ActivationBytes { inputs: bytes(self.num_hidden_layers * hidden), layer, workspace }
    }

    /// KV-cache bytes per token over all layers, with elements of `element_bytes` bytes.
    pub fn kv_bytes_per_token(&self, element_bytes: usize) -> usize {
        2 * self.num_hidden_layers * self.num_key_value_heads * self.head_dim * element_bytes
    }
}

/// Causal query-key pairs of `n` tokens.
fn triangle(n: f64) -> f64 {
    n * (n + 1.0) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;

    #[test]
    fn the_workspace_is_the_larger_of_attention_and_mlp_backward() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/models/qwen2-tied");
        let mut config = Policy::load(folder.as_ref()).unwrap().config().clone();
        (config.num_attention_heads, config.num_key_value_heads, config.head_dim) = (16, 2, 64);
        let workspace = |inner: usize| {
            let config = ModelConfig { intermediate_size: inner, ..config.clone() };
            let pass = config.pass_bytes(1, size_of::<f32>());
            // Without the layer's own activations of this size.
            pass.workspace - pass.layer - inner * size_of::<f32>()
        };
        let held = attention::workspace_elements(Heads { query: 16, kv: 2, dim: 64 });
        assert!(held > 100);
        assert_eq!(workspace(1), workspace(100), "attention's");
        assert_eq!(workspace(held + 100), workspace(held) + 100 * size_of::<f32>());
    }

    #[test]
    fn forward_flops_are_two_per_weight_and_token_plus_attention() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/models/qwen2-tied");
        let policy = Policy::load(folder.as_ref()).unwrap();
        let config = policy.config();
        let matrices: usize = policy
            .parameters()
            .iter()
            .filter(|(name, tensor)| name.contains("layers") && tensor.dims().len() == 2)
            .map(|(_, tensor)| tensor.elem_count())
            .sum();
        // Two prompt rows, then one and two completion rows: a completion's last token has none.
        let group =
            Group { prompt: vec![1, 2].into(), completions: vec![vec![3, 4], vec![5, 6, 7]] };
        let pairs = (1 + 2) + 3 + (3 + 4);
        let queries = config.num_attention_heads * config.head_dim;
        // The prompt's first token has no query in the last layer, and no MLP.
        let last = format!("layers.{}.", config.num_hidden_layers - 1);
        let unused: usize = policy
            .parameters()
            .iter()
            .filter(|(name, tensor)| name.contains(&last) && tensor.dims().len() == 2)
            .filter(|(name, _)| !name.contains("k_proj") && !name.contains("v_proj"))
            .map(|(_, tensor)| tensor.elem_count())
            .sum();
        let expected = 5 * matrices - unused + config.num_hidden_layers * 2 * queries * pairs
            - 2 * queries
            + 5 * config.hidden_size * config.vocab_size;
        assert_eq!(config.forward_flops(&[group]), (2 * expected) as f64);
    }
}
