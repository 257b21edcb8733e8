//! An update that takes over what its rollout has computed gives the scores and gradients of one that computes it
//! itself.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use embodied_r_policy::lora::{LoraConfig, Module};
use embodied_r_policy::{
    Gradients, Group, PAGE, Policy, Precision, Request, Sampling, SharedPrompt, Tape, TapeOptions,
    TokenScores, Trainable,
};

/// Tied and untied embeddings, grouped queries, biases, and windows that cut prompts.
const MODELS: [&str; 4] = ["qwen2-tied", "qwen2-head-dim", "qwen2-window-layer-types", "llama"];

const TEMPERATURE: f64 = 0.8;

/// All layers of every model.
const WHOLE: TapeOptions = TapeOptions { layers: 9, tokens: 10_000 };

fn model(name: &str) -> Policy {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models").join(name);
    Policy::load(&folder).unwrap()
}

fn ids(n: usize, seed: usize) -> Vec<u32> {
    (0..n).map(|i| ((i * 31 + seed * 17 + i * i * 7) % 90) as u32).collect()
}

/// A rollout on a new tape.
fn drawn(
    policy: &Policy,
    precision: Precision,
    options: TapeOptions,
) -> (Vec<Group>, Option<Tape>) {
    drawn_on(Tape::new(policy.config(), options), policy, precision)
}

/// A rollout: prompts shorter and longer than a page, two of which begin alike, and completions that end early or late.
fn drawn_on(tape: Tape, policy: &Policy, precision: Precision) -> (Vec<Group>, Option<Tape>) {
    let alike = |seed| [ids(PAGE + 9, 3), ids(12, seed)].concat();
    let prompts = [ids(1, 1), ids(23, 2), alike(4), alike(5), ids(2 * PAGE, 6)];
    let requests: Vec<Request> = (0..)
        .zip(&prompts)
        .map(|(stream, prompt)| Request { prompt: prompt.clone().into(), samples: 4, stream })
        .collect();
    let sampling = Sampling {
        max_new_tokens: 30,
        stop_ids: (0..policy.config().vocab_size as u32).step_by(12).collect(),
        ..Sampling::default()
    };
    let (samples, tape) =
        policy.generate_taped(&requests, &sampling, (precision, Some(tape)), &|_| {}).unwrap();
    let group = |(prompt, samples): (Vec<u32>, Vec<embodied_r_policy::Sample>)| Group {
        prompt,
        completions: samples.into_iter().map(|sample| sample.ids).collect(),
    };
    (prompts.into_iter().zip(samples).map(group).collect(), tape)
}

/// The derivative of the loss for each token.
fn d_logps(tokens: usize) -> Vec<f32> {
    (0..tokens).map(|i| ((i * 13 % 7) as f32 - 2.5) / 5.0).collect()
}

type Computed = (TokenScores, Gradients);

fn packed(policy: &Policy, groups: &[Group], tape: Option<&Tape>) -> Computed {
    let mut gradients = policy.zero_gradients().unwrap();
    let forward = policy.training_forward(groups, TEMPERATURE, 1, tape).unwrap();
    let scores = forward.scores().clone();
    forward.backward(&d_logps(scores.logps.len()), &mut gradients).unwrap();
    (scores, gradients)
}

/// The group's first completion, and then the others, behind its prompt.
fn in_parts(policy: &Policy, group: &Group, tape: Option<&Tape>) -> Computed {
    let mut gradients = policy.zero_gradients().unwrap();
    let mut scores = TokenScores { logps: Vec::new(), entropies: Vec::new() };
    let with = (Some(1), tape);
    let shared = SharedPrompt::new(policy, &group.prompt, 90, TEMPERATURE, with).unwrap();
    let (first, others) = group.completions.split_at(1);
    for part in [first, others] {
        let part = shared.part(part).unwrap();
        let found = part.scores().clone();
        scores.logps.extend(&found.logps);
        scores.entropies.extend(&found.entropies);
        part.backward(&d_logps(found.logps.len()), &mut gradients).unwrap();
    }
    shared.backward(&mut gradients).unwrap();
    (scores, gradients)
}

/// Sums of some ten terms in another order, layer after layer: some ulps of the largest, of f32 or of bf16.
fn assert_same(name: &str, (a, da): &Computed, (b, db): &Computed, tolerance: f32) {
    for (a, b) in a.logps.iter().chain(&a.entropies).zip(b.logps.iter().chain(&b.entropies)) {
        assert!((a - b).abs() < tolerance * b.abs().max(1.0), "{name}: {a} and {b}");
    }
    for ((tensor, a), (_, b)) in da.iter().zip(db.iter()) {
        let [a, b] = [a, b].map(|x| x.flatten_all().unwrap().to_vec1::<f32>().unwrap());
        let largest = b.iter().fold(0f32, |most, x| most.max(x.abs()));
        assert!(largest > 0.0, "{name}: `{tensor}` has no gradient");
        for (a, b) in a.iter().zip(&b) {
            assert!((a - b).abs() < 2.0 * tolerance * largest, "{name}, `{tensor}`: {a} and {b}");
        }
    }
}

const F32: f32 = 5e-5;

#[test]
fn a_taped_update_is_the_one_that_computes_its_forward() {
    for name in MODELS {
        let policy = model(name);
        let (groups, _) = drawn(&policy, Precision::F32, WHOLE);
        let own = packed(&policy, &groups, None);
        // Inputs alone, the last layer, and all.
        for layers in [0, 1, 9] {
            let (again, tape) = drawn(&policy, Precision::F32, TapeOptions { layers, ..WHOLE });
            assert!(again == groups, "a tape changes no completion");
            let tape = tape.unwrap();
            assert!(groups.iter().all(|group| tape.holds(group)));
            let name = format!("{name}, {layers} layers");
            assert_same(&name, &packed(&policy, &groups, Some(&tape)), &own, F32);
            // Some of the groups, in another order.
            let some = [groups[4].clone(), groups[1].clone()];
            let own = packed(&policy, &some, None);
            assert_same(&name, &packed(&policy, &some, Some(&tape)), &own, F32);
        }
    }
}

#[test]
fn parts_behind_a_taped_prompt_are_those_behind_a_computed_one() {
    for name in MODELS {
        let policy = model(name);
        for layers in [0, 1, 9] {
            let (groups, tape) = drawn(&policy, Precision::F32, TapeOptions { layers, ..WHOLE });
            for group in &groups {
                let own = in_parts(&policy, group, None);
                let taped = in_parts(&policy, group, tape.as_ref());
                assert_same(&format!("{name}, {layers} layers"), &taped, &own, F32);
            }
        }
    }
}

#[test]
fn what_is_on_the_tape_is_not_computed() {
    let policy = model("qwen2-tied");
    let (groups, tape) = drawn(&policy, Precision::F32, WHOLE);
    let before = packed(&policy, &groups, tape.as_ref()).0;
    for (_, tensor) in policy.parameters().iter().filter(|(name, _)| name.contains("layers.")) {
        tensor.slice_set(&(tensor * 3.0).unwrap(), 0, 0).unwrap();
    }
    assert_eq!(packed(&policy, &groups, tape.as_ref()).0, before);
    assert_ne!(packed(&policy, &groups, None).0, before);
    let parts = in_parts(&policy, &groups[2], tape.as_ref()).0;
    let first =
        groups[..2].iter().flat_map(|group| &group.completions).map(Vec::len).sum::<usize>();
    for (a, b) in parts.logps.iter().zip(&before.logps[first..]) {
        assert!((a - b).abs() < 1e-5, "{a} and {b}");
    }
}

#[test]
fn what_is_not_on_the_tape_is_computed() {
    let policy = model("qwen2-tied");
    let (mut groups, tape) = drawn(&policy, Precision::F32, WHOLE);
    let tape = tape.unwrap();
    // One more token than was drawn, and a prompt that nobody asked for.
    groups[1].completions[0].push(5);
    groups.push(Group { prompt: ids(9, 8), completions: vec![ids(3, 1)] });
    assert!(!tape.holds(&groups[1]) && !tape.holds(&groups[5]) && tape.holds(&groups[2]));
    let own = packed(&policy, &groups, None);
    assert_same("packed", &packed(&policy, &groups, Some(&tape)), &own, F32);
    // A taped prompt before a part that is computed, and one that is taped.
    let own = in_parts(&policy, &groups[1], None);
    assert_same("parts", &in_parts(&policy, &groups[1], Some(&tape)), &own, F32);
}

#[test]
fn a_tape_that_is_full_holds_what_has_ended_before() {
    let policy = model("qwen2-tied");
    let tokens = [ids(1, 1).len(), 23, PAGE + 21, PAGE + 21, 2 * PAGE].iter().sum::<usize>() + 40;
    let (groups, tape) = drawn(&policy, Precision::F32, TapeOptions { layers: 9, tokens });
    let tape = tape.unwrap();
    let single = |completion: &Vec<u32>, group: &Group| Group {
        prompt: group.prompt.clone(),
        completions: vec![completion.clone()],
    };
    let all: Vec<Group> = groups
        .iter()
        .flat_map(|group| group.completions.iter().map(|ids| single(ids, group)))
        .collect();
    let (held, lost): (Vec<Group>, Vec<Group>) = all.into_iter().partition(|one| tape.holds(one));
    assert!(!held.is_empty() && !lost.is_empty());
    for some in [held, lost] {
        let own = packed(&policy, &some, None);
        assert_same("some", &packed(&policy, &some, Some(&tape)), &own, F32);
    }
}

#[test]
fn a_tape_serves_one_rollout_after_the_other() {
    let policy = model("qwen2-tied");
    let (before, tape) = drawn(&policy, Precision::F32, WHOLE);
    for (_, tensor) in policy.parameters().iter().filter(|(name, _)| name.contains("q_proj")) {
        tensor.slice_set(&(tensor * 2.0).unwrap(), 0, 0).unwrap();
    }
    let (groups, tape) = drawn_on(tape.unwrap(), &policy, Precision::F32);
    let tape = tape.unwrap();
    assert!(groups.iter().all(|group| tape.holds(group)));
    assert!(before.iter().any(|group| !tape.holds(group)));
    let own = packed(&policy, &groups, None);
    assert_same("again", &packed(&policy, &groups, Some(&tape)), &own, F32);
}

#[test]
fn bf16_is_taped_as_it_is_computed() {
    let policy = model("qwen2-head-dim").with_precision(Precision::Bf16);
    let (groups, tape) = drawn(&policy, Precision::Bf16, WHOLE);
    assert!(groups.iter().all(|group| tape.as_ref().unwrap().holds(group)));
    let own = packed(&policy, &groups, None);
    assert_same("bf16", &packed(&policy, &groups, tape.as_ref()), &own, 2e-2);
}

#[test]
fn an_adapter_is_taped_unless_it_drops_something() {
    let adapted = |lora_dropout| {
        let config = LoraConfig {
            r: 3,
            lora_alpha: 4,
            lora_dropout,
            target_modules: vec![Module::Q, Module::V, Module::Down],
            use_rslora: false,
            base_model_name_or_path: None,
        };
        let policy = model("qwen2-tied").with_trainable(&Trainable::Lora(config), 5).unwrap();
        for (_, tensor) in policy.parameters().iter().filter(|(name, _)| name.contains("lora_B")) {
            let numbers = (0..tensor.elem_count()).map(|i| 0.2 * ((i * i + 3) as f32).sin());
            let new = candle_core::Tensor::from_iter(numbers, tensor.device()).unwrap();
            tensor.slice_set(&new.reshape(tensor.shape()).unwrap(), 0, 0).unwrap();
        }
        policy
    };
    let policy = adapted(0.0);
    let (groups, tape) = drawn(&policy, Precision::F32, WHOLE);
    assert!(groups.iter().all(|group| tape.as_ref().unwrap().holds(group)));
    let own = packed(&policy, &groups, None);
    assert_same("adapter", &packed(&policy, &groups, tape.as_ref()), &own, F32);

    let dropping = adapted(0.3);
    assert!(drawn(&dropping, Precision::F32, WHOLE).1.is_none());
    // Not even a tape of the same numbers is taken for it.
    let own = packed(&dropping, &groups, None);
    assert_eq!(packed(&dropping, &groups, tape.as_ref()).0, own.0);
}

#[test]
fn frozen_layers_below_are_left_alone() {
    let frozen = Trainable::Except(vec!["embed_tokens".into(), "layers\\.0\\.".into()]);
    let policy = model("llama").with_trainable(&frozen, 0).unwrap();
    let (groups, tape) = drawn(&policy, Precision::F32, WHOLE);
    let own = packed(&policy, &groups, None);
    assert_same("frozen", &packed(&policy, &groups, tape.as_ref()), &own, F32);
    let own = in_parts(&policy, &groups[2], None);
    assert_same("frozen", &in_parts(&policy, &groups[2], tape.as_ref()), &own, F32);
}

#[test]
fn another_precision_gives_no_tape() {
    let policy = model("qwen2-tied");
    assert!(drawn(&policy, Precision::Bf16, WHOLE).1.is_none());
}
