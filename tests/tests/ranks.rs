//! `train` and `sft` on several ranks over MPI.
#![cfg(feature = "mpi")]

use std::fs;
use std::path::Path;
use std::process::Command;

use assert_cmd::assert::OutputAssertExt as _;
use embodied_r_data::parquet::Table;
use embodied_r_policy::{ModelType, Policy};
use embodied_r_tests::{binary, events, id_lists, stderr_of, stdout_of, tiny_model, tiny_run};
use serde_json::{Value, json};

/// A command that trains into `output` on `ranks` ranks.
fn train(dir: &Path, ranks: usize, output: &str, more: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.current_dir(dir).args(["train", "--config", "run.toml", "--model", "model"]);
    command.args(["--data", "train.json", "--output", output, "--ranks", &ranks.to_string()]);
    command.args(more);
    command
}

fn weights(model: &Path) -> Vec<f32> {
    let policy = Policy::load(model).unwrap();
    let values = policy
        .parameters()
        .iter()
        .map(|(_, tensor)| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap());
    values.flatten().collect()
}

/// The weights' bits.
fn bits(model: &Path) -> Vec<u32> {
    weights(model).into_iter().map(f32::to_bits).collect()
}

/// The prompt's token ids, the completion's token ids, and the advantage.
type Sample = (Vec<u32>, Vec<u32>, f64);

/// The completions of all steps.
fn completions(run: &Path) -> Vec<Sample> {
    let table = |step: u64| {
        let name = format!("completions/completions_{step:05}.parquet");
        let path = run.join(name);
        let table = Table::read(&path).unwrap();
        let ids = |name: &str| id_lists(&path, name);
        let samples = ids("prompt_ids").into_iter().zip(ids("completion_ids"));
        let advantages = table.floats("advantage").unwrap();
        samples
            .zip(advantages)
            .map(|((prompt, ids), advantage)| (prompt, ids, advantage))
            .collect::<Vec<_>>()
    };
    (1..=4).flat_map(table).collect()
}

/// A metric of every step that has it.
fn metric(run: &Path, name: &str) -> Vec<f64> {
    events(run, "step").iter().filter_map(|step| step[name].as_f64()).collect()
}

/// The number of files in `folder` whose names start with `prefix`.
fn files(folder: &Path, prefix: &str) -> usize {
    let names = fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name());
    names.filter(|name| name.to_str().unwrap().starts_with(prefix)).count()
}

/// Asserts that two runs have the same completions, and the same weights except for rounding.
fn assert_same(one: &Path, other: &Path) {
    assert_eq!(completions(one), completions(other), "{}", other.display());
    let (one, found) = (weights(&one.join("final")), weights(&other.join("final")));
    for (one, found) in one.iter().zip(&found) {
        assert!((one - found).abs() < 1e-5, "{}: {found}, not {one}", other.display());
    }
}

#[test]
fn any_number_of_ranks_gives_the_same_run_and_resumes_from_its_checkpoints() {
    let dir = tempfile::tempdir().unwrap();
    tiny_run::write(dir.path());
    let at = |name: &str| dir.path().join(name);
    train(dir.path(), 1, "one", &[]).assert().code(0);
    assert_ne!(weights(&at("one/final")), weights(&at("model")));
    let replaced: f64 = metric(&at("one"), "dynamic_sample/groups_replaced").iter().sum();
    assert!(replaced > 0.0, "no group was replaced");
    for ranks in [2, 4] {
        let name = format!("ranks{ranks}");
        train(dir.path(), ranks, &name, &[]).assert().code(0);
        assert_same(&at("one"), &at(&name));
        let checkpoint = at(&name).join("checkpoint-4");
        assert_eq!(files(&checkpoint, "optimizer-"), ranks);
        // The embedding is half of the model and in one shard.
        assert!(files(&checkpoint, "model-") > 1);
        assert!(checkpoint.join("model.safetensors.index.json").is_file());
    }
    // Two ranks run the first half, and three ranks the second.
    train(dir.path(), 2, "half", &[]).assert().code(0);
    for name in ["final", "checkpoint-4"] {
        fs::remove_dir_all(at("half").join(name)).unwrap();
    }
    train(dir.path(), 3, "half", &["--resume"]).assert().code(0);
    assert_same(&at("one"), &at("half"));
    // With the same number of ranks a resumed run is bit-identical: which rank computes what is in the checkpoint.
    for name in ["final", "checkpoint-4"] {
        fs::remove_dir_all(at("ranks2").join(name)).unwrap();
    }
    let whole = bits(&at("ranks2").join("checkpoint-2"));
    fs::rename(at("ranks2"), at("resumed")).unwrap();
    train(dir.path(), 2, "ranks2", &[]).assert().code(0);
    assert_eq!(bits(&at("ranks2/checkpoint-2")), whole, "two runs on two ranks differ");
    train(dir.path(), 2, "resumed", &["--resume"]).assert().code(0);
    assert_eq!(bits(&at("resumed/final")), bits(&at("ranks2/final")));
}

#[test]
fn two_ranks_train_qwen3_as_one_rank_does() {
    let dir = tempfile::tempdir().unwrap();
    tiny_run::write(dir.path());
    tiny_model::write_family(&dir.path().join("model"), ModelType::Qwen3);
    for (ranks, name) in [(1, "one"), (2, "two")] {
        train(dir.path(), ranks, name, &[]).assert().code(0);
    }
    let at = |name: &str| dir.path().join(name);
    assert_ne!(weights(&at("one/final")), weights(&at("model")));
    assert_same(&at("one"), &at("two"));
}

#[test]
fn a_step_sends_gradients_and_weights_once_and_little_else() {
    let dir = tempfile::tempdir().unwrap();
    tiny_run::write(dir.path());
    for ranks in [2, 4] {
        let name = format!("ranks{ranks}");
        train(dir.path(), ranks, &name, &["--set", "dynamic_sample=false"]).assert().code(0);
        let run = dir.path().join(name);
        let parameters = weights(&run.join("final")).len() as f64;
        // A ring reduce-scatter of f32 gradients, and an all-gather of the weights.
        let expected = 2.0 * 4.0 * parameters * (ranks - 1) as f64 / ranks as f64;
        let sent = metric(&run, "communication/bytes_sent");
        assert_eq!(sent.len(), 4);
        // The weights of a step are gathered after its event is written, and count for the next step. Short
        // completions, metrics and settings are sent to every other rank.
        for (step, sent) in sent.into_iter().enumerate() {
            let expected = if step == 0 { expected / 2.0 } else { expected };
            let rest = sent - expected;
            assert!(rest > 0.0 && rest < 12_000.0 * (ranks - 1) as f64, "{sent}, not {expected}");
        }
    }
    train(dir.path(), 1, "one", &[]).assert().code(0);
    assert_eq!(metric(&dir.path().join("one"), "communication/bytes_sent"), [0.0; 0]);
}

#[test]
fn a_dry_run_reports_work_and_memory_per_rank() {
    let dir = tempfile::tempdir().unwrap();
    tiny_run::write(dir.path());
    let dry_run = |ranks| stdout_of(&mut train(dir.path(), ranks, "run", &["--dry-run"]));
    let (one, two) = (dry_run(1), dry_run(2));
    assert!(!one.contains("ranks") && !one.contains("per rank"), "{one}");
    assert!(two.contains("2, each with at most 6 of a step's 9 completions"), "{two}");
    assert!(two.contains("GB per rank: "), "{two}");
}

#[test]
fn bench_measures_a_step_on_several_ranks() {
    let dir = tempfile::tempdir().unwrap();
    tiny_model::write(&dir.path().join("model"));
    let mut command = Command::new(binary());
    command.current_dir(dir.path()).args(["bench", "grpo", "--model", "model", "--json"]);
    command.args(["--prompt", "12", "--new", "4", "--group-size", "2", "--groups", "3"]);
    let output = command.args(["--runs", "1", "--ranks", "2"]).assert().code(0);
    let report: Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
    assert_eq!(report["ranks"], 2.0, "{report}");
    let parameters = weights(&dir.path().join("model")).len() as f64;
    let sent = report["bytes_sent"].as_f64().unwrap();
    assert!(sent > 4.0 * parameters && sent < 4.0 * parameters + 2_000.0, "{sent}, {parameters}");
    // One of the three groups is split.
    assert_eq!(report["completions_per_rank"], json!([3, 3]), "{report}");
    let busy = report["busy_share_per_rank"].as_array().unwrap();
    assert!(busy.len() == 2 && busy.iter().all(|share| share.as_f64().unwrap() > 0.0), "{report}");
}

#[test]
fn four_ranks_share_two_questions_and_train_as_one_rank_does() {
    let dir = tempfile::tempdir().unwrap();
    tiny_run::write(dir.path());
    let settings = ["num_generations=4", "generation_batch_size=8", "dynamic_sample=false"];
    let sets: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    for (ranks, name) in [(1, "one"), (4, "four")] {
        train(dir.path(), ranks, name, &sets).assert().code(0);
    }
    let (one, four) = (dir.path().join("one"), dir.path().join("four"));
    assert_same(&one, &four);
    let steps = events(&four, "step");
    assert!(!steps.is_empty());
    for step in steps {
        let completions = step["completions_per_rank"].as_array().unwrap();
        let completions: Vec<u64> = completions.iter().map(|n| n.as_u64().unwrap()).collect();
        assert!(!completions.contains(&0) && completions.iter().sum::<u64>() == 8, "{step}");
        let share = |name: &str| step[name].as_f64().unwrap();
        assert!(share("mfu") >= share("matmul_share") && share("matmul_share") > 0.0, "{step}");
        let busy = step["busy_share_per_rank"].as_array().unwrap();
        let is_busy = |share: &Value| (0.0..=1.0).contains(&share.as_f64().unwrap());
        assert!(busy.len() == 4 && busy.iter().all(is_busy), "{step}");
    }
}

/// A metric that the run must have.
fn curve(run: &Path, name: &str) -> Vec<f64> {
    let curve = metric(run, name);
    assert!(!curve.is_empty(), "`{name}`");
    curve
}

#[test]
fn quickstart_learns_alike_on_two_ranks_and_on_one() {
    let dir = tempfile::tempdir().unwrap();
    let quickstart = |ranks: usize| {
        let out = dir.path().join(format!("ranks{ranks}"));
        let mut command = Command::new(binary());
        command.args([
            "quickstart",
            "--rooms",
            "10",
            "--sft-set",
            "num_train_epochs=4",
            "--output",
        ]);
        command.arg(&out).args(["--set", "warmup_steps=0", "--set", "generation_batch_size=32"]);
        command.args(["--set", "stage=[{steps = 2, weights = {format = 0.5, accuracy = 0.5}}]"]);
        let stdout = stdout_of(command.args(["--ranks", &ranks.to_string()]));
        assert_eq!(
            stdout.matches(" --ranks 2").count(),
            if ranks == 2 { 2 } else { 0 },
            "{stdout}"
        );
        out
    };
    let (one, two) = (quickstart(1), quickstart(2));
    for (run, name, tolerance) in [
        ("sft", "loss", 1e-3),
        ("sft", "grad_norm", 1e-2),
        // Weights that differ by rounding may change a few completions: two of 32.
        ("train", "reward", 2.0 / 32.0),
        ("train", "completions/mean_length", 4.0),
    ] {
        let (one, two) = (curve(&one.join(run), name), curve(&two.join(run), name));
        assert_eq!(one.len(), two.len());
        for (step, (one, two)) in one.iter().zip(&two).enumerate() {
            let what = format!("{run}, `{name}`, step {step}");
            assert!((one - two).abs() <= tolerance, "{what}: {one} and {two}");
        }
    }
}

#[test]
fn fine_tuning_learns_alike_on_any_number_of_ranks() {
    let dir = tempfile::tempdir().unwrap();
    tiny_model::write(&dir.path().join("model"));
    let conversation = |i: usize| {
        json!({"messages": [
            {"role": "user", "content": "where? ".repeat(i + 1)},
            {"role": "assistant", "content": "left ".repeat(7 - i)},
        ]})
    };
    let lines: Vec<String> = (0..7).map(|i| conversation(i).to_string()).collect();
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
fn an_error_of_one_rank_is_reported_once_and_ends_all() {
    let dir = tempfile::tempdir().unwrap();
    tiny_run::write(dir.path());
    let invalid = ["--set", "num_generations=1"];
    let error = stderr_of(&mut train(dir.path(), 2, "run", &invalid), 2);
    // The failure's own kind, `usage error: `, is part of the one report.
    let reports = error.replace("usage error: ", "");
    assert_eq!(reports.matches("error: ").count(), 1, "{error}");
    assert!(error.contains("num_generations"), "{error}");
    fs::remove_file(dir.path().join("train.json")).unwrap();
    let error = stderr_of(&mut train(dir.path(), 3, "run", &[]), 1);
    assert_eq!(error.matches("error: ").count(), 1, "{error}");
    assert!(error.contains("train.json"), "{error}");
    assert!(!dir.path().join("run").exists());
}
