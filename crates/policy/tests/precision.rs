//! bf16 matmuls compared with f32, on the fixtures of every supported family.
//!
//! The tolerance is the error of torch's autocast on the same models: there is no absolute one, since random weights
//! have much steeper distributions than trained ones. Autocast also rounds matmul outputs and attention, unlike our
//! bf16. `bf16.json` is generated and described by `scripts/parity/make_bf16_fixtures.py`.
//!
//! With `-- --nocapture` the tests print the mean errors that `docs/benchmarks.md` gives.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use embodied_r_policy::{
    CompletionOutput, GenerationRequest, Gradients, Group, Policy, Precision, SamplingParams,
};
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

/// The error of autocast relative to f32.
#[derive(Deserialize, Clone, Copy)]
struct Autocast {
    logps: f64,
    gradients: f64,
}

/// A model, groups to score, and the loss gradients of their tokens.
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
        let group = |Tokens { prompt, completions }| Group { prompt: prompt.into(), completions };
        let Weights { temperature, dlogps } = gradients;
        let groups = groups.into_iter().map(group).collect();
        Fixture { name, dir, groups, temperature, dlogps, autocast }
    };
    let fixtures: Vec<Fixture> = autocast.into_iter().map(read).collect();
    assert_eq!(fixtures.len(), std::fs::read_dir(root.join("models")).unwrap().count());
    fixtures
}

/// The root mean square error.
fn rmse(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let squares = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2));
    (squares.sum::<f64>() / a.len() as f64).sqrt()
}

#[test]
fn scores_in_bf16_differ_from_f32_by_less_than_autocast() {
    let (mut all_ours, mut all_autocasts) = (0.0, 0.0);
    let fixtures = fixtures();
    for fixture in &fixtures {
        let (f32, bf16) = (fixture.policy(Precision::F32), fixture.policy(Precision::Bf16));
        let truth = f32.score(&fixture.groups, fixture.temperature).unwrap();
        let ours = bf16.score(&fixture.groups, fixture.temperature).unwrap();
        let logps = rmse(&ours.logps, &truth.logps);
        assert!(logps > 0.0 && logps < fixture.autocast.logps, "{}: {logps}", fixture.name);
        let entropies = rmse(&ours.entropies, &truth.entropies);
        assert!(entropies < fixture.autocast.logps, "{}: {entropies}", fixture.name);
        let forward = bf16.forward(&fixture.groups, fixture.temperature).unwrap();
        assert_eq!(*forward.scores(), ours, "{}", fixture.name);
        all_ours += logps;
        all_autocasts += fixture.autocast.logps;
    }
    let n = fixtures.len() as f64;
    println!("log-probabilities: RMSE {:.5}, autocast {:.5}", all_ours / n, all_autocasts / n);
}

#[test]
fn samples_in_bf16_have_the_log_probabilities_of_scoring() {
    for fixture in fixtures() {
        let (f32, bf16) = (fixture.policy(Precision::F32), fixture.policy(Precision::Bf16));
        let prompt = fixture.groups[0].prompt.clone();
        let request =
            GenerationRequest { prompt: prompt.clone(), samples: 4, stream: 7, first_sample: 0 };
        let sampling = SamplingParams { max_new_tokens: 24, ..SamplingParams::default() };
        let samples = bf16.generate(&[request], &sampling, &|_| {}).unwrap().remove(0);
        let completions = samples.iter().map(|sample| sample.ids.clone()).collect();
        let group = [Group { prompt, completions }];
        let drawn: Vec<f32> =
            samples.into_iter().flat_map(|CompletionOutput { logps, .. }| logps).collect();
        let scored = rmse(&drawn, &bf16.score(&group, 1.0).unwrap().logps);
        // The order of summation differs, which occasionally changes the rounding of a factor.
        assert!(scored < fixture.autocast.logps / 4.0, "{}: {scored}", fixture.name);
        let in_f32 = rmse(&drawn, &f32.score(&group, 1.0).unwrap().logps);
        assert!(in_f32 < fixture.autocast.logps, "{}: {in_f32}", fixture.name);
    }
}

fn gradients(policy: &Policy, fixture: &Fixture) -> BTreeMap<String, Vec<f64>> {
    let forward = policy.forward(&fixture.groups, fixture.temperature).unwrap();
    let mut grads: Gradients = policy.zero_gradients().unwrap();
    forward.backward(&fixture.dlogps, &mut grads).unwrap();
    let values = |(name, grad): (&str, &candle_core::Tensor)| {
        let values = grad.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        (name.to_owned(), values.into_iter().map(f64::from).collect())
    };
    grads.iter().map(values).collect()
}

fn norm(x: impl Iterator<Item = f64>) -> f64 {
    x.map(|x| x * x).sum::<f64>().sqrt()
}

#[test]
fn gradients_in_bf16_are_closer_to_f32_than_autocast() {
    let (mut all_ours, mut all_autocasts) = (0.0, 0.0);
    let fixtures = fixtures();
    for fixture in &fixtures {
        let truth = gradients(&fixture.policy(Precision::F32), fixture);
        let ours = gradients(&fixture.policy(Precision::Bf16), fixture);
        let all = truth.iter().flat_map(|(name, truth)| ours[name].iter().zip(truth));
        let whole = norm(truth.values().flatten().copied());
        let error = norm(all.map(|(a, b)| a - b)) / whole;
        // Rounding is partly chance on a single model, less so over all of them.
        assert!(error < 1.5 * fixture.autocast.gradients, "{}: {error}", fixture.name);
        all_ours += error;
        all_autocasts += fixture.autocast.gradients;
        for (name, truth) in &truth {
            let error = norm(ours[name].iter().zip(truth).map(|(a, b)| a - b));
            // Some dozen consecutive matmuls have factors with a relative error of at most 2⁻⁹. Sums that nearly
            // cancel, such as a key bias's gradient, keep the rounding error of their terms.
            let bound = 0.05 * norm(truth.iter().copied()) + 5e-4 * whole;
            assert!(error < bound, "{}: {name}: {error}, not {bound}", fixture.name);
        }
    }
    let n = fixtures.len() as f64;
    println!("gradients: relative error {:.5}, autocast {:.5}", all_ours / n, all_autocasts / n);
    assert!(all_ours < all_autocasts, "{all_ours}, not {all_autocasts}");
}

#[test]
fn recomputed_activations_give_the_same_gradients_in_bf16() {
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
