//! A group has the same scores and gradients when packed, in chunks after a shared prompt, and with the
//! prompt repeated for every completion.

#![allow(clippy::unwrap_used)]

mod groups;

use embodied_r_policy::{Gradients, Group, Policy, SharedPrompt, TokenScores};
use groups::{ids, model};

/// Tied and untied embeddings, grouped-query attention, and sliding windows shorter than prompts.
const MODELS: [&str; 6] = [
    "qwen2-tied",
    "qwen2-head-dim",
    "qwen2-window-layer-types",
    "qwen3-tied",
    "qwen3-yarn-window",
    "llama",
];

const TEMPERATURE: f64 = 0.8;

/// A prompt with completions of one and of many tokens.
fn group() -> Group {
    let completions = [5, 1, 12, 7, 1, 9].iter().enumerate().map(|(i, n)| ids(*n, i + 2));
    Group { prompt: ids(23, 1).into(), completions: completions.collect() }
}

/// The loss gradient for each token of the group.
fn d_logps() -> Vec<f32> {
    let tokens: usize = group().completions.iter().map(Vec::len).sum();
    (0..tokens).map(|i| ((i * 13 % 7) as f32 - 3.0) / 5.0).collect()
}

fn whole(policy: &Policy) -> (TokenScores, Gradients) {
    let mut gradients = policy.zero_gradients().unwrap();
    let forward = policy.forward(&[group()], TEMPERATURE).unwrap();
    let scores = forward.scores().clone();
    forward.backward(&d_logps(), &mut gradients).unwrap();
    (scores, gradients)
}

/// The group in chunks of `sizes` completions.
fn in_chunks(policy: &Policy, sizes: &[usize]) -> (TokenScores, Gradients) {
    let Group { prompt, completions } = group();
    let mut gradients = policy.zero_gradients().unwrap();
    let shared = SharedPrompt::new(policy, &prompt, 30, TEMPERATURE, (None, None)).unwrap();
    let mut scores = TokenScores { logps: Vec::new(), entropies: Vec::new() };
    let (mut first, d_logps) = (0, d_logps());
    for size in sizes {
        let part = shared.forward_chunk(&completions[first..first + size]).unwrap();
        let tokens = scores.logps.len()..scores.logps.len() + part.scores().logps.len();
        scores.logps.extend(&part.scores().logps);
        scores.entropies.extend(&part.scores().entropies);
        part.backward(&d_logps[tokens], &mut gradients).unwrap();
        first += size;
    }
    shared.backward(&mut gradients).unwrap();
    (scores, gradients)
}

/// Every completion with its own copy of the prompt.
fn unshared(policy: &Policy) -> (TokenScores, Gradients) {
    let Group { prompt, completions } = group();
    let mut gradients = policy.zero_gradients().unwrap();
    let mut scores = TokenScores { logps: Vec::new(), entropies: Vec::new() };
    for completion in completions {
        let group = Group { prompt: prompt.clone(), completions: vec![completion] };
        let forward = policy.forward(&[group], TEMPERATURE).unwrap();
        let tokens = scores.logps.len()..scores.logps.len() + forward.scores().logps.len();
        scores.logps.extend(&forward.scores().logps);
        scores.entropies.extend(&forward.scores().entropies);
        forward.backward(&d_logps()[tokens], &mut gradients).unwrap();
    }
    (scores, gradients)
}

/// Sums of about ten terms in another order: a few ulps of the largest.
fn assert_same(name: &str, (a, da): &(TokenScores, Gradients), (b, db): &(TokenScores, Gradients)) {
    for (a, b) in a.logps.iter().chain(&a.entropies).zip(b.logps.iter().chain(&b.entropies)) {
        assert!((a - b).abs() < 2e-5, "{name}: {a} and {b}");
    }
    for ((tensor, a), (_, b)) in da.iter().zip(db.iter()) {
        let [a, b] = [a, b].map(|x| x.flatten_all().unwrap().to_vec1::<f32>().unwrap());
        let largest = b.iter().fold(0f32, |max, x| max.max(x.abs()));
        assert!(largest > 0.0, "{name}: `{tensor}` has no gradient");
        for (a, b) in a.iter().zip(&b) {
            assert!((a - b).abs() < 3e-5 * largest, "{name}, `{tensor}`: {a} and {b}");
        }
    }
}

#[test]
fn a_group_in_chunks_equals_the_packed_group() {
    for name in MODELS {
        let policy = model(name);
        let whole = whole(&policy);
        for sizes in [&[6][..], &[1, 1, 1, 1, 1, 1], &[2, 4], &[5, 1]] {
            assert_same(&format!("{name} {sizes:?}"), &in_chunks(&policy, sizes), &whole);
        }
    }
}

#[test]
fn a_shared_prompt_equals_repeated_prompts() {
    for name in MODELS {
        let policy = model(name);
        assert_same(name, &whole(&policy), &unshared(&policy));
    }
}

#[test]
fn recomputed_layers_are_bit_identical() {
    let values = |gradients: &Gradients| -> Vec<Vec<f32>> {
        let tensors = gradients.iter().map(|(_, x)| x.flatten_all().unwrap().to_vec1().unwrap());
        tensors.collect()
    };
    let kept = model("qwen2-tied");
    let (whole_kept, parts_kept) = (whole(&kept).1, in_chunks(&kept, &[2, 4]).1);
    // Saves no layer, or one of two layers of the longest pass.
    for bytes in [0, 60_000] {
        let policy = model("qwen2-tied").with_activation_bytes(bytes);
        assert_eq!(values(&whole(&policy).1), values(&whole_kept), "{bytes}");
        assert_eq!(values(&in_chunks(&policy, &[2, 4]).1), values(&parts_kept), "{bytes}");
    }
}

#[test]
fn chunks_have_the_scores_of_the_packed_group() {
    let policy = model("qwen2-window-layer-types");
    let Group { prompt, completions } = group();
    let parts = [&completions[..1], &completions[1..2], &completions[2..]];
    let scores = policy.score_chunks(&prompt, &parts, TEMPERATURE).unwrap();
    let logps: Vec<f32> = scores.into_iter().flat_map(|scores| scores.logps).collect();
    let whole = policy.score(&[group()], TEMPERATURE).unwrap().logps;
    assert_eq!(logps.len(), whole.len());
    assert!(logps.iter().zip(&whole).all(|(a, b)| (a - b).abs() < 2e-5), "{logps:?} {whole:?}");
}
