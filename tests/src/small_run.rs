//! A short run on the tiny model: its inputs, and the commands that start it.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::{binary, tiny_model, write_lamp_questions};

const SETTINGS: &str = "num_generations = 4
generation_batch_size = 8
max_completion_length = 6
";

/// Writes a model, eight questions for four steps of `train`, sixteen conversations for `sft`, and `run.toml` with
/// `settings` besides the sizes of a step.
///
/// # Panics
/// The folder cannot be written.
pub fn write(dir: &Path, settings: &str) {
    tiny_model::write(&dir.join("model"));
    write_lamp_questions(dir, 8);
    let conversation = json!({"messages": [
        {"role": "user", "content": "Question: where is the lamp?"},
        {"role": "assistant", "content": "<think>left</think><answer>A</answer>"},
    ]});
    let conversations = vec![conversation.to_string(); 16].join("\n");
    fs::write(dir.join("train.jsonl"), conversations).expect("a folder to write to");
    let settings = format!("{SETTINGS}{settings}");
    fs::write(dir.join("run.toml"), settings).expect("a folder to write to");
}

/// `train` with these inputs, into `run`.
pub fn train(dir: &Path) -> Command {
    let mut command = Command::new(binary());
    command.current_dir(dir).args(["train", "--config", "run.toml", "--model", "model"]);
    command.args(["--data", "train.json", "--output", "run"]);
    command
}

/// `sft` with these inputs, into `run`.
pub fn sft(dir: &Path) -> Command {
    let mut command = Command::new(binary());
    command.current_dir(dir).args(["sft", "--model", "model", "--data", "train.jsonl"]);
    command.args(["--output", "run", "--set", "train_batch_size=4"]);
    command
}
