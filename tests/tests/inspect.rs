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
