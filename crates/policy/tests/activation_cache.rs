//! An update that reuses the rollout's activations has the scores and gradients of one with its own forward pass.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use embodied_r_policy::lora::{LoraConfig, Module};
use embodied_r_policy::{
    ActivationCache, ActivationCacheOptions, GenerateOptions, GenerationRequest, Gradients, Group,
    PAGE_SIZE, Policy, Precision, SamplingParams, SharedPrompt, TokenScores, Trainable,
};

/// Tied and untied embeddings, grouped-query attention, biases, and sliding windows shorter than prompts.
const MODELS: [&str; 6] = [
    "qwen2-tied",
    "qwen2-head-dim",
    "qwen2-window-layer-types",
    "qwen3-tied",
    "qwen3-yarn-window",
    "llama",
];

const TEMPERATURE: f64 = 0.8;

/// Records all layers of every model.
const ALL_LAYERS: ActivationCacheOptions = ActivationCacheOptions { layers: 9, tokens: 10_000 };

fn model(name: &str) -> Policy {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models").join(name);
    Policy::load(&folder).unwrap()
}

fn ids(n: usize, seed: usize) -> Vec<u32> {
    (0..n).map(|i| ((i * 31 + seed * 17 + i * i * 7) % 90) as u32).collect()
}

/// A rollout that records into a new cache.
fn drawn(
    policy: &Policy,
    precision: Precision,
    options: ActivationCacheOptions,
) -> (Vec<Group>, Option<ActivationCache>) {
    drawn_into(ActivationCache::new(policy.config(), options), policy, precision)
}

/// A rollout of prompts shorter and longer than a page, two of them with a common prefix, and completions that stop
/// early or late.
fn drawn_into(
    cache: ActivationCache,
    policy: &Policy,
    precision: Precision,
) -> (Vec<Group>, Option<ActivationCache>) {
    let alike = |seed| [ids(PAGE_SIZE + 9, 3), ids(12, seed)].concat();
    let prompts = [ids(1, 1), ids(23, 2), alike(4), alike(5), ids(2 * PAGE_SIZE, 6)];
    let requests: Vec<GenerationRequest> = (0..)
        .zip(&prompts)
        .map(|(stream, prompt)| GenerationRequest {
            prompt: prompt.clone().into(),
            samples: 4,
            stream,
            first_sample: 0,
        })
        .collect();
    let sampling = SamplingParams {
        max_new_tokens: 30,
        stop_ids: (0..policy.config().vocab_size as u32).step_by(12).collect(),
        ..SamplingParams::default()
    };
    let options = GenerateOptions { precision: Some(precision), activation_cache: Some(cache) };
    let (samples, cache) =
        policy.generate_with_activation_cache(&requests, &sampling, options, &|_| {}).unwrap();
    let group = |(prompt, samples): (Vec<u32>, Vec<embodied_r_policy::CompletionOutput>)| Group {
        prompt: prompt.into(),
        completions: samples.into_iter().map(|sample| sample.ids).collect(),
    };
    (prompts.into_iter().zip(samples).map(group).collect(), cache)
}

/// The loss gradient for each token.
fn d_logps(tokens: usize) -> Vec<f32> {
    (0..tokens).map(|i| ((i * 13 % 7) as f32 - 2.5) / 5.0).collect()
}

type Computed = (TokenScores, Gradients);

fn packed(policy: &Policy, groups: &[Group], cache: Option<&ActivationCache>) -> Computed {
    let mut gradients = policy.zero_gradients().unwrap();
    let forward = policy.training_forward(groups, TEMPERATURE, 1, cache).unwrap();
    let scores = forward.scores().clone();
    forward.backward(&d_logps(scores.logps.len()), &mut gradients).unwrap();
    (scores, gradients)
}

/// The group in two chunks: its first completion, then the others.
fn in_chunks(policy: &Policy, group: &Group, cache: Option<&ActivationCache>) -> Computed {
    let mut gradients = policy.zero_gradients().unwrap();
    let mut scores = TokenScores { logps: Vec::new(), entropies: Vec::new() };
    let with = (Some(1), cache);
    let shared = SharedPrompt::new(policy, &group.prompt, 90, TEMPERATURE, with).unwrap();
    let (first, others) = group.completions.split_at(1);
    for part in [first, others] {
        let part = shared.forward_chunk(part).unwrap();
        let found = part.scores().clone();
        scores.logps.extend(&found.logps);
        scores.entropies.extend(&found.entropies);
        part.backward(&d_logps(found.logps.len()), &mut gradients).unwrap();
    }
    shared.backward(&mut gradients).unwrap();
    (scores, gradients)
}

/// Sums of about ten terms in another order, layer after layer: some ulps of the largest, in f32 or bf16.
fn assert_same(name: &str, (a, da): &Computed, (b, db): &Computed, tolerance: f32) {
    for (a, b) in a.logps.iter().chain(&a.entropies).zip(b.logps.iter().chain(&b.entropies)) {
        assert!((a - b).abs() < tolerance * b.abs().max(1.0), "{name}: {a} and {b}");
    }
    for ((tensor, a), (_, b)) in da.iter().zip(db.iter()) {
        let [a, b] = [a, b].map(|x| x.flatten_all().unwrap().to_vec1::<f32>().unwrap());
        let largest = b.iter().fold(0f32, |max, x| max.max(x.abs()));
        assert!(largest > 0.0, "{name}: `{tensor}` has no gradient");
        for (a, b) in a.iter().zip(&b) {
            assert!((a - b).abs() < 2.0 * tolerance * largest, "{name}, `{tensor}`: {a} and {b}");
        }
    }
}

const F32: f32 = 5e-5;

#[test]
fn an_update_from_the_cache_equals_one_with_its_own_forward() {
    for name in MODELS {
        let policy = model(name);
        let (groups, _) = drawn(&policy, Precision::F32, ALL_LAYERS);
        let own = packed(&policy, &groups, None);
        // Inputs only, the last layer, and all layers.
        for layers in [0, 1, 9] {
            let (again, cache) =
                drawn(&policy, Precision::F32, ActivationCacheOptions { layers, ..ALL_LAYERS });
            assert!(again == groups, "recording does not change completions");
            let cache = cache.unwrap();
            assert!(groups.iter().all(|group| cache.contains(group)));
            let name = format!("{name}, {layers} layers");
            assert_same(&name, &packed(&policy, &groups, Some(&cache)), &own, F32);
            // A subset of the groups, in another order.
            let some = [groups[4].clone(), groups[1].clone()];
            let own = packed(&policy, &some, None);
            assert_same(&name, &packed(&policy, &some, Some(&cache)), &own, F32);
        }
    }
}

#[test]
fn chunks_after_a_cached_prompt_equal_those_after_a_computed_one() {
    for name in MODELS {
        let policy = model(name);
        for layers in [0, 1, 9] {
            let (groups, cache) =
                drawn(&policy, Precision::F32, ActivationCacheOptions { layers, ..ALL_LAYERS });
            for group in &groups {
                let own = in_chunks(&policy, group, None);
                let cached = in_chunks(&policy, group, cache.as_ref());
                assert_same(&format!("{name}, {layers} layers"), &cached, &own, F32);
            }
        }
    }
}

#[test]
fn cached_activations_are_not_recomputed() {
    let policy = model("qwen2-tied");
    let (groups, cache) = drawn(&policy, Precision::F32, ALL_LAYERS);
    let before = packed(&policy, &groups, cache.as_ref()).0;
    for (_, tensor) in policy.parameters().iter().filter(|(name, _)| name.contains("layers.")) {
        tensor.slice_set(&(tensor * 3.0).unwrap(), 0, 0).unwrap();
    }
    assert_eq!(packed(&policy, &groups, cache.as_ref()).0, before);
    assert_ne!(packed(&policy, &groups, None).0, before);
    let parts = in_chunks(&policy, &groups[2], cache.as_ref()).0;
    let first =
        groups[..2].iter().flat_map(|group| &group.completions).map(Vec::len).sum::<usize>();
    for (a, b) in parts.logps.iter().zip(&before.logps[first..]) {
        assert!((a - b).abs() < 1e-5, "{a} and {b}");
    }
}

#[test]
fn activations_missing_from_the_cache_are_computed() {
    let policy = model("qwen2-tied");
    let (mut groups, cache) = drawn(&policy, Precision::F32, ALL_LAYERS);
    let cache = cache.unwrap();
    // A completion with an additional token, and an unknown prompt.
    groups[1].completions[0].push(5);
    groups.push(Group { prompt: ids(9, 8).into(), completions: vec![ids(3, 1)] });
    assert!(
        !cache.contains(&groups[1]) && !cache.contains(&groups[5]) && cache.contains(&groups[2])
    );
    let own = packed(&policy, &groups, None);
    assert_same("packed", &packed(&policy, &groups, Some(&cache)), &own, F32);
    // A cached prompt, one computed and one cached chunk.
    let own = in_chunks(&policy, &groups[1], None);
    assert_same("parts", &in_chunks(&policy, &groups[1], Some(&cache)), &own, F32);
}

#[test]
fn a_full_cache_contains_the_completions_that_fit() {
    let policy = model("qwen2-tied");
    let tokens =
        [ids(1, 1).len(), 23, PAGE_SIZE + 21, PAGE_SIZE + 21, 2 * PAGE_SIZE].iter().sum::<usize>()
            + 40;
    let (groups, cache) =
        drawn(&policy, Precision::F32, ActivationCacheOptions { layers: 9, tokens });
    let cache = cache.unwrap();
    let single = |completion: &Vec<u32>, group: &Group| Group {
        prompt: group.prompt.clone(),
        completions: vec![completion.clone()],
    };
    let all: Vec<Group> = groups
        .iter()
        .flat_map(|group| group.completions.iter().map(|ids| single(ids, group)))
        .collect();
    let (held, lost): (Vec<Group>, Vec<Group>) =
        all.into_iter().partition(|one| cache.contains(one));
    assert!(!held.is_empty() && !lost.is_empty());
    for some in [held, lost] {
        let own = packed(&policy, &some, None);
        assert_same("some", &packed(&policy, &some, Some(&cache)), &own, F32);
    }
}

#[test]
fn a_cache_is_reused_across_rollouts() {
    let policy = model("qwen2-tied");
    let (before, cache) = drawn(&policy, Precision::F32, ALL_LAYERS);
    for (_, tensor) in policy.parameters().iter().filter(|(name, _)| name.contains("q_proj")) {
        tensor.slice_set(&(tensor * 2.0).unwrap(), 0, 0).unwrap();
    }
    let (groups, cache) = drawn_into(cache.unwrap(), &policy, Precision::F32);
    let cache = cache.unwrap();
    assert!(groups.iter().all(|group| cache.contains(group)));
    assert!(before.iter().any(|group| !cache.contains(group)));
    let own = packed(&policy, &groups, None);
    assert_same("again", &packed(&policy, &groups, Some(&cache)), &own, F32);
}

#[test]
fn bf16_activations_match_the_computed_ones() {
    let policy = model("qwen2-head-dim").with_precision(Precision::Bf16);
    let (groups, cache) = drawn(&policy, Precision::Bf16, ALL_LAYERS);
    assert!(groups.iter().all(|group| cache.as_ref().unwrap().contains(group)));
    let own = packed(&policy, &groups, None);
    assert_same("bf16", &packed(&policy, &groups, cache.as_ref()), &own, 2e-2);
}

#[test]
fn adapters_use_the_cache_unless_they_have_dropout() {
    let adapted = |lora_dropout| {
        let config = LoraConfig {
            r: 3,
            lora_alpha: 4,
            lora_dropout,
            target_modules: vec![Module::Q, Module::V, Module::Down],
            encoder_modules: Vec::new(),
            use_rslora: false,
            base_model_name_or_path: None,
            base_fingerprint: None,
        };
        let policy = model("qwen2-tied").with_trainable(&Trainable::Lora(config), 5).unwrap();
        for (_, tensor) in policy.parameters().iter().filter(|(name, _)| name.contains("lora_B")) {
            let values = (0..tensor.elem_count()).map(|i| 0.2 * ((i * i + 3) as f32).sin());
            let new = candle_core::Tensor::from_iter(values, tensor.device()).unwrap();
            tensor.slice_set(&new.reshape(tensor.shape()).unwrap(), 0, 0).unwrap();
        }
        policy
    };
    let policy = adapted(0.0);
    let (groups, cache) = drawn(&policy, Precision::F32, ALL_LAYERS);
    assert!(groups.iter().all(|group| cache.as_ref().unwrap().contains(group)));
    let own = packed(&policy, &groups, None);
    assert_same("adapter", &packed(&policy, &groups, cache.as_ref()), &own, F32);

    let dropping = adapted(0.3);
    assert!(drawn(&dropping, Precision::F32, ALL_LAYERS).1.is_none());
    // Not even a cache with equal activations is used.
    let own = packed(&dropping, &groups, None);
    assert_eq!(packed(&dropping, &groups, cache.as_ref()).0, own.0);
}

#[test]
fn frozen_lower_layers_are_skipped() {
    let frozen = Trainable::AllExcept(vec!["embed_tokens".into(), "layers\\.0\\.".into()]);
    let policy = model("llama").with_trainable(&frozen, 0).unwrap();
    let (groups, cache) = drawn(&policy, Precision::F32, ALL_LAYERS);
    let own = packed(&policy, &groups, None);
    assert_same("frozen", &packed(&policy, &groups, cache.as_ref()), &own, F32);
    let own = in_chunks(&policy, &groups[2], None);
    assert_same("frozen", &in_chunks(&policy, &groups[2], cache.as_ref()), &own, F32);
}

#[test]
fn a_rollout_in_another_precision_records_no_activations() {
    let policy = model("qwen2-tied");
    assert!(drawn(&policy, Precision::Bf16, ALL_LAYERS).1.is_none());
}
