//! Initial weights of small models that look things up in their context.
//!
//! From purely random weights, attention may take thousands of steps to find equal contents (this crate's `README.md`). Here it
//! finds them from the start: keys equal queries, a part of mimetic initialization (Trockman and Kolter,
//! [2023](https://arxiv.org/abs/2305.09828)), and in the first layer some heads attend to the tokens before, which in trained
//! models is the first half of an induction head (Olsson et al., [2022](https://arxiv.org/abs/2209.11895)).

use embodied_r_kernels::{Result, memory};
use embodied_r_policy::{ModelConfig, Parameters, Policy};

const OP: &str = "mimetic initialization";

/// Groups of heads of the first layer that attend back: the first group to the token before, the second to the one before
/// that.
const ATTENDING_BACK: usize = 2;
/// The number of rotary frequencies by which they find that token, from the highest.
const FREQUENCIES: usize = 5;
/// The length of their biases of query and key along each frequency.
const BIAS: f64 = 6.0;
/// The factor of their weights: to them, positions matter more than contents.
const CONTENT: f32 = 0.2;

/// Makes keys equal to queries and, in models with biases of both, some heads of the first layer attend back. In place; other
/// tensors stay as they are.
pub(crate) fn initialize(policy: &Policy) -> Result<()> {
    let (parameters, config) = (policy.weights(), policy.config());
    for layer in 0..config.num_hidden_layers {
        keys_as_queries(parameters, config, layer)?;
    }
    for group in 0..ATTENDING_BACK.min(config.num_key_value_heads) {
        attend_back(parameters, config, group)?;
    }
    Ok(())
}

fn name(layer: usize, projection: &str) -> String {
    format!("model.layers.{layer}.self_attn.{projection}")
}

/// Copies the queries of the first head of each group to its keys.
fn keys_as_queries(parameters: &Parameters, config: &ModelConfig, layer: usize) -> Result<()> {
    let of = |projection| parameters.get(&name(layer, projection));
    let (Some(queries), Some(keys)) = (of("q_proj.weight"), of("k_proj.weight")) else {
        return Ok(());
    };
    let (groups, heads) = (config.num_key_value_heads, config.num_attention_heads);
    let queries = memory::floats(queries, OP)?;
    let group = queries.len() / groups;
    memory::update(keys, OP, |keys| {
        for (keys, queries) in keys.chunks_mut(group * groups / heads).zip(queries.chunks(group)) {
            keys.copy_from_slice(&queries[..keys.len()]);
        }
    })
}

/// Lets the heads of a group in the first layer attend `group + 1` tokens back: a query of a constant angle matches a key that
/// has been rotated by as many positions.
fn attend_back(parameters: &Parameters, config: &ModelConfig, group: usize) -> Result<()> {
    let (head_dim, groups) = (config.head_dim, config.num_key_value_heads);
    let of = |projection: &str| parameters.get(&name(0, projection));
    let (Some(query_bias), Some(key_bias)) = (of("q_proj.bias"), of("k_proj.bias")) else {
        return Ok(());
    };
    for projection in ["q_proj.weight", "k_proj.weight"] {
        let Some(weights) = of(projection) else { continue };
        let part = weights.elem_count() / groups;
        memory::update(weights, OP, |weights| {
            weights[group * part..][..part].iter_mut().for_each(|weight| *weight *= CONTENT);
        })?;
    }
    let frequencies = config.rope.frequencies(head_dim).inv_freq;
    for (bias, positions) in [(query_bias, 0), (key_bias, group + 1)] {
        let part = bias.elem_count() / groups;
        memory::update(bias, OP, |bias| {
            for head in bias[group * part..][..part].chunks_mut(head_dim) {
                let (real, imaginary) = head.split_at_mut(head_dim / 2);
                let pairs = real.iter_mut().zip(imaginary).zip(&frequencies);
                for ((real, imaginary), frequency) in pairs.take(FREQUENCIES) {
                    let angle = f64::from(*frequency) * positions as f64;
                    *real = (BIAS * angle.cos()) as f32;
                    *imaginary = (BIAS * angle.sin()) as f32;
                }
            }
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(groups: usize) -> ModelConfig {
        let config = serde_json::json!({
            "model_type": "qwen2", "vocab_size": 8, "hidden_size": 16, "intermediate_size": 6, "num_hidden_layers": 2,
            "num_attention_heads": 6, "num_key_value_heads": groups, "head_dim": 16, "max_position_embeddings": 64,
            "rms_norm_eps": 1e-6, "rope_theta": 1e4, "tie_word_embeddings": true, "initializer_range": 0.1,
        });
        ModelConfig::from_json(&config).unwrap()
    }

    fn values(parameters: &Parameters, name: &str) -> Vec<f32> {
        parameters.get(name).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn keys_equal_the_first_queries_of_their_group_and_nothing_else_changes() {
        let config = config(3);
        let [random, mimetic] = [0, 1].map(|_| Policy::random(&config, 3).unwrap());
        initialize(&mimetic).unwrap();
        let (random, mimetic) = (random.weights(), mimetic.weights());
        let width = 16 * 16;
        for (name, _) in random.iter() {
            let (before, after) = (values(random, name), values(mimetic, name));
            let is_back = name.starts_with("model.layers.0.self_attn.");
            if name.ends_with("k_proj.weight") {
                let queries = values(mimetic, &name.replace("k_proj", "q_proj"));
                let first: Vec<f32> =
                    queries.chunks(2 * width).flat_map(|group| &group[..width]).copied().collect();
                assert_eq!(after, first, "{name}");
                assert_ne!(after, before, "{name}");
            } else if is_back && name.ends_with("q_proj.weight") {
                let (scaled, same) = after.split_at(2 * 2 * width);
                assert_eq!(same, &before[scaled.len()..]);
                assert!(
                    scaled.iter().zip(&before).all(|(after, before)| *after == CONTENT * before)
                );
            } else if !(is_back && (name.ends_with("q_proj.bias") || name.ends_with("k_proj.bias")))
            {
                assert_eq!(before, after, "{name}");
            }
        }
    }

    #[test]
    fn heads_attend_one_and_two_tokens_back() {
        let config = config(2);
        let policy = Policy::random(&config, 3).unwrap();
        initialize(&policy).unwrap();
        let frequencies = config.rope.frequencies(16).inv_freq;
        // As a rotation of pairs at a distance of half a head.
        let rotated = |bias: &[f32], position: usize| -> Vec<f64> {
            let turned = |pair: usize| {
                let (sin, cos) = (f64::from(frequencies[pair]) * position as f64).sin_cos();
                let (real, imaginary) = (f64::from(bias[pair]), f64::from(bias[pair + 8]));
                [real * cos - imaginary * sin, imaginary * cos + real * sin]
            };
            (0..8).flat_map(turned).collect()
        };
        let [queries, keys] = ["q_proj", "k_proj"]
            .map(|projection| values(policy.weights(), &name(0, &format!("{projection}.bias"))));
        for (head, query) in queries.chunks(16).enumerate() {
            let group = head / 3;
            let query = rotated(query, 40);
            let logit = |position: usize| -> f64 {
                let key = rotated(&keys[16 * group..][..16], position);
                query.iter().zip(&key).map(|(a, b)| a * b).sum::<f64>() / 4.0
            };
            let best = (0..=40).max_by(|a, b| logit(*a).total_cmp(&logit(*b))).unwrap();
            assert_eq!(best, 39 - group, "{head}");
            assert!((0..=40).all(|at| at == best || logit(best) - logit(at) > 2.0));
        }
    }
}
