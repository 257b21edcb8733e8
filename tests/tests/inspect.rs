//! `embodied-r inspect`.

use std::fs;
use std::path::Path;
use std::process::Command;

use assert_cmd::assert::OutputAssertExt as _;
use embodied_r_tests::{binary, stderr_of, tiny_model};
use serde_json::{Value, json};

fn inspect(dir: &Path, subcommand: &str, sequences: &Value) -> Command {
    if !dir.join("model").exists() {
        tiny_model::write(&dir.join("model"));
    }
    fs::write(dir.join("ids.json"), json!({ "sequences": sequences }).to_string()).unwrap();
    let mut command = Command::new(binary());
    command.current_dir(dir).args(["inspect", subcommand, "--json", "--model", "model"]);
    command.args(["--data", "ids.json"]);
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
fn every_token_but_the_first_has_a_log_probability_independent_of_the_batch() {
    let dir = tempfile::tempdir().unwrap();
    let together = logprobs(dir.path(), &json!([[5, 6, 7, 8], [9], [6, 5]]));
    assert_eq!(together.iter().map(Vec::len).collect::<Vec<_>>(), [3, 0, 1]);
    let alone = logprobs(dir.path(), &json!([[5, 6, 7, 8]]));
    assert_eq!(together[0], alone[0]);
    assert!(together.iter().flatten().all(|logp| *logp < 0.0), "{together:?}");
}

#[test]
fn log_probabilities_do_not_depend_on_the_other_sequences_in_any_bit() {
    let dir = tempfile::tempdir().unwrap();
    // Together they are more rows than large matmuls start at.
    let sequence = |seed: u64| (0..20).map(|i| (i * i + 7 * seed) % 200).collect::<Vec<u64>>();
    let sequences: Vec<Vec<u64>> = (0..40).map(sequence).collect();
    let together = logprobs(dir.path(), &json!(sequences));
    let alone = logprobs(dir.path(), &json!([sequences[7]]));
    assert_eq!(together[7], alone[0]);
}

#[test]
fn log_probabilities_in_bf16_are_close_to_those_in_f32_but_differ() {
    let dir = tempfile::tempdir().unwrap();
    let sequences = json!([[5, 6, 7, 8, 9, 10, 11, 12], [6, 5, 200]]);
    let f32 = logprobs(dir.path(), &sequences).concat();
    let bf16 = logprobs_in("bf16", dir.path(), &sequences).concat();
    assert_eq!(f32.len(), bf16.len());
    let apart = f32.iter().zip(&bf16).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(apart > 0.0 && apart < 2e-2, "{f32:?} {bf16:?}");
}

#[test]
fn greedy_tokens_are_the_most_probable_in_either_precision() {
    for precision in ["f32", "bf16"] {
        greedy_tokens_are_the_most_probable_in(precision);
    }
}

fn greedy_tokens_are_the_most_probable_in(precision: &str) {
    let dir = tempfile::tempdir().unwrap();
    let mut command = inspect(dir.path(), "greedy", &json!([[5, 6, 7]]));
    command.args(["--max-tokens", "3", "--precision", precision]);
    let report = json_of(command);
    let first = report["tokens"][0][0].as_u64().unwrap();
    let config = fs::read(dir.path().join("model/config.json")).unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    let vocabulary = config["vocab_size"].as_u64().unwrap();
    let candidates: Vec<[u64; 4]> = (0..vocabulary).map(|id| [5, 6, 7, id]).collect();
    let scores = logprobs_in(precision, dir.path(), &json!(candidates));
    let best = (0..candidates.len()).max_by(|a, b| scores[*a][2].total_cmp(&scores[*b][2]));
    assert_eq!(best, Some(first as usize));
    assert!(report["tokens"][0].as_array().unwrap().len() <= 3);
}

#[test]
fn invalid_sequences_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let stderr = stderr_of(&mut inspect(dir.path(), "logprobs", &json!([[5, 6], [], [7]])), 1);
    assert!(stderr.contains("sequence 1"), "{stderr}");
    let stderr = stderr_of(&mut inspect(dir.path(), "greedy", &json!([[5, 6], [7, 100_000]])), 1);
    assert!(stderr.contains("sequence 1") && stderr.contains("100000"), "{stderr}");
    let stderr = stderr_of(&mut inspect(dir.path(), "logprobs", &json!(7)), 1);
    assert!(stderr.contains("`ids.json`") && stderr.contains("sequences"), "{stderr}");
}

/// `inspect loss` on two groups whose completions also have the fields of `more`.
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
    command.args(["--data", "batch.json"]);
    for set in sets {
        command.args(["--set", set]);
    }
    command
}

#[test]
fn a_loss_comes_with_the_gradient_of_every_tensor() {
    let dir = tempfile::tempdir().unwrap();
    let report = json_of(loss(dir.path(), &["loss_type=grpo"], &json!({})));
    let found = report["loss"].as_f64().unwrap();
    assert!(
        (found + 0.5 / 3.0).abs() < 1e-6,
        "on policy, the loss is minus the mean advantage: {report}"
    );
    assert_eq!(report["kl"], Value::Null);
    assert!(report["mean_logp"].as_f64().unwrap() < 0.0);
    assert_eq!(report["clip_ratio"]["region_mean"], 0.0);
    let norms: Vec<f64> =
        report["grad_norms"].as_object().unwrap().values().map(|x| x.as_f64().unwrap()).collect();
    assert_eq!(norms.len(), 2 + 2 * 12, "two layers, embedding and norm: {report}");
    assert!(norms.iter().all(|norm| *norm > 0.0), "{report}");
    let total = norms.iter().map(|norm| norm * norm).sum::<f64>().sqrt();
    assert!((total - report["grad_norm"].as_f64().unwrap()).abs() < 1e-6 * total);
}

#[test]
fn a_loss_with_a_reference_has_a_kl_term() {
    let dir = tempfile::tempdir().unwrap();
    let given = json!({"old_logps": [-5.0, -6.0, -7.0], "ref_logps": [-5.5, -5.5, -5.5]});
    let report = json_of(loss(dir.path(), &["beta=0.04", "loss_type=dr_grpo"], &given));
    assert!(report["kl"].as_f64().unwrap() > 0.0);
    assert!(report["clip_ratio"]["region_mean"].as_f64().unwrap() > 0.0, "{report}");
}

#[test]
fn missing_or_invalid_inputs_of_a_loss_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let stderr = stderr_of(&mut loss(dir.path(), &["beta=0.04"], &json!({})), 1);
    assert!(stderr.contains("`ref_logps`"), "{stderr}");
    let stderr = stderr_of(&mut loss(dir.path(), &["epsilom=0.1"], &json!({})), 2);
    assert!(stderr.contains("did you mean `epsilon`"), "{stderr}");
    let stderr = stderr_of(&mut loss(dir.path(), &[], &json!({"old_logps": [-1.0]})), 1);
    assert!(stderr.contains("1 `old_logps` for 3 tokens"), "{stderr}");
}
