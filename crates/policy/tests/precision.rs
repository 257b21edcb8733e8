//! Products in bf16 beside the same products in f32, on the fixtures of every supported family.
//!
//! How far apart they may be is what torch's autocast makes of the same models: bf16 cannot be held to a
//! number of its own, as random weights have much steeper distributions than trained ones. Beyond what
//! is done here autocast rounds the products themselves and attention. `bf16.json` is made by
//! `scripts/parity/make_bf16_fixtures.py`, which says what it holds.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use embodied_r_policy::{Gradients, Group, Policy, Precision, Request, Sample, Sampling};
use serde::Deserialize;

#[derive(Deserialize)]
struct Expected {
    groups: Vec<Tokens>,
    gradients: Weights,
}

#[derive(Deserialize)]
struct Tokens {
    prompt: Vec<u32>,
    completions: Vec<Vec<u32>>,
}

#[derive(Deserialize)]
struct Weights {
    temperature: f64,
    dlogps: Vec<f32>,
}

/// How far autocast is from f32.
#[derive(Deserialize, Clone, Copy)]
struct Autocast {
    logps: f64,
    gradients: f64,
}

/// A model, groups to score, and what a loss gives their tokens.
struct Fixture {
    name: String,
    dir: PathBuf,
    groups: Vec<Group>,
    temperature: f64,
    dlogps: Vec<f32>,
    autocast: Autocast,
}

impl Fixture {
    fn policy(&self, precision: Precision) -> Policy {
        Policy::load(&self.dir).unwrap().with_precision(precision)
    }
}

fn fixtures() -> Vec<Fixture> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let autocast = std::fs::read(root.join("bf16.json")).unwrap();
    let autocast: BTreeMap<String, Autocast> = serde_json::from_slice(&autocast).unwrap();
    let read = |(name, autocast): (String, Autocast)| {
        let dir = root.join("models").join(&name);
        let expected = std::fs::read(dir.join("expected.json")).unwrap();
        let Expected { groups, gradients } = serde_json::from_slice(&expected).unwrap();
        let group = |Tokens { prompt, completions }| Group { prompt, completions };
        let Weights { temperature, dlogps } = gradients;
        let groups = groups.into_iter().map(group).collect();
        Fixture { name, dir, groups, temperature, dlogps, autocast }
    };
    let fixtures: Vec<Fixture> = autocast.into_iter().map(read).collect();
    assert_eq!(fixtures.len(), std::fs::read_dir(root.join("models")).unwrap().count());
    fixtures
}

/// The root of the mean square of the differences.
fn apart(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let squares = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2));
    (squares.sum::<f64>() / a.len() as f64).sqrt()
}

#[test]
fn scores_in_bf16_are_nearer_to_those_in_f32_than_autocasts_and_not_the_same() {
    for fixture in fixtures() {
        let (f32, bf16) = (fixture.policy(Precision::F32), fixture.policy(Precision::Bf16));
        let truth = f32.score(&fixture.groups, fixture.temperature).unwrap();
        let ours = bf16.score(&fixture.groups, fixture.temperature).unwrap();
        let logps = apart(&ours.logps, &truth.logps);
        assert!(logps > 0.0 && logps < fixture.autocast.logps, "{}: {logps}", fixture.name);
        let entropies = apart(&ours.entropies, &truth.entropies);
        assert!(entropies < fixture.autocast.logps, "{}: {entropies}", fixture.name);
        let forward = bf16.forward(&fixture.groups, fixture.temperature).unwrap();
        assert_eq!(*forward.scores(), ours, "{}", fixture.name);
    }
}

#[test]
fn what_is_sampled_in_bf16_has_the_log_probabilities_that_scoring_gives_it() {
    for fixture in fixtures() {
        let (f32, bf16) = (fixture.policy(Precision::F32), fixture.policy(Precision::Bf16));
        let prompt = fixture.groups[0].prompt.clone();
        let request = Request { prompt: prompt.clone().into(), samples: 4, stream: 7 };
        let sampling = Sampling { max_new_tokens: 24, ..Sampling::default() };
        let samples = bf16.generate(&[request], &sampling, &|_| {}).unwrap().remove(0);
        let completions = samples.iter().map(|sample| sample.ids.clone()).collect();
        let group = [Group { prompt, completions }];
        let drawn: Vec<f32> = samples.into_iter().flat_map(|Sample { logps, .. }| logps).collect();
        let scored = apart(&drawn, &bf16.score(&group, 1.0).unwrap().logps);
        // The order of sums differs, and with it now and then what a factor is rounded to.
        assert!(scored < fixture.autocast.logps / 4.0, "{}: {scored}", fixture.name);
        let in_f32 = apart(&drawn, &f32.score(&group, 1.0).unwrap().logps);
        assert!(in_f32 < fixture.autocast.logps, "{}: {in_f32}", fixture.name);
    }
}

fn gradients(policy: &Policy, fixture: &Fixture) -> BTreeMap<String, Vec<f64>> {
    let forward = policy.forward(&fixture.groups, fixture.temperature).unwrap();
    let mut grads: Gradients = policy.zero_gradients().unwrap();
    forward.backward(&fixture.dlogps, &mut grads).unwrap();
    let numbers = |(name, grad): (&str, &candle_core::Tensor)| {
        let numbers = grad.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        (name.to_owned(), numbers.into_iter().map(f64::from).collect())
    };
    grads.iter().map(numbers).collect()
}

fn norm(x: impl Iterator<Item = f64>) -> f64 {
    x.map(|x| x * x).sum::<f64>().sqrt()
}

#[test]
fn gradients_in_bf16_are_nearer_to_those_in_f32_than_autocasts() {
    let (mut all_ours, mut all_autocasts) = (0.0, 0.0);
    for fixture in fixtures() {
        let truth = gradients(&fixture.policy(Precision::F32), &fixture);
        let ours = gradients(&fixture.policy(Precision::Bf16), &fixture);
        let all = truth.iter().flat_map(|(name, truth)| ours[name].iter().zip(truth));
        let whole = norm(truth.values().flatten().copied());
        let apart = norm(all.map(|(a, b)| a - b)) / whole;
        // On one model chance has a say in what is rounded where, over all of them less.
        assert!(apart < 1.5 * fixture.autocast.gradients, "{}: {apart}", fixture.name);
        all_ours += apart;
        all_autocasts += fixture.autocast.gradients;
        for (name, truth) in &truth {
            let apart = norm(ours[name].iter().zip(truth).map(|(a, b)| a - b));
            // Some dozen products stand behind one another, whose factors are off by 2⁻⁹ of themselves
            // at most. What nearly cancels, as a key's bias does, keeps the rounding of its terms.
            let bound = 0.05 * norm(truth.iter().copied()) + 5e-4 * whole;
            assert!(apart < bound, "{}: {name}: {apart}, not {bound}", fixture.name);
        }
    }
    assert!(all_ours < all_autocasts, "{all_ours}, not {all_autocasts}");
}

#[test]
fn activations_computed_again_give_the_same_gradients_in_bf16() {
    for fixture in fixtures() {
        let kept = fixture.policy(Precision::Bf16);
        let again = fixture.policy(Precision::Bf16).with_activation_bytes(0);
        assert_eq!(gradients(&kept, &fixture), gradients(&again, &fixture));
    }
}

#[test]
fn a_frozen_copy_keeps_the_precision() {
    let fixture = fixtures().remove(0);
    let policy = fixture.policy(Precision::Bf16);
    let copy = policy.frozen_copy().unwrap();
    let of = |policy: &Policy| policy.score(&fixture.groups, 1.0).unwrap();
    assert_eq!(of(&copy), of(&policy));
}
