//! `embodied-r inspect`, as its users run it.

mod tiny_model;

use std::fs;
use std::path::Path;
use std::process::Command;

use assert_cmd::assert::OutputAssertExt as _;
use embodied_r_tests::binary;
use serde_json::{Value, json};

fn inspect(dir: &Path, what: &str, sequences: &Value) -> Command {
    if !dir.join("model").exists() {
        tiny_model::write(&dir.join("model"));
    }
    fs::write(dir.join("ids.json"), json!({ "sequences": sequences }).to_string()).unwrap();
    let mut command = Command::new(binary());
    command.current_dir(dir).args(["inspect", what, "--json", "--model", "model"]);
    command.args(["--input", "ids.json"]);
    command
}

fn json_of(mut command: Command) -> Value {
    let output = command.assert().code(0).get_output().clone();
    serde_json::from_slice(&output.stdout).unwrap()
}

fn logprobs(dir: &Path, sequences: &Value) -> Vec<Vec<f64>> {
    logprobs_in("f32", dir, sequences)
}

fn logprobs_in(precision: &str, dir: &Path, sequences: &Value) -> Vec<Vec<f64>> {
    let mut command = inspect(dir, "logprobs", sequences);
    command.args(["--precision", precision]);
    serde_json::from_value(json_of(command)["logprobs"].clone()).unwrap()
}

#[test]
fn every_token_but_the_first_has_a_log_probability_whatever_stands_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let together = logprobs(dir.path(), &json!([[5, 6, 7, 8], [9], [6, 5]]));
    assert_eq!(together.iter().map(Vec::len).collect::<Vec<_>>(), [3, 0, 1]);
    let alone = logprobs(dir.path(), &json!([[5, 6, 7, 8]]));
    let close = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-5;
    assert!(together[0].iter().zip(&alone[0]).all(close), "{together:?} {alone:?}");
    assert!(together.iter().flatten().all(|logp| *logp < 0.0), "{together:?}");
}

#[test]
fn log_probabilities_in_bf16_are_near_those_in_f32_and_not_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let sequences = json!([[5, 6, 7, 8, 9, 10, 11, 12], [6, 5, 200]]);
    let f32 = logprobs(dir.path(), &sequences).concat();
    let bf16 = logprobs_in("bf16", dir.path(), &sequences).concat();
    assert_eq!(f32.len(), bf16.len());
    let apart = f32.iter().zip(&bf16).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(apart > 0.0 && apart < 2e-2, "{f32:?} {bf16:?}");
}

#[test]
fn greedy_tokens_are_the_likeliest_in_either_precision() {
    for precision in ["f32", "bf16"] {
        greedy_tokens_are_the_likeliest_in(precision);
    }
}

fn greedy_tokens_are_the_likeliest_in(precision: &str) {
    let dir = tempfile::tempdir().unwrap();
    let mut command = inspect(dir.path(), "greedy", &json!([[5, 6, 7]]));
    command.args(["--max-tokens", "3", "--precision", precision]);
    let told = json_of(command);
    let first = told["tokens"][0][0].as_u64().unwrap();
    let config = fs::read(dir.path().join("model/config.json")).unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    let vocabulary = config["vocab_size"].as_u64().unwrap();
    let candidates: Vec<[u64; 4]> = (0..vocabulary).map(|id| [5, 6, 7, id]).collect();
    let scores = logprobs_in(precision, dir.path(), &json!(candidates));
    let best = (0..candidates.len()).max_by(|a, b| scores[*a][2].total_cmp(&scores[*b][2]));
    assert_eq!(best, Some(first as usize));
    assert!(told["tokens"][0].as_array().unwrap().len() <= 3);
}

#[test]
fn what_cannot_be_read_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let stderr = |mut command: Command| {
        let output = command.assert().code(1).get_output().clone();
        String::from_utf8(output.stderr).unwrap()
    };
    let told = stderr(inspect(dir.path(), "logprobs", &json!([[5, 6], [], [7]])));
    assert!(told.contains("sequence 1"), "{told}");
    let told = stderr(inspect(dir.path(), "greedy", &json!([[5, 6], [7, 100_000]])));
    assert!(told.contains("sequence 1") && told.contains("100000"), "{told}");
    let told = stderr(inspect(dir.path(), "logprobs", &json!(7)));
    assert!(told.contains("`ids.json`") && told.contains("sequences"), "{told}");
}

/// The command's result for two groups, of which the first is off policy.
fn loss(dir: &Path, sets: &[&str], more: &Value) -> Command {
    if !dir.join("model").exists() {
        tiny_model::write(&dir.join("model"));
    }
    let completion = |ids: Value, advantage: f64| {
        let mut completion = json!({ "ids": ids, "advantage": advantage });
        for (key, value) in more.as_object().unwrap() {
            completion[key] = value.clone();
        }
        completion
    };
    let batch = json!({"groups": [
        {"prompt_ids": [5, 6, 7],
         "completions": [completion(json!([8, 9, 2]), 1.0), completion(json!([10, 11, 12]), -1.0)]},
        {"prompt_ids": [20], "completions": [completion(json!([21, 22, 2]), 0.5)]},
    ]});
    fs::write(dir.join("batch.json"), batch.to_string()).unwrap();
    let mut command = Command::new(binary());
    command.current_dir(dir).args(["inspect", "loss", "--json", "--model", "model"]);
    command.args(["--batch", "batch.json"]);
    for set in sets {
        command.args(["--set", set]);
    }
    command
}

#[test]
fn a_loss_comes_with_the_gradient_of_every_tensor() {
    let dir = tempfile::tempdir().unwrap();
    let told = json_of(loss(dir.path(), &["loss_type=grpo"], &json!({})));
    let found = told["loss"].as_f64().unwrap();
    assert!((found + 0.5 / 3.0).abs() < 1e-6, "on policy it is the mean advantage: {told}");
    assert_eq!(told["kl"], Value::Null);
    assert!(told["mean_logp"].as_f64().unwrap() < 0.0);
    assert_eq!(told["clip_ratio"]["region_mean"], 0.0);
    let norms: Vec<f64> =
        told["grad_norms"].as_object().unwrap().values().map(|x| x.as_f64().unwrap()).collect();
    assert_eq!(norms.len(), 2 + 2 * 12, "two layers, embedding and norm: {told}");
    assert!(norms.iter().all(|norm| *norm > 0.0), "{told}");
    let total = norms.iter().map(|norm| norm * norm).sum::<f64>().sqrt();
    assert!((total - told["grad_norm"].as_f64().unwrap()).abs() < 1e-6 * total);
}

#[test]
fn a_loss_with_a_reference_has_a_divergence() {
    let dir = tempfile::tempdir().unwrap();
    let given = json!({"old_logps": [-5.0, -6.0, -7.0], "ref_logps": [-5.5, -5.5, -5.5]});
    let told = json_of(loss(dir.path(), &["beta=0.04", "loss_type=dr_grpo"], &given));
    assert!(told["kl"].as_f64().unwrap() > 0.0);
    assert!(told["clip_ratio"]["region_mean"].as_f64().unwrap() > 0.0, "{told}");
}

#[test]
fn what_a_loss_cannot_be_had_of_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let stderr = |code: i32, mut command: Command| {
        let output = command.assert().code(code).get_output().clone();
        String::from_utf8(output.stderr).unwrap()
    };
    let told = stderr(1, loss(dir.path(), &["beta=0.04"], &json!({})));
    assert!(told.contains("`ref_logps`"), "{told}");
    let told = stderr(2, loss(dir.path(), &["epsilom=0.1"], &json!({})));
    assert!(told.contains("did you mean `epsilon`"), "{told}");
    let told = stderr(1, loss(dir.path(), &[], &json!({"old_logps": [-1.0]})));
    assert!(told.contains("1 `old_logps` for 3 tokens"), "{told}");
}
