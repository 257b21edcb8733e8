//! Frozen parameters: only trained ones have gradients, equal to those of full training.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use embodied_r_policy::{Gradients, Group, ModelConfig, Policy, Trainable};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models").join(name)
}

fn groups() -> Vec<Group> {
    vec![Group { prompt: vec![3, 7, 9].into(), completions: vec![vec![4, 4, 8], vec![11, 30]] }]
}

fn frozen(name: &str, patterns: &[&str]) -> Policy {
    let patterns = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
    Policy::load(&fixture(name))
        .unwrap()
        .with_trainable(&Trainable::AllExcept(patterns), 0)
        .unwrap()
}

fn gradients(policy: &Policy) -> Gradients {
    let mut gradients = policy.zero_gradients().unwrap();
    let forward = policy.forward(&groups(), 1.0).unwrap();
    forward.backward(&[0.3, -1.0, 0.5, 1.0, -0.2], &mut gradients).unwrap();
    gradients
}

/// The names of the trained tensors.
fn trained(policy: &Policy) -> Vec<&str> {
    policy.parameters().iter().map(|(name, _)| name).collect()
}

#[test]
fn gradients_of_trained_parameters_do_not_depend_on_frozen_ones() {
    for (name, patterns) in [
        ("qwen2-tied", &["embed_tokens"][..]),
        ("qwen2-tied", &["_proj"]),
        ("qwen2-tied", &[r"layers\.0\.", "embed"]),
        ("qwen2-tied", &["weight$"]),
        ("qwen2-tied", &["layers", "embed"]),
        ("llama", &["lm_head", "layers.1.mlp"]),
        ("llama", &["embed_tokens", "norm"]),
        ("qwen3-tied", &["q_norm"]),
        ("qwen3-tied", &["norm"]),
        ("qwen3-tied", &["proj", "embed"]),
    ] {
        let policy = frozen(name, patterns);
        let whole = gradients(&Policy::load(&fixture(name)).unwrap());
        let found = gradients(&policy);
        let names: Vec<&str> = found.iter().map(|(name, _)| name).collect();
        assert_eq!(names, trained(&policy));
        assert!(!names.is_empty() && names.len() < whole.iter().count(), "{patterns:?}");
        for (tensor, gradient) in found.iter() {
            let values =
                |t: &candle_core::Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let (found, want) = (values(gradient), values(whole.get(tensor).unwrap()));
            assert_eq!(found, want, "{name} {patterns:?}: {tensor}");
            assert!(found.iter().any(|x| *x != 0.0), "{tensor}");
        }
    }
}

#[test]
fn frozen_tied_embeddings_have_no_gradient() {
    let policy = frozen("qwen2-tied", &["embed_tokens"]);
    assert!(gradients(&policy).get("model.embed_tokens.weight").is_none());
}

#[test]
fn a_frozen_copy_shares_exactly_the_frozen_parameters() {
    let policy = frozen("llama", &["mlp"]);
    for copy in [policy.frozen_copy().unwrap(), policy.load_frozen(&fixture("llama")).unwrap()] {
        for (name, tensor) in policy.weights().iter() {
            let shared = copy.weights().get(name).unwrap().id() == tensor.id();
            assert_eq!(shared, name.contains("mlp"), "{name}");
        }
        let scores = |policy: &Policy| policy.score(&groups(), 1.0).unwrap();
        assert_eq!(scores(&copy), scores(&policy));
    }
}

#[test]
fn parameter_counts_match_the_tensors() {
    let config = ModelConfig::from_dir(&fixture("qwen2-tied")).unwrap();
    let policy = frozen("qwen2-tied", &["embed_tokens"]);
    let counts = Trainable::AllExcept(vec!["embed_tokens".into()]).counts(&config).unwrap();
    assert_eq!(counts.trainable, policy.parameters().elem_count());
    assert_eq!(counts.total, policy.weights().elem_count());
    let all = Trainable::All.counts(&config).unwrap();
    assert_eq!((all.trainable, all.total), (counts.total, counts.total));
    assert!(all.to_string().ends_with("parameters (100.00 %)"), "{all}");
}
