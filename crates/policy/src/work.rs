//! How much arithmetic and memory a model takes, for estimates.

use embodied_r_kernels::attention::{self, Heads};

use crate::config::ModelConfig;
use crate::decoder::Activations;
use crate::packed::Group;

/// Forward passes that a backward is worth: the gradients of inputs and of weights.
const BACKWARD: f64 = 2.0;

/// Multiplications and additions of a pass, by what they are spent on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PassFlops {
    /// Products with weights: linear layers, and the LM head.
    pub products: f64,
    /// Attention's two products, of queries with keys and of weights with values.
    pub attention: f64,
}

impl PassFlops {
    /// All of them.
    pub fn total(self) -> f64 {
        self.products + self.attention
    }
}

impl ModelConfig {
    /// Multiplications and additions in the products of one forward pass over `groups`, each prompt once:
    /// linear layers, attention's two products, and the LM head over the completions' tokens. A prompt's tokens
    /// but its last are computed up to the keys and values of the last layer.
    ///
    /// Drawing the completions takes as many: every token is computed once there too.
    pub fn pass_flops(&self, groups: &[Group]) -> PassFlops {
        let keys = (self.num_key_value_heads * self.head_dim) as f64;
        let (hidden, linear) = (self.hidden_size as f64, self.layer_matrices() as f64);
        let layers = self.num_hidden_layers as f64;
        let (mut products, mut seen) = (0.0, 0.0);
        for group in groups {
            let prompt = group.prompt.len() as f64;
            let own = group.completions.iter().map(|ids| ids.len().saturating_sub(1) as f64);
            let pairs = triangle(prompt) + own.map(|n| n * prompt + triangle(n)).sum::<f64>();
            let scored: usize = group.completions.iter().map(Vec::len).sum();
            let silent = prompt - 1.0;
            products += layers * group.tokens() as f64 * linear
                - silent * (linear - hidden * 2.0 * keys)
                + scored as f64 * hidden * self.vocab_size as f64;
            seen += layers * pairs - triangle(silent);
        }
        PassFlops { products: 2.0 * products, attention: self.pair_flops() * seen }
    }

    /// All of [`Self::pass_flops`].
    pub fn forward_flops(&self, groups: &[Group]) -> f64 {
        self.pass_flops(groups).total()
    }

    /// As [`Self::forward_flops`] for a forward pass with its backward, without what may be computed again.
    pub fn training_flops(&self, groups: &[Group]) -> f64 {
        (1.0 + BACKWARD) * self.forward_flops(groups)
    }

    /// Numbers of the matrices that a token is multiplied with, the LM head's among them: what a step of decoding reads
    /// of the weights.
    pub fn multiplied_numbers(&self) -> usize {
        self.num_hidden_layers * self.layer_matrices() + self.hidden_size * self.vocab_size
    }

    /// Multiplications and additions of attention for one query and one key, over all heads of a layer.
    pub fn pair_flops(&self) -> f64 {
        (4 * self.num_attention_heads * self.head_dim) as f64
    }

    /// Numbers of a layer's matrices.
    fn layer_matrices(&self) -> usize {
        let queries = self.num_attention_heads * self.head_dim;
        let keys = self.num_key_value_heads * self.head_dim;
        self.hidden_size * (2 * queries + 2 * keys + 3 * self.intermediate_size)
    }
}

/// Memory of a pass in training, apart from weights, gradients and logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PassBytes {
    /// The inputs of all layers, which are always kept.
    pub inputs: usize,
    /// What one more layer keeps that is not computed again.
    pub layer: usize,
    /// What a layer's backward needs at once beside these.
    pub working: usize,
}

impl ModelConfig {
    /// The memory of a forward pass with its backward over `tokens` tokens, in numbers of so many bytes.
    pub fn pass_bytes(&self, tokens: usize, number: usize) -> PassBytes {
        let queries = self.num_attention_heads * self.head_dim;
        let keys = self.num_key_value_heads * self.head_dim;
        let (hidden, inner) = (self.hidden_size, self.intermediate_size);
        let bytes = |numbers: usize| tokens * numbers * number;
        let layer = bytes(Activations::per_token(hidden, queries, keys, inner));
        // A layer that is computed again, the output's gradient and the residual stream, and the
        // gradient of what the last product took, or what attention's own backward holds.
        let more = Activations::more_per_token(hidden, inner);
        let heads = Heads {
            query: self.num_attention_heads,
            kv: self.num_key_value_heads,
            dim: self.head_dim,
        };
        let in_turn = inner.max(attention::working_numbers(heads));
        let working = layer + bytes(more + 3 * hidden + in_turn);
        PassBytes { inputs: bytes(self.num_hidden_layers * hidden), layer, working }
    }

    /// Memory of the keys and values of a token, over all layers, in numbers of so many bytes.
    pub fn kv_bytes_per_token(&self, number: usize) -> usize {
        2 * self.num_hidden_layers * self.num_key_value_heads * self.head_dim * number
    }
}

/// Pairs of a token with one up to itself.
fn triangle(n: f64) -> f64 {
    n * (n + 1.0) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;

    #[test]
    fn attentions_backward_counts_where_it_holds_more_than_the_feed_forward() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/models/qwen2-tied");
        let mut config = Policy::load(folder.as_ref()).unwrap().config().clone();
        (config.num_attention_heads, config.num_key_value_heads, config.head_dim) = (16, 2, 64);
        let working = |inner: usize| {
            let config = ModelConfig { intermediate_size: inner, ..config.clone() };
            let pass = config.pass_bytes(1, size_of::<f32>());
            // Without what a layer has of this size anyway.
            pass.working - pass.layer - inner * size_of::<f32>()
        };
        let held = attention::working_numbers(Heads { query: 16, kv: 2, dim: 64 });
        assert!(held > 100);
        assert_eq!(working(1), working(100), "attention's");
        assert_eq!(working(held + 100), working(held) + 100 * size_of::<f32>());
    }

    #[test]
    fn a_forward_is_twice_its_weights_for_each_token_and_attention_over_what_is_seen() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/models/qwen2-tied");
        let policy = Policy::load(folder.as_ref()).unwrap();
        let config = policy.config();
        let matrices: usize = policy
            .parameters()
            .iter()
            .filter(|(name, tensor)| name.contains("layers") && tensor.dims().len() == 2)
            .map(|(_, tensor)| tensor.elem_count())
            .sum();
        // Two tokens in the prompt, then one and two rows behind it, the last of neither completion.
        let group = Group { prompt: vec![1, 2], completions: vec![vec![3, 4], vec![5, 6, 7]] };
        let seen = (1 + 2) + 3 + (3 + 4);
        let queries = config.num_attention_heads * config.head_dim;
        // The first token of the prompt has no query in the last layer, and nothing behind it.
        let last = format!("layers.{}.", config.num_hidden_layers - 1);
        let unused: usize = policy
            .parameters()
            .iter()
            .filter(|(name, tensor)| name.contains(&last) && tensor.dims().len() == 2)
            .filter(|(name, _)| !name.contains("k_proj") && !name.contains("v_proj"))
            .map(|(_, tensor)| tensor.elem_count())
            .sum();
        let expected = 5 * matrices - unused + config.num_hidden_layers * 2 * queries * seen
            - 2 * queries
            + 5 * config.hidden_size * config.vocab_size;
        assert_eq!(config.forward_flops(&[group]), (2 * expected) as f64);
    }
}
