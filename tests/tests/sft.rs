//! `embodied-r sft`.

use std::fs;
use std::path::Path;
use std::process::Command;

use assert_cmd::assert::OutputAssertExt as _;
use embodied_r_policy::{ModelType, Policy};
use embodied_r_tests::{binary, events, stderr_of, stdout_of, tiny_model};
use serde_json::{Value, json};

fn conversation(answer: &str) -> String {
    json!({"messages": [
        {"role": "user", "content": "Question: where is the lamp?"},
        {"role": "assistant", "content": format!("<think>left</think><answer>{answer}</answer>")},
    ]})
    .to_string()
}

/// A model and twelve identical conversations.
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

#[test]
fn the_validation_loss_falls_and_the_model_can_be_loaded() {
    tiny_model::FAMILIES.into_iter().for_each(learns);
}

fn learns(family: ModelType) {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    tiny_model::write_family(&dir.path().join("model"), family);
    sft(dir.path()).args(["--eval-data", "val.jsonl"]).assert().code(0);
    let run = dir.path().join("run");
    let evals = events(&run, "eval");
    assert_eq!(evals.len(), 9, "before the first epoch and after each");
    let loss = |eval: &Value| eval["eval/loss"].as_f64().unwrap();
    let (first, last) = (loss(&evals[0]), loss(&evals[8]));
    assert!(last < 0.5 * first, "{family:?}: from {first} to {last}");
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
    let evals = events(&run, "eval");
    let loss = |eval: &Value| eval["eval/loss"].as_f64().unwrap();
    let (first, last) = (loss(&evals[0]), loss(&evals[8]));
    assert!(last < 0.5 * first, "from {first} to {last}");
    let settings = fs::read_to_string(run.join("checkpoint-24/settings.toml")).unwrap();
    assert!(settings.contains("precision = \"bf16\""), "{settings}");

    let mut other = sft(dir.path());
    let other = other.args(["--eval-data", "val.jsonl", "--resume", "--precision", "f32"]);
    let stderr = stderr_of(other, 0);
    assert!(stderr.contains("warning: `precision` changed since the checkpoint"), "{stderr}");
}

#[test]
fn a_run_in_bf16_resumes_bit_identically() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    let args = ["--precision", "bf16", "--set", "save_total_limit=10"];
    sft(dir.path()).args(args).assert().code(0);
    let run = dir.path().join("run");
    let model = || fs::read(run.join("final/model.safetensors")).unwrap();
    let whole = model();
    // As after a kill at step 12.
    fs::remove_dir_all(run.join("final")).unwrap();
    for step in [15, 18, 21, 24] {
        fs::remove_dir_all(run.join(format!("checkpoint-{step}"))).unwrap();
    }
    let stderr = stderr_of(sft(dir.path()).args(args).arg("--resume"), 0);
    assert!(stderr.contains("checkpoint-12") && !stderr.contains("warning"), "{stderr}");
    assert!(model() == whole);
}

#[test]
fn an_invalid_line_is_named_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    let lines = format!("{}\n{}", conversation("A"), r#"{"messages": []}"#);
    fs::write(dir.path().join("train.jsonl"), lines).unwrap();
    assert_eq!(
        stderr_of(&mut sft(dir.path()), 1),
        "error: line 2 of `train.jsonl` has no message with role `assistant` to train on\n"
    );
    assert!(!dir.path().join("run").exists());
}

#[test]
fn a_dry_run_prints_the_batch_arithmetic() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    let text = stdout_of(sft(dir.path()).arg("--dry-run"));
    assert!(text.contains("epoch        3 steps = 12 examples / 4, 0 dropped\n"), "{text}");
    assert!(text.contains("run          24 steps in 8 epochs\n"), "{text}");
    assert!(!dir.path().join("run").exists());
}

#[test]
fn max_steps_end_a_run_within_an_epoch() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    let args = ["--set", "max_steps=4", "--eval-data", "val.jsonl"];
    let text = stdout_of(sft(dir.path()).args(args).arg("--dry-run"));
    let line = "run          4 steps in 8 epochs, which `max_steps` ends early\n";
    assert!(text.contains(line), "{text}");
    sft(dir.path()).args(args).assert().code(0);
    let run = dir.path().join("run");
    let steps: Vec<u64> =
        events(&run, "eval").iter().map(|eval| eval["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [0, 3, 4], "before the first step, after the epoch and after the last step");
    let last = &events(&run, "step")[3];
    // The learning rate falls over these four steps.
    assert!(last["learning_rate"].as_f64().unwrap() < 0.003, "{last}");
    assert!(run.join("checkpoint-4").exists() && run.join("final").exists());
    let text = stderr_of(sft(dir.path()).args(["--set", "max_steps=0"]), 2);
    assert!(text.contains("max_steps") && text.contains("at least 1"), "{text}");
}

#[test]
fn resume_without_a_checkpoint_starts_a_run_and_after_its_end_does_nothing() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    sft(dir.path()).arg("--resume").assert().code(0);
    let model = dir.path().join("run/final/model.safetensors");
    let before = fs::read(&model).unwrap();
    sft(dir.path()).arg("--resume").assert().code(0);
    assert!(fs::read(&model).unwrap() == before);
}

#[test]
fn resume_accepts_a_moved_model_and_refuses_another_one() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    sft(dir.path()).assert().code(0);
    let state = || fs::read(dir.path().join("run/checkpoint-24/trainer_state.json")).unwrap();
    let before = state();

    fs::rename(dir.path().join("model"), dir.path().join("moved")).unwrap();
    let stderr = stderr_of(sft_from("moved", dir.path()).arg("--resume"), 0);
    assert!(!stderr.contains("warning"), "{stderr}");

    // Now another model is at the original path.
    fs::rename(dir.path().join("run/final"), dir.path().join("model")).unwrap();
    let stderr = stderr_of(sft(dir.path()).arg("--resume"), 1);
    assert!(
        stderr
            .contains("error: the model `model` is not the one that the run in `run` started from"),
        "{stderr}"
    );
    assert_eq!(state(), before);
}

#[test]
fn examples_over_the_models_context_are_left_out_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    let lines =
        format!("{}\n{}", conversation(&"A".repeat(3000)), vec![conversation("A"); 4].join("\n"));
    fs::write(dir.path().join("train.jsonl"), lines).unwrap();
    tiny_model::set_context_length(&dir.path().join("model"), 2048);
    let stdout = stdout_of(sft(dir.path()).arg("--dry-run"));
    assert!(stdout.contains("examples     4, ") && stdout.contains("; 1 too long; "), "{stdout}");
    let stderr = stderr_of(&mut sft(dir.path()), 0);
    assert!(
        stderr.contains(
            "warning: dropped 1 examples of `train.jsonl` that exceed 2048 tokens (the model's context length, 2048)"
        ),
        "{stderr}"
    );
    fs::remove_dir_all(dir.path().join("run")).unwrap();
    let mut command = sft(dir.path());
    let stderr = stderr_of(command.args(["--set", "truncation_strategy=raise"]), 2);
    assert!(stderr.contains("error: the conversation in line 1 of `train.jsonl` has "), "{stderr}");
    assert!(!dir.path().join("run").exists());
}
