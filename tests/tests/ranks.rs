//! `train` and `sft` by several processes, which talk through MPI.
#![cfg(feature = "mpi")]

mod tiny_model;
mod tiny_run;

use std::fs;
use std::path::Path;
use std::process::Command;

use assert_cmd::assert::OutputAssertExt as _;
use embodied_r_data::parquet::Table;
use embodied_r_policy::Policy;
use embodied_r_tests::binary;
use serde_json::{Value, json};

/// A command that trains into `output`, by so many ranks.
fn train(dir: &Path, ranks: usize, output: &str, more: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.current_dir(dir).args(["train", "--config", "run.toml", "--model", "model"]);
    command.args(["--data", "train.json", "--output", output, "--ranks", &ranks.to_string()]);
    command.args(more);
    command
}

fn weights(model: &Path) -> Vec<f32> {
    let policy = Policy::load(model).unwrap();
    let numbers = policy
        .parameters()
        .iter()
        .map(|(_, tensor)| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap());
    numbers.flatten().collect()
}

/// A question's tokens, those of a completion, and the completion's advantage.
type Drawn = (Vec<u32>, Vec<u32>, f64);

/// The completions of all steps.
fn completions(run: &Path) -> Vec<Drawn> {
    let table = |step: u64| {
        let name = format!("completions/completions_{step:05}.parquet");
        let table = Table::read(&run.join(name)).unwrap();
        let ids = |name: &str| table.id_lists(name).unwrap();
        let drawn = ids("prompt_ids").into_iter().zip(ids("completion_ids"));
        let advantages = table.floats("advantage").unwrap();
        drawn
            .zip(advantages)
            .map(|((prompt, ids), advantage)| (prompt, ids, advantage))
            .collect::<Vec<_>>()
    };
    (1..=4).flat_map(table).collect()
}

/// A figure of every step that has it.
fn figures(run: &Path, name: &str) -> Vec<f64> {
    let events = fs::read_to_string(run.join("events.jsonl")).unwrap();
    let events = events.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    events.filter(|event| event["event"] == "step").filter_map(|e| e[name].as_f64()).collect()
}

/// How many files in `folder` have names that begin so.
fn files(folder: &Path, begin: &str) -> usize {
    let names = fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name());
    names.filter(|name| name.to_str().unwrap().starts_with(begin)).count()
}

/// Asserts that two runs drew the same and learnt the same but for rounding.
fn assert_same(one: &Path, other: &Path) {
    assert_eq!(completions(one), completions(other), "{}", other.display());
    let (one, found) = (weights(&one.join("final")), weights(&other.join("final")));
    for (one, found) in one.iter().zip(&found) {
        assert!((one - found).abs() < 1e-5, "{}: {found}, not {one}", other.display());
    }
}

#[test]
fn ranks_make_the_run_of_one_and_go_on_from_each_others_checkpoints() {
    let dir = tempfile::tempdir().unwrap();
    tiny_run::write(dir.path());
    let at = |name: &str| dir.path().join(name);
    train(dir.path(), 1, "one", &[]).assert().code(0);
    assert_ne!(weights(&at("one/final")), weights(&at("model")));
    let replaced: f64 = figures(&at("one"), "dynamic_sample/groups_replaced").iter().sum();
    assert!(replaced > 0.0, "no group gave way to another");
    for ranks in [2, 4] {
        let name = format!("ranks{ranks}");
        train(dir.path(), ranks, &name, &[]).assert().code(0);
        assert_same(&at("one"), &at(&name));
        let checkpoint = at(&name).join("checkpoint-4");
        assert_eq!(files(&checkpoint, "optimizer-"), ranks);
        // The embedding is half of the model, and in one file.
        assert!(files(&checkpoint, "model-") > 1);
        assert!(checkpoint.join("model.safetensors.index.json").is_file());
    }
    // Two ranks go half of the way, and three from there.
    train(dir.path(), 2, "half", &[]).assert().code(0);
    for name in ["final", "checkpoint-4"] {
        fs::remove_dir_all(at("half").join(name)).unwrap();
    }
    train(dir.path(), 3, "half", &["--resume"]).assert().code(0);
    assert_same(&at("one"), &at("half"));
}

#[test]
fn a_step_sends_gradients_and_weights_once_and_little_else() {
    let dir = tempfile::tempdir().unwrap();
    tiny_run::write(dir.path());
    for ranks in [2, 4] {
        let name = format!("ranks{ranks}");
        train(dir.path(), ranks, &name, &["--set", "dynamic_sample=false"]).assert().code(0);
        let run = dir.path().join(name);
        let numbers = weights(&run.join("final")).len() as f64;
        // A ring's reduce-scatter of f32 gradients, and an all-gather of the weights.
        let computed = 2.0 * 4.0 * numbers * (ranks - 1) as f64 / ranks as f64;
        let sent = figures(&run, "communication/bytes_sent");
        assert_eq!(sent.len(), 4);
        // The weights of a step go round while it is told, and count for the next. Completions of a few tokens, figures
        // and agreements go to every other rank.
        for (step, sent) in sent.into_iter().enumerate() {
            let computed = if step == 0 { computed / 2.0 } else { computed };
            let rest = sent - computed;
            assert!(rest > 0.0 && rest < 12_000.0 * (ranks - 1) as f64, "{sent}, not {computed}");
        }
    }
    train(dir.path(), 1, "one", &[]).assert().code(0);
    assert_eq!(figures(&dir.path().join("one"), "communication/bytes_sent"), [0.0; 0]);
}

#[test]
fn a_dry_run_says_what_each_rank_takes() {
    let dir = tempfile::tempdir().unwrap();
    tiny_run::write(dir.path());
    let told = |ranks: usize| {
        let output = train(dir.path(), ranks, "run", &["--dry-run"]).assert().code(0);
        String::from_utf8(output.get_output().stdout.clone()).unwrap()
    };
    let (one, two) = (told(1), told(2));
    assert!(!one.contains("ranks") && !one.contains("a rank"), "{one}");
    assert!(two.contains("2, each with at most 2 of a step's 3 questions"), "{two}");
    assert!(two.contains("GB a rank: "), "{two}");
}

#[test]
fn a_step_is_timed_over_ranks() {
    let dir = tempfile::tempdir().unwrap();
    tiny_model::write(&dir.path().join("model"));
    let mut command = Command::new(binary());
    command.current_dir(dir.path()).args(["bench", "grpo", "--model", "model", "--json"]);
    command.args(["--prompt", "12", "--new", "4", "--group-size", "2", "--groups", "3"]);
    let output = command.args(["--runs", "1", "--ranks", "2"]).assert().code(0);
    let figures: Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
    assert_eq!(figures["ranks"], 2.0, "{figures}");
    let numbers = weights(&dir.path().join("model")).len() as f64;
    let sent = figures["bytes_sent"].as_f64().unwrap();
    assert!(sent > 4.0 * numbers && sent < 4.0 * numbers + 2_000.0, "{sent} for {numbers} numbers");
}

/// The curve of a metric in a run of `quickstart`.
fn curve(run: &Path, name: &str) -> Vec<f64> {
    let curve = figures(run, name);
    assert!(!curve.is_empty(), "`{name}`");
    curve
}

#[test]
fn quickstart_learns_by_two_ranks_as_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let quickstart = |ranks: usize| {
        let out = dir.path().join(format!("ranks{ranks}"));
        let mut command = Command::new(binary());
        command.args(["quickstart", "--rooms", "10", "--sft-set", "num_train_epochs=8", "--out"]);
        command.arg(&out).args(["--set", "warmup_steps=0", "--set", "generation_batch_size=32"]);
        command.args(["--set", "stage=[{steps = 2, weights = {format = 0.5, accuracy = 0.5}}]"]);
        let done = command.args(["--ranks", &ranks.to_string()]).assert().code(0);
        let told = String::from_utf8(done.get_output().stdout.clone()).unwrap();
        assert_eq!(told.matches(" --ranks 2").count(), if ranks == 2 { 2 } else { 0 }, "{told}");
        out
    };
    let (one, two) = (quickstart(1), quickstart(2));
    for (run, metric, apart) in [
        ("sft", "loss", 1e-3),
        ("sft", "grad_norm", 1e-2),
        // Weights that differ by rounding may draw another completion here and there: two of 32.
        ("train", "reward", 2.0 / 32.0),
        ("train", "completions/mean_length", 4.0),
    ] {
        let (one, two) = (curve(&one.join(run), metric), curve(&two.join(run), metric));
        assert_eq!(one.len(), two.len());
        for (step, (one, two)) in one.iter().zip(&two).enumerate() {
            let what = format!("{run}, `{metric}`, step {step}");
            assert!((one - two).abs() <= apart, "{what}: {one} and {two}");
        }
    }
}

#[test]
fn replies_are_learnt_by_ranks_as_by_one() {
    let dir = tempfile::tempdir().unwrap();
    tiny_model::write(&dir.path().join("model"));
    let reply = |i: usize| {
        json!({"messages": [
            {"role": "user", "content": "where? ".repeat(i + 1)},
            {"role": "assistant", "content": "left ".repeat(7 - i)},
        ]})
    };
    let lines: Vec<String> = (0..7).map(|i| reply(i).to_string()).collect();
    fs::write(dir.path().join("sft.jsonl"), lines.join("\n")).unwrap();
    let sft = |ranks: usize, output: &str| {
        let mut command = Command::new(binary());
        command.current_dir(dir.path()).args(["sft", "--model", "model", "--data", "sft.jsonl"]);
        command.args(["--output", output, "--ranks", &ranks.to_string()]);
        for set in ["train_batch_size=3", "num_train_epochs=2", "learning_rate=1e-3"] {
            command.args(["--set", set]);
        }
        command.assert().code(0);
        weights(&dir.path().join(output).join("final"))
    };
    let one = sft(1, "one");
    for ranks in [2, 4] {
        for (one, found) in one.iter().zip(&sft(ranks, &format!("ranks{ranks}"))) {
            assert!((one - found).abs() < 1e-5, "{ranks} ranks: {found}, not {one}");
        }
    }
}

#[test]
fn what_one_rank_finds_wrong_is_told_once_and_ends_all() {
    let dir = tempfile::tempdir().unwrap();
    tiny_run::write(dir.path());
    let told = |ranks: usize, more: &[&str], code: i32| {
        let output = train(dir.path(), ranks, "run", more).assert().code(code).get_output().clone();
        String::from_utf8(output.stderr).unwrap()
    };
    let error = told(2, &["--set", "num_generations=1"], 2);
    assert_eq!(error.matches("error: ").count(), 1, "{error}");
    assert!(error.contains("num_generations"), "{error}");
    fs::remove_file(dir.path().join("train.json")).unwrap();
    let error = told(3, &[], 1);
    assert_eq!(error.matches("error: ").count(), 1, "{error}");
    assert!(error.contains("train.json"), "{error}");
    assert!(!dir.path().join("run").exists());
}
