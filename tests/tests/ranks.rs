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
use serde_json::json;

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

/// The completions of all steps.
fn completions(run: &Path) -> Vec<String> {
    let table = |step: u64| {
        let name = format!("completions/completions_{step:05}.parquet");
        Table::read(&run.join(name)).unwrap().strings("completion").unwrap()
    };
    (1..=4).flat_map(table).collect()
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
    for ranks in [2, 4] {
        let name = format!("ranks{ranks}");
        train(dir.path(), ranks, &name, &[]).assert().code(0);
        assert_same(&at("one"), &at(&name));
        let moments = fs::read_dir(at(&name).join("checkpoint-4")).unwrap();
        let names = moments.map(|file| file.unwrap().file_name().into_string().unwrap());
        assert_eq!(names.filter(|name| name.starts_with("optimizer-")).count(), ranks);
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
    for ranks in [2, 3] {
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
