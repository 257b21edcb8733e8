//! Hooks of a backward pass: final gradients, and progress after each layer.

#![allow(clippy::unwrap_used)]

mod groups;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::Tensor;
use embodied_r_policy::lora::Module;
use embodied_r_policy::{Gradients, Group, LoraConfig, Policy, SharedPrompt, Trainable};
use groups::{ids, model};

fn group() -> Group {
    Group { prompt: ids(9, 1).into(), completions: vec![ids(5, 2), ids(3, 3)] }
}

fn values(buffer: &Tensor) -> Vec<f32> {
    buffer.to_vec1().unwrap()
}

/// Calls of the gradient-ready hook: the first final index, and the gradients from there on.
type HookCalls = Vec<(usize, Vec<f32>)>;

fn whole(policy: &Policy) -> (HookCalls, Vec<f32>) {
    let mut gradients = policy.zero_gradients().unwrap();
    let buffer = gradients.buffer().clone();
    let mut calls = HookCalls::new();
    let forward = policy.forward(&[group()], 1.0).unwrap();
    let on_ready = &mut |from: usize| calls.push((from, values(&buffer)[from..].to_vec()));
    forward.backward_with_hook(&[1.0; 8], &mut gradients, on_ready).unwrap();
    (calls, values(&buffer))
}

fn in_chunks(policy: &Policy) -> (HookCalls, Vec<f32>) {
    let Group { prompt, completions } = group();
    let mut gradients: Gradients = policy.zero_gradients().unwrap();
    let buffer = gradients.buffer().clone();
    let mut calls = HookCalls::new();
    let shared = SharedPrompt::new(policy, &prompt, 5, 1.0, (None, None)).unwrap();
    for completion in completions {
        let part = shared.forward_chunk(std::slice::from_ref(&completion)).unwrap();
        part.backward(&vec![1.0; completion.len()], &mut gradients).unwrap();
    }
    let on_ready = &mut |from: usize| calls.push((from, values(&buffer)[from..].to_vec()));
    shared.backward_with_hook(&mut gradients, on_ready).unwrap();
    (calls, values(&buffer))
}

#[test]
fn gradients_reported_as_final_do_not_change() {
    let adapter = Trainable::Lora(LoraConfig {
        r: 2,
        lora_alpha: 4,
        lora_dropout: 0.0,
        target_modules: vec![Module::Q, Module::Down],
        encoder_modules: Vec::new(),
        use_rslora: false,
        base_model_name_or_path: None,
        base_fingerprint: None,
    });
    let policies = [
        ("tied", model("qwen2-tied")),
        ("untied", model("llama")),
        ("norms over heads", model("qwen3-tied")),
        ("adapter", model("qwen2-tied").with_trainable(&adapter, 1).unwrap()),
    ];
    for (name, policy) in policies {
        let layers = policy.config().num_hidden_layers;
        for (calls, last) in [whole(&policy), in_chunks(&policy)] {
            assert_eq!(calls.len(), layers + 1, "{name}");
            assert!(calls.windows(2).all(|pair| pair[1].0 < pair[0].0), "{name}: {calls:?}");
            for (from, then) in &calls {
                assert!(then == &last[*from..], "{name}: changed after index {from}");
            }
            // All but the embedding, if it is trained.
            let embedding = policy.parameters().get("model.embed_tokens.weight");
            assert_eq!(calls[layers].0, embedding.map_or(0, Tensor::elem_count), "{name}");
        }
    }
}

#[test]
fn the_layer_hook_is_called_after_every_layer() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let hook = Arc::new(move || {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    let policy = model("qwen2-tied").with_layer_hook(hook);
    let layers = policy.config().num_hidden_layers;
    let hook_calls = |act: &dyn Fn()| {
        count.store(0, Ordering::Relaxed);
        act();
        count.load(Ordering::Relaxed)
    };
    assert_eq!(hook_calls(&|| drop(policy.score(&[group()], 1.0).unwrap())), layers);
    assert_eq!(hook_calls(&|| drop(whole(&policy))), 2 * layers);
    let frozen = policy.frozen_copy().unwrap();
    assert_eq!(hook_calls(&|| drop(frozen.score(&[group()], 1.0).unwrap())), layers);
}
