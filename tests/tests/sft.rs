//! `embodied-r sft`, as its users run it.

mod tiny_model;

use std::fs;
use std::path::Path;
use std::process::Command;

use assert_cmd::assert::OutputAssertExt as _;
use embodied_r_policy::Policy;
use embodied_r_tests::binary;
use serde_json::{Value, json};

fn conversation(answer: &str) -> String {
    json!({"messages": [
        {"role": "user", "content": "Question: where is the lamp?"},
        {"role": "assistant", "content": format!("<think>left</think><answer>{answer}</answer>")},
    ]})
    .to_string()
}

/// A model and twelve conversations, of which all say the same.
fn inputs(dir: &Path) {
    tiny_model::write(&dir.join("model"));
    fs::write(dir.join("train.jsonl"), vec![conversation("A"); 12].join("\n")).unwrap();
    fs::write(dir.join("val.jsonl"), conversation("A")).unwrap();
}

fn sft(dir: &Path) -> Command {
    sft_from("model", dir)
}

fn sft_from(model: &str, dir: &Path) -> Command {
    let mut command = Command::new(binary());
    command.current_dir(dir).args(["sft", "--model", model, "--data", "train.jsonl"]);
    command.args(["--output", "run", "--set", "train_batch_size=4"]);
    command.args(["--set", "learning_rate=0.01", "--set", "num_train_epochs=8"]);
    command
}

fn evals(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("events.jsonl")).unwrap();
    let events = text.lines().map(|line| serde_json::from_str(line).unwrap());
    events.filter(|event: &Value| event["event"] == "eval").collect()
}

#[test]
fn the_validation_loss_falls_and_the_model_can_be_loaded() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    sft(dir.path()).args(["--eval-data", "val.jsonl"]).assert().code(0);
    let run = dir.path().join("run");
    let evals = evals(&run);
    assert_eq!(evals.len(), 9, "before the first epoch and after each");
    let loss = |eval: &Value| eval["eval/loss"].as_f64().unwrap();
    let (first, last) = (loss(&evals[0]), loss(&evals[8]));
    assert!(last < 0.5 * first, "from {first} to {last}");
    Policy::load(&run.join("final")).unwrap();
    assert!(run.join("final/tokenizer.json").exists());
}

#[test]
fn training_in_bf16_learns_and_is_recorded() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    let bf16 = ["--precision", "bf16", "--eval-data", "val.jsonl"];
    sft(dir.path()).args(bf16).assert().code(0);
    let run = dir.path().join("run");
    let evals = evals(&run);
    let loss = |eval: &Value| eval["eval/loss"].as_f64().unwrap();
    let (first, last) = (loss(&evals[0]), loss(&evals[8]));
    assert!(last < 0.5 * first, "from {first} to {last}");
    let settings = fs::read_to_string(run.join("checkpoint-24/settings.toml")).unwrap();
    assert!(settings.contains("precision = \"bf16\""), "{settings}");

    let mut other = sft(dir.path());
    let other = other.args(["--eval-data", "val.jsonl", "--resume", "--precision", "f32"]);
    let told = String::from_utf8(other.assert().code(0).get_output().stderr.clone()).unwrap();
    assert!(told.contains("warning: `precision` changed since the checkpoint"), "{told}");
}

#[test]
fn a_run_in_bf16_goes_on_from_a_checkpoint_to_the_same_model_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    let args = ["--precision", "bf16", "--set", "save_total_limit=10"];
    sft(dir.path()).args(args).assert().code(0);
    let run = dir.path().join("run");
    let model = || fs::read(run.join("final/model.safetensors")).unwrap();
    let whole = model();
    // What a kill after step 12 leaves behind.
    fs::remove_dir_all(run.join("final")).unwrap();
    for step in [15, 18, 21, 24] {
        fs::remove_dir_all(run.join(format!("checkpoint-{step}"))).unwrap();
    }
    let resumed = sft(dir.path()).args(args).arg("--resume").assert().code(0);
    let told = String::from_utf8(resumed.get_output().stderr.clone()).unwrap();
    assert!(told.contains("checkpoint-12") && !told.contains("warning"), "{told}");
    assert!(model() == whole);
}

#[test]
fn a_faulty_line_is_named_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    let lines = format!("{}\n{}", conversation("A"), r#"{"messages": []}"#);
    fs::write(dir.path().join("train.jsonl"), lines).unwrap();
    let output = sft(dir.path()).assert().code(1).get_output().clone();
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "error: line 2 of `train.jsonl` has no message of the role `assistant` to learn\n"
    );
    assert!(!dir.path().join("run").exists());
}

#[test]
fn a_dry_run_prints_the_batch_arithmetic() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    let output = sft(dir.path()).arg("--dry-run").assert().code(0).get_output().clone();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("epoch        3 steps = 12 replies / 4, 0 left over\n"), "{text}");
    assert!(text.contains("run          24 steps in 8 epochs\n"), "{text}");
    assert!(!dir.path().join("run").exists());
}

#[test]
fn resume_without_a_checkpoint_begins_and_with_one_has_nothing_left_to_do() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    sft(dir.path()).arg("--resume").assert().code(0);
    let model = dir.path().join("run/final/model.safetensors");
    let before = fs::read(&model).unwrap();
    sft(dir.path()).arg("--resume").assert().code(0);
    assert!(fs::read(&model).unwrap() == before);
}

#[test]
fn resume_goes_on_with_a_moved_model_and_refuses_another_one() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    sft(dir.path()).assert().code(0);
    let state = || fs::read(dir.path().join("run/checkpoint-24/trainer_state.json")).unwrap();
    let before = state();

    fs::rename(dir.path().join("model"), dir.path().join("moved")).unwrap();
    let moved = sft_from("moved", dir.path()).arg("--resume").assert().code(0);
    let told = String::from_utf8(moved.get_output().stderr.clone()).unwrap();
    assert!(!told.contains("warning"), "{told}");

    // Under the path that the run was told lies another model.
    fs::rename(dir.path().join("run/final"), dir.path().join("model")).unwrap();
    let refused = sft(dir.path()).arg("--resume").assert().code(1);
    let told = String::from_utf8(refused.get_output().stderr.clone()).unwrap();
    assert!(
        told.contains("error: the model `model` is not the one that the run in `run` began with"),
        "{told}"
    );
    assert_eq!(state(), before);
}
