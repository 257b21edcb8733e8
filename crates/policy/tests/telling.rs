//! What a backward tells on its way: what it will not touch again, and that it gets on.

#![allow(clippy::unwrap_used)]

mod groups;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::Tensor;
use embodied_r_policy::lora::Module;
use embodied_r_policy::{Gradients, Group, LoraConfig, Policy, SharedPrompt, Trainable};
use groups::{ids, model};

fn group() -> Group {
    Group { prompt: ids(9, 1), completions: vec![ids(5, 2), ids(3, 3)] }
}

fn numbers(buffer: &Tensor) -> Vec<f32> {
    buffer.to_vec1().unwrap()
}

/// What was told: from which number on, and how they were then.
type Told = Vec<(usize, Vec<f32>)>;

fn whole(policy: &Policy) -> (Told, Vec<f32>) {
    let mut gradients = policy.zero_gradients().unwrap();
    let buffer = gradients.buffer().clone();
    let mut told = Told::new();
    let forward = policy.forward(&[group()], 1.0).unwrap();
    let on_final = &mut |from: usize| told.push((from, numbers(&buffer)[from..].to_vec()));
    forward.backward_telling(&[1.0; 8], &mut gradients, on_final).unwrap();
    (told, numbers(&buffer))
}

fn in_parts(policy: &Policy) -> (Told, Vec<f32>) {
    let Group { prompt, completions } = group();
    let mut gradients: Gradients = policy.zero_gradients().unwrap();
    let buffer = gradients.buffer().clone();
    let mut told = Told::new();
    let shared = SharedPrompt::new(policy, &prompt, 5, 1.0, (None, None)).unwrap();
    for completion in completions {
        let part = shared.part(std::slice::from_ref(&completion)).unwrap();
        part.backward(&vec![1.0; completion.len()], &mut gradients).unwrap();
    }
    let on_final = &mut |from: usize| told.push((from, numbers(&buffer)[from..].to_vec()));
    shared.backward_telling(&mut gradients, on_final).unwrap();
    (told, numbers(&buffer))
}

#[test]
fn what_is_told_to_be_final_is_so_layer_by_layer() {
    let adapter = Trainable::Lora(LoraConfig {
        r: 2,
        lora_alpha: 4,
        lora_dropout: 0.0,
        target_modules: vec![Module::Q, Module::Down],
        use_rslora: false,
        base_model_name_or_path: None,
    });
    let policies = [
        ("tied", model("qwen2-tied")),
        ("untied", model("llama")),
        ("adapter", model("qwen2-tied").with_trainable(&adapter, 1).unwrap()),
    ];
    for (name, policy) in policies {
        let layers = policy.config().num_hidden_layers;
        for (told, last) in [whole(&policy), in_parts(&policy)] {
            assert_eq!(told.len(), layers + 1, "{name}");
            assert!(told.windows(2).all(|pair| pair[1].0 < pair[0].0), "{name}: {told:?}");
            for (from, then) in &told {
                assert!(then == &last[*from..], "{name}: changed behind {from}");
            }
            // All but the embedding, where it is trained.
            let embedding = policy.parameters().get("model.embed_tokens.weight");
            assert_eq!(told[layers].0, embedding.map_or(0, Tensor::elem_count), "{name}");
        }
    }
}

#[test]
fn every_layer_of_a_pass_is_a_sign_of_life() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let sign = Arc::new(move || {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    let policy = model("qwen2-tied").with_on_layer(sign);
    let layers = policy.config().num_hidden_layers;
    let signs = |act: &dyn Fn()| {
        count.store(0, Ordering::Relaxed);
        act();
        count.load(Ordering::Relaxed)
    };
    assert_eq!(signs(&|| drop(policy.score(&[group()], 1.0).unwrap())), layers);
    assert_eq!(signs(&|| drop(whole(&policy))), 2 * layers);
    let frozen = policy.frozen_copy().unwrap();
    assert_eq!(signs(&|| drop(frozen.score(&[group()], 1.0).unwrap())), layers);
}
