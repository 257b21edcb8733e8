//! Parity of the decoder with `transformers`, on small random models of every supported family and layout.
//!
//! The fixtures are generated and described by `scripts/parity/make_model_fixtures.py`.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use embodied_r_policy::weights::SaveOptions;
use embodied_r_policy::{GenerationRequest, Group, Policy, SamplingParams, WeightDtype};
use serde::Deserialize;

/// The project's tolerance for log-probabilities.
const TOLERANCE: f32 = 1e-4;

#[derive(Deserialize)]
struct Expected {
    groups: Vec<Tokens>,
    scores: Vec<Scores>,
    next_token: NextToken,
    greedy: Greedy,
    gradients: ExpectedGradients,
}

#[derive(Deserialize)]
struct Tokens {
    prompt: Vec<u32>,
    completions: Vec<Vec<u32>>,
}

#[derive(Deserialize)]
struct Scores {
    temperature: f64,
    logps: Vec<f32>,
    entropies: Vec<f32>,
}

#[derive(Deserialize)]
struct NextToken {
    prompt: Vec<u32>,
    logps: Vec<f32>,
}

#[derive(Deserialize)]
struct Greedy {
    prompt: Vec<u32>,
    ids: Vec<u32>,
}

#[derive(Deserialize)]
struct ExpectedGradients {
    temperature: f64,
    dlogps: Vec<f32>,
    tensors: BTreeMap<String, ExpectedGradient>,
    /// All elements of some tensors.
    #[serde(default)]
    whole: BTreeMap<String, Vec<f32>>,
}

#[derive(Deserialize)]
struct ExpectedGradient {
    norm: f64,
    /// Dot product with sin(1), sin(2), …, which is sensitive to order and sign, unlike a norm.
    sines: f64,
}

struct Fixture {
    name: String,
    dir: PathBuf,
    expected: Expected,
}

impl Fixture {
    fn policy(&self) -> Policy {
        Policy::load(&self.dir).unwrap()
    }

    fn groups(&self) -> Vec<Group> {
        let group = |tokens: &Tokens| Group {
            prompt: tokens.prompt.clone().into(),
            completions: tokens.completions.clone(),
        };
        self.expected.groups.iter().map(group).collect()
    }
}

fn fixtures() -> Vec<Fixture> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models");
    let mut dirs: Vec<PathBuf> =
        std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    dirs.sort();
    let read = |dir: PathBuf| {
        let expected =
            serde_json::from_slice(&std::fs::read(dir.join("expected.json")).unwrap()).unwrap();
        Fixture { name: dir.file_name().unwrap().to_str().unwrap().to_owned(), dir, expected }
    };
    let fixtures: Vec<Fixture> = dirs.into_iter().map(read).collect();
    assert_eq!(fixtures.len(), 17);
    fixtures
}

#[track_caller]
fn assert_close(name: &str, what: &str, found: &[f32], want: &[f32]) {
    assert_eq!(found.len(), want.len(), "{name}: {what}");
    for (i, (found, want)) in found.iter().zip(want).enumerate() {
        assert!((found - want).abs() < TOLERANCE, "{name}: {what} {i}: {found}, expected {want}");
    }
}

#[test]
fn the_next_token_distribution_matches_transformers() {
    for fixture in fixtures() {
        let NextToken { prompt, logps } = &fixture.expected.next_token;
        let completions = (0..logps.len()).map(|id| vec![u32::try_from(id).unwrap()]).collect();
        let groups = [Group { prompt: prompt.clone().into(), completions }];
        let scores = fixture.policy().score(&groups, 1.0).unwrap();
        assert_close(&fixture.name, "token", &scores.logps, logps);
    }
}

#[test]
fn log_probabilities_and_entropies_match_transformers_at_every_temperature() {
    for fixture in fixtures() {
        let policy = fixture.policy();
        for want in &fixture.expected.scores {
            let found = policy.score(&fixture.groups(), want.temperature).unwrap();
            assert_close(&fixture.name, "log-probability", &found.logps, &want.logps);
            assert_close(&fixture.name, "entropy", &found.entropies, &want.entropies);
        }
    }
}

#[test]
fn the_training_forward_gives_the_same_scores() {
    for fixture in fixtures() {
        let policy = fixture.policy();
        for want in &fixture.expected.scores {
            let forward = policy.forward(&fixture.groups(), want.temperature).unwrap();
            assert_close(&fixture.name, "log-probability", &forward.scores().logps, &want.logps);
            assert_close(&fixture.name, "entropy", &forward.scores().entropies, &want.entropies);
        }
    }
}

#[test]
fn gradients_of_all_tensors_match_transformers() {
    for fixture in fixtures() {
        let policy = fixture.policy();
        let want = &fixture.expected.gradients;
        let mut grads = policy.zero_gradients().unwrap();
        let forward = policy.forward(&fixture.groups(), want.temperature).unwrap();
        forward.backward(&want.dlogps, &mut grads).unwrap();
        let names: Vec<&str> = want.tensors.keys().map(String::as_str).collect();
        let mut found: Vec<&str> = grads.iter().map(|(name, _)| name).collect();
        found.sort_unstable();
        assert_eq!(found, names, "{}", fixture.name);
        for (name, ExpectedGradient { norm, sines }) in &want.tensors {
            let values = grads.get(name).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let values: Vec<f64> = values.into_iter().map(f64::from).collect();
            let found_norm = values.iter().map(|x| x * x).sum::<f64>().sqrt();
            let found_sines: f64 =
                values.iter().zip(1..).map(|(x, i)| x * f64::from(i).sin()).sum();
            let slack = 1e-4 * norm + 1e-5;
            assert!(
                (found_norm - norm).abs() < slack,
                "{}: {name}: norm {found_norm}, expected {norm}",
                fixture.name
            );
            assert!(
                (found_sines - sines).abs() < 10.0 * slack,
                "{}: {name}: product with sines {found_sines}, expected {sines}",
                fixture.name
            );
        }
        for (name, want) in &want.whole {
            let found = grads.get(name).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let largest = want.iter().fold(0f32, |top, x| top.max(x.abs()));
            for (i, (found, want)) in found.iter().zip(want).enumerate() {
                let slack = 1e-4 * largest;
                let name = format!("{}: {name} {i}", fixture.name);
                assert!((found - want).abs() < slack, "{name}: {found}, expected {want}");
            }
        }
    }
}

fn assert_greedy_tokens(fixture: &Fixture) {
    let Greedy { prompt, ids } = &fixture.expected.greedy;
    let sampling = SamplingParams { max_new_tokens: ids.len(), ..SamplingParams::greedy() };
    let request =
        GenerationRequest { prompt: prompt.clone().into(), samples: 2, stream: 0, first_sample: 0 };
    let samples = fixture.policy().generate(&[request], &sampling, &|_| {}).unwrap();
    for sample in &samples[0] {
        assert_eq!(sample.ids, *ids, "{}", fixture.name);
    }
}

#[test]
fn greedy_decoding_matches_transformers() {
    for fixture in fixtures() {
        assert_greedy_tokens(&fixture);
    }
}

#[test]
fn incremental_decoding_has_the_scores_of_one_forward_pass() {
    for fixture in fixtures() {
        let policy = fixture.policy();
        let prompts = fixture.expected.groups.iter().map(|group| group.prompt.clone());
        let requests: Vec<GenerationRequest> = prompts
            .map(|prompt| GenerationRequest {
                prompt: prompt.into(),
                samples: 3,
                stream: 5,
                first_sample: 0,
            })
            .collect();
        let sampling =
            SamplingParams { max_new_tokens: 80, temperature: 0.7, ..SamplingParams::default() };
        let samples = policy.generate(&requests, &sampling, &|_| {}).unwrap();
        let drawn: Vec<f32> = samples.iter().flatten().flat_map(|s| s.logps.clone()).collect();
        let groups: Vec<Group> = requests
            .iter()
            .zip(&samples)
            .map(|(request, samples)| Group {
                prompt: request.prompt.clone(),
                completions: samples.iter().map(|sample| sample.ids.clone()).collect(),
            })
            .collect();
        let whole = policy.score(&groups, 0.7).unwrap().logps;
        assert_eq!(drawn.len(), whole.len());
        for (i, (drawn, whole)) in drawn.iter().zip(&whole).enumerate() {
            // Both round sums of some hundred terms, in different orders.
            let difference = (drawn - whole).abs();
            assert!(difference < 2e-5, "{}: token {i}: {drawn}, whole {whole}", fixture.name);
        }
    }
}

#[test]
fn a_saved_policy_gives_the_same_scores_when_loaded_again() {
    for fixture in fixtures() {
        let policy = fixture.policy();
        let before = policy.score(&fixture.groups(), 1.0).unwrap();
        for max_shard_bytes in [30_000, usize::MAX] {
            let dir = tempfile::tempdir().unwrap();
            policy
                .save(dir.path(), &SaveOptions { dtype: WeightDtype::F32, max_shard_bytes })
                .unwrap();
            let after = Policy::load(dir.path()).unwrap().score(&fixture.groups(), 1.0).unwrap();
            assert_eq!(before.logps, after.logps, "{}", fixture.name);
        }
    }
}
