//! Prompts with images take the same training path as text: packed, in chunks, and with a rollout's activations.

#![allow(clippy::unwrap_used)]

mod groups;

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use embodied_r_policy::{
    ActivationCache, ActivationCacheOptions, GenerateOptions, GenerationRequest, Gradients, Group,
    ImageEmbedder, ImageSpan, PAGE_SIZE, Policy, Prompt, PromptImage, Result, SamplingParams,
    SharedPrompt, TokenScores, Trainable,
};
use groups::{ids, model};
use indexmap::IndexMap;

const MODEL: &str = "qwen2_5_vl-nested";
const HIDDEN: usize = 32;
const TEMPERATURE: f64 = 0.8;

/// Sides of the images in tokens, by digest.
const IMAGES: [(u128, usize, usize); 3] = [(7, 2, 3), (8, 4, 4), (9, 3, 5)];

/// The digest of another image of the shape of the second.
const OTHER: u128 = 10;

/// Features of one level, and of three: what is added after the last of the model's two layers, too.
const LEVELS: [usize; 2] = [1, 3];

/// Features by digest.
struct Embeddings {
    of_images: HashMap<u128, Tensor>,
    levels: usize,
}

impl ImageEmbedder for Embeddings {
    fn embeddings(&self, digest: u128) -> Result<Tensor> {
        Ok(self.of_images[&digest].clone())
    }

    fn levels(&self) -> usize {
        self.levels
    }
}

impl Embeddings {
    fn random(levels: usize) -> Self {
        let values = |(digest, height, width): (u128, usize, usize)| {
            let at = |i: usize| ((i * 37 + digest as usize * 11) % 97) as f32 / 97.0 - 0.5;
            let rows = levels * height * width;
            let values: Vec<f32> = (0..rows * HIDDEN).map(at).collect();
            (digest, Tensor::from_vec(values, (rows, HIDDEN), &Device::Cpu).unwrap())
        };
        let of_images = IMAGES.into_iter().chain([(OTHER, 4, 4)]).map(values).collect();
        Self { of_images, levels }
    }

    /// All embeddings, with `step` times `direction` added to those of an image.
    fn moved(&self, digest: u128, direction: &Tensor, step: f64) -> Self {
        let mut of_images = self.of_images.clone();
        of_images.insert(digest, ((direction * step).unwrap() + &of_images[&digest]).unwrap());
        Self { of_images, levels: self.levels }
    }
}

/// The image at token `offset` of a prompt.
fn image(index: usize, offset: usize) -> PromptImage {
    let (digest, height, width) = IMAGES[index];
    let position_ids = (0..height * width).map(|i| [0, i / width, i % width]).collect();
    PromptImage::consecutive(offset, position_ids, digest)
}

/// The last image as three frames of a row each, with text between them.
fn frames(offset: usize) -> PromptImage {
    let (digest, height, width) = IMAGES[2];
    let position_ids: Vec<_> = (0..width).map(|x| [0, 0, x]).collect();
    let span = |frame| ImageSpan {
        offset: offset + frame * (width + 2),
        position_ids: position_ids.clone(),
    };
    PromptImage { spans: (0..height).map(span).collect(), digest, embeddings: None }
}

/// A prompt of `tokens` with the images at their offsets.
fn prompt(tokens: usize, images: &[(usize, usize)]) -> Prompt {
    let images = images.iter().map(|(index, offset)| image(*index, *offset)).collect();
    Prompt::with_images(ids(tokens, 1), images).unwrap()
}

/// Groups of one image, of two, one of them at the end of the prompt, of text, and of a video with text between frames.
fn all_groups() -> Vec<Group> {
    let completions = |seed: usize| {
        [5, 1, 12, 7].iter().enumerate().map(|(i, n)| ids(*n, i + seed)).collect::<Vec<_>>()
    };
    vec![
        Group { prompt: prompt(23, &[(0, 4)]), completions: completions(2) },
        Group { prompt: prompt(40, &[(0, 1), (1, 24)]), completions: completions(5) },
        Group { prompt: prompt(9, &[]), completions: completions(8) },
        Group {
            prompt: Prompt::with_images(ids(25, 1), vec![frames(3)]).unwrap(),
            completions: completions(11),
        },
    ]
}

fn policy(embeddings: Embeddings) -> Policy {
    model(MODEL).with_images(Arc::new(embeddings), true)
}

fn d_logps(tokens: usize) -> Vec<f32> {
    (0..tokens).map(|i| ((i * 13 % 7) as f32 - 2.5) / 5.0).collect()
}

/// The scores, the gradients of all tensors, and those of the images.
struct Computed {
    logps: Vec<f32>,
    gradients: IndexMap<String, Tensor>,
}

fn computed(scores: Vec<f32>, gradients: &Gradients) -> Computed {
    let tensors = gradients.iter().map(|(name, tensor)| (name.to_owned(), tensor.clone()));
    let images = gradients.images().unwrap().take();
    let images = images.into_iter().map(|(digest, tensor)| (format!("image {digest}"), tensor));
    Computed { logps: scores, gradients: tensors.chain(images).collect() }
}

fn packed(policy: &Policy, groups: &[Group], cache: Option<&ActivationCache>) -> Computed {
    let mut gradients = policy.zero_gradients().unwrap();
    let forward = policy.training_forward(groups, TEMPERATURE, 1, cache).unwrap();
    let logps = forward.scores().logps.clone();
    forward.backward(&d_logps(logps.len()), &mut gradients).unwrap();
    computed(logps, &gradients)
}

/// Each completion with a copy of the prompt.
fn unshared(policy: &Policy, groups: &[Group]) -> Computed {
    let mut gradients = policy.zero_gradients().unwrap();
    let mut logps = Vec::new();
    let tokens = groups.iter().flat_map(|group| &group.completions).map(Vec::len).sum();
    let d_logps = d_logps(tokens);
    for group in groups {
        for completion in &group.completions {
            let group =
                Group { prompt: group.prompt.clone(), completions: vec![completion.clone()] };
            let forward = policy.forward(&[group], TEMPERATURE).unwrap();
            let tokens = logps.len()..logps.len() + completion.len();
            logps.extend(&forward.scores().logps);
            forward.backward(&d_logps[tokens], &mut gradients).unwrap();
        }
    }
    computed(logps, &gradients)
}

/// Each group's completions in two chunks.
fn in_chunks(policy: &Policy, groups: &[Group], cache: Option<&ActivationCache>) -> Computed {
    let mut gradients = policy.zero_gradients().unwrap();
    let mut scores = TokenScores { logps: Vec::new(), entropies: Vec::new() };
    let tokens = groups.iter().flat_map(|group| &group.completions).map(Vec::len).sum();
    let d_logps = d_logps(tokens);
    for group in groups {
        let with = (Some(1), cache);
        let shared = SharedPrompt::new(policy, &group.prompt, 90, TEMPERATURE, with).unwrap();
        let (first, others) = group.completions.split_at(1);
        for part in [first, others] {
            let part = shared.forward_chunk(part).unwrap();
            let tokens = scores.logps.len()..scores.logps.len() + part.scores().logps.len();
            scores.logps.extend(&part.scores().logps);
            part.backward(&d_logps[tokens], &mut gradients).unwrap();
        }
        shared.backward(&mut gradients).unwrap();
    }
    computed(scores.logps, &gradients)
}

/// Sums of about a hundred terms in another order: some ulps of the largest.
fn assert_same(a: &Computed, b: &Computed) {
    assert_eq!(a.logps.len(), b.logps.len());
    for (a, b) in a.logps.iter().zip(&b.logps) {
        assert!((a - b).abs() < 2e-5, "{a} and {b}");
    }
    assert_eq!(a.gradients.len(), b.gradients.len());
    for (name, a) in &a.gradients {
        let [a, b] = [a, &b.gradients[name]];
        let [a, b] = [a, b].map(|x| x.flatten_all().unwrap().to_vec1::<f32>().unwrap());
        let largest = b.iter().fold(0f32, |max, x| max.max(x.abs()));
        assert!(largest > 0.0, "`{name}` has no gradient");
        for (a, b) in a.iter().zip(&b) {
            assert!((a - b).abs() < 5e-5 * largest, "`{name}`: {a} and {b}");
        }
    }
}

#[test]
fn packing_and_chunks_change_nothing() {
    for levels in LEVELS {
        let (policy, groups) = (policy(Embeddings::random(levels)), all_groups());
        let unshared = unshared(&policy, &groups);
        assert_eq!(unshared.gradients.keys().filter(|name| name.starts_with("image")).count(), 3);
        assert_same(&packed(&policy, &groups, None), &unshared);
        assert_same(&in_chunks(&policy, &groups, None), &unshared);
        let recomputed = model(MODEL).with_images(Arc::new(Embeddings::random(levels)), true);
        assert_same(&packed(&recomputed.with_activation_bytes(0), &groups, None), &unshared);
    }
}

#[test]
fn embeddings_may_come_with_the_prompt() {
    let embeddings = Embeddings::random(3);
    let groups = all_groups();
    let embedded = groups.iter().map(|group| Group {
        prompt: group.prompt.embedded(Some(&embeddings)).unwrap(),
        completions: group.completions.clone(),
    });
    let embedded: Vec<Group> = embedded.collect();
    let want = policy(embeddings).score(&groups, TEMPERATURE).unwrap();
    assert_eq!(model(MODEL).score(&embedded, TEMPERATURE).unwrap(), want);
    let error = model(MODEL).score(&groups, TEMPERATURE).unwrap_err().to_string();
    assert!(error.contains("an image has no embeddings"), "{error}");
}

#[test]
fn each_level_changes_the_scores() {
    let scores = |levels| {
        policy(Embeddings::random(levels)).score(&all_groups(), TEMPERATURE).unwrap().logps
    };
    let [one, two, three, four] = [1, 2, 3, 4].map(scores);
    assert!(one != two && two != three, "levels that are added after both layers");
    assert_eq!(three, four, "there is no third layer");
}

#[test]
fn an_update_reuses_the_activations_of_its_rollout() {
    LEVELS.into_iter().for_each(assert_reused);
}

fn assert_reused(levels: usize) {
    let policy = policy(Embeddings::random(levels));
    // One prompt is longer than a page, and the last two differ in nothing but their image.
    let other = PromptImage { digest: OTHER, ..image(1, 8) };
    let prompts = [
        prompt(23, &[(0, 4)]),
        prompt(PAGE_SIZE + 20, &[(1, 3), (2, 30)]),
        prompt(50, &[(1, 8)]),
        Prompt::with_images(ids(50, 1), vec![other]).unwrap(),
        Prompt::with_images(ids(PAGE_SIZE + 30, 1), vec![frames(PAGE_SIZE - 9)]).unwrap(),
    ];
    let request = |(stream, prompt): (u64, &Prompt)| GenerationRequest {
        prompt: prompt.clone(),
        samples: 3,
        stream,
        first_sample: 0,
    };
    let requests: Vec<GenerationRequest> = (0..).zip(&prompts).map(request).collect();
    let sampling = SamplingParams {
        temperature: TEMPERATURE,
        max_new_tokens: 20,
        stop_ids: (0..96).step_by(12).collect(),
        ..SamplingParams::default()
    };
    let cache = ActivationCacheOptions { layers: 9, tokens: 10_000 };
    let cache = ActivationCache::new(policy.config(), cache);
    let options = GenerateOptions { precision: None, activation_cache: Some(cache) };
    let (samples, cache) =
        policy.generate_with_activation_cache(&requests, &sampling, options, &|_| {}).unwrap();
    let cache = cache.unwrap();
    let sampled: Vec<f32> =
        samples.iter().flatten().flat_map(|sample| sample.logps.clone()).collect();
    let groups: Vec<Group> = prompts
        .iter()
        .zip(samples)
        .map(|(prompt, samples)| Group {
            prompt: prompt.clone(),
            completions: samples.into_iter().map(|sample| sample.ids).collect(),
        })
        .collect();
    assert!(groups.iter().all(|group| cache.contains(group)));
    let alone = packed(&policy, &groups, None);
    for (a, b) in sampled.iter().zip(&alone.logps) {
        assert!((a - b).abs() < 2e-5, "sampled with {a}, scored {b}");
    }
    assert_same(&packed(&policy, &groups, Some(&cache)), &alone);
    assert_same(&in_chunks(&policy, &groups, Some(&cache)), &in_chunks(&policy, &groups, None));
}

/// `Σ d_logps · logps` in f64.
fn objective(policy: &Policy, groups: &[Group]) -> f64 {
    let logps = policy.score(groups, TEMPERATURE).unwrap().logps;
    logps.iter().zip(d_logps(logps.len())).map(|(a, b)| f64::from(*a) * f64::from(b)).sum()
}

#[test]
fn image_gradients_agree_with_finite_differences() {
    let (groups, levels) = (all_groups(), 3);
    let found = packed(&policy(Embeddings::random(levels)), &groups, None).gradients;
    for (digest, level) in [7, 8, 9].into_iter().flat_map(|it| [(it, 0), (it, 1), (it, 2)]) {
        let gradient = &found[&format!("image {digest}")];
        let tokens = gradient.dims()[0] / levels;
        let others = Tensor::zeros_like(gradient).unwrap();
        let of_level = gradient.narrow(0, level * tokens, tokens).unwrap();
        let rows = level * tokens..(level + 1) * tokens;
        let gradient = &others.slice_assign(&[rows, 0..HIDDEN], &of_level).unwrap();
        // The gradient's own direction: the largest change for a step.
        let norm = gradient.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap().sqrt();
        let direction = (gradient / f64::from(norm)).unwrap();
        // f32 scores have an error of about 1e-5, which a step of 0.02 turns into 5e-4 of a slope of 1. A steeper slope
        // bends sooner.
        let step = (0.1 / f64::from(norm)).min(0.02);
        let at = |step| {
            let moved = Embeddings::random(levels).moved(digest, &direction, step);
            objective(&policy(moved), &groups)
        };
        let slope = (at(step) - at(-step)) / (2.0 * step);
        let relative = (slope - f64::from(norm)).abs() / f64::from(norm);
        // What is added after the last layer reaches a score only from the last row of a prompt.
        if norm > 0.0 || level < 2 {
            assert!(relative < 2e-3, "image {digest}, level {level}: {slope} and {norm}");
        }
    }
}

#[test]
fn placeholder_tokens_have_no_gradient() {
    let group = |prompt: Vec<u32>, images| Group {
        prompt: Prompt::with_images(prompt, images).unwrap(),
        completions: vec![vec![1, 2]],
    };
    // The token 90 occurs in place of the image only, and the head of the model is tied to its embedding.
    let ids = [vec![3, 4], vec![90; 6], vec![5]].concat();
    let untied = model(MODEL).with_images(Arc::new(Embeddings::random(1)), true);
    let rows = |group: Group| {
        let found = packed(&untied, &[group], None).gradients;
        found["model.embed_tokens.weight"].to_vec2::<f32>().unwrap()
    };
    let placeholders = rows(group(ids.clone(), vec![image(0, 2)]));
    // With another token in its place, nothing changes.
    let other: Vec<u32> = ids.iter().map(|id| if *id == 90 { 80 } else { *id }).collect();
    assert_eq!(rows(group(other, vec![image(0, 2)])), placeholders);
    // The token's row has the gradient of the head alone, which is small next to that of an input.
    let text = rows(group(ids, Vec::new()));
    let size = |row: &[f32]| row.iter().map(|x| x * x).sum::<f32>().sqrt();
    assert!(size(&text[90]) > 3.0 * size(&placeholders[90]));
}

#[test]
fn images_are_trained_below_frozen_layers() {
    let groups = all_groups();
    let all = packed(&policy(Embeddings::random(3)), &groups, None).gradients;
    let frozen = Trainable::AllExcept(vec!["embed_tokens".into(), "layers\\.".into()]);
    let policy = policy(Embeddings::random(3)).with_trainable(&frozen, 1).unwrap();
    let found = packed(&policy, &groups, None).gradients;
    let mut names: Vec<&String> = found.keys().collect();
    names.sort_by_key(|name| name.starts_with("image").then_some(*name));
    assert_eq!(names, ["model.norm.weight", "image 7", "image 8", "image 9"]);
    for (name, gradient) in &found {
        let [a, b] = [gradient, &all[name]]
            .map(|gradient| gradient.flatten_all().unwrap().to_vec1::<f32>().unwrap());
        assert_eq!(a, b, "{name}");
    }
}

#[test]
fn a_text_model_refuses_images() {
    let groups = [Group { prompt: prompt(23, &[(0, 4)]), completions: vec![vec![1]] }];
    let policy = model("qwen2-tied").with_images(Arc::new(Embeddings::random(1)), true);
    let error = policy.score(&groups, 1.0).unwrap_err().to_string();
    assert!(error.contains("text-only"), "{error}");
}

#[test]
fn a_prompt_survives_serialization() {
    let prompt = prompt(40, &[(0, 1), (1, 24)]);
    let text = serde_json::to_string(&prompt).unwrap();
    let read: Prompt = serde_json::from_str(&text).unwrap();
    assert_eq!(read, prompt);
    assert!((0..45).all(|index| read.position(index) == prompt.position(index)));
    assert!(
        serde_json::from_str::<Prompt>(&text.replace("\"offset\":24", "\"offset\":4")).is_err()
    );
    assert_eq!(serde_json::from_str::<Prompt>("{\"ids\": [1, 2]}").unwrap(), vec![1, 2].into());
}
