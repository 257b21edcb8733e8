//! `embodied-r eval --pass-at` on a random model.

use std::path::Path;
use std::process::Command;

use assert_cmd::assert::OutputAssertExt as _;
use embodied_r_tests::{binary, stderr_of, stdout_of, tiny_model, write_lamp_questions};
use serde_json::{Value, json};

fn eval(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.current_dir(dir).arg("eval").args(arguments);
    command
}

/// Samples `ks` of the two questions in `dir` into `output`.
fn sample(dir: &Path, ks: &str, output: &str, more: &[&str]) -> Value {
    let words = ["--model", "model", "--data", "train.json", "--max-new-tokens", "6", "--json"];
    let mut command = eval(dir, &words);
    command.args(["--pass-at", ks, "--output", output]).args(more);
    serde_json::from_str(&stdout_of(&mut command)).unwrap()
}

fn samples(dir: &Path, output: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(dir.join(output).join("samples.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn inputs() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    tiny_model::write(&dir.path().join("model"));
    write_lamp_questions(dir.path(), 2);
    dir
}

#[test]
fn every_question_gets_its_samples_in_order() {
    let dir = inputs();
    let report = sample(dir.path(), "1,3", "out", &["--num-samples", "4", "--temperature", "0.9"]);
    let found = (&report["n"], &report["samples"], &report["temperature"]);
    assert_eq!(found, (&json!(2), &json!(4), &json!(0.9)));
    assert_eq!(report["pass_at"], report["by_category"]["object_rel_distance"]["pass_at"]);
    let samples = samples(dir.path(), "out");
    let questions: Vec<Value> =
        serde_json::from_slice(&std::fs::read(dir.path().join("train.json")).unwrap()).unwrap();
    assert_eq!(samples.len(), 2);
    for (index, (sampled, question)) in samples.iter().zip(&questions).enumerate() {
        assert_eq!(sampled["id"], json!(index.to_string()));
        assert_eq!(sampled["category"], json!("object_rel_distance"));
        assert_eq!(sampled["solution"], json!("A"));
        assert_eq!(sampled["question"], question["question"]);
        let texts = sampled["samples"].as_array().unwrap();
        assert!(texts.len() == 4 && texts.iter().all(Value::is_string), "{sampled}");
        assert!(texts.iter().any(|text| *text != texts[0]), "{sampled}");
    }
    let left: Vec<_> = std::fs::read_dir(dir.path().join("out")).unwrap().flatten().collect();
    let mut names: Vec<_> = left.iter().map(|entry| entry.file_name()).collect();
    names.sort();
    assert_eq!(names, ["embodied-r.json", "embodied-r.md", "samples.jsonl"]);
}

#[test]
fn the_seed_determines_the_samples_and_more_of_them_begin_with_the_same() {
    let dir = inputs();
    let of = |ks: &str, output: &str, seed: &str| {
        let report = sample(dir.path(), ks, output, &["--seed", seed]);
        assert_eq!(report["temperature"], json!(1.0));
        samples(dir.path(), output)
    };
    let (first, again, other) = (of("2", "a", "1"), of("2", "b", "1"), of("2", "c", "2"));
    assert_eq!(first, again);
    assert_ne!(first, other);
    for (few, more) in first.iter().zip(of("4", "d", "1")) {
        let (few, more) = (few["samples"].as_array(), more["samples"].as_array());
        assert_eq!(few.unwrap()[..], more.unwrap()[..2]);
    }
}

/// Two questions with one and three of four samples correct.
fn saved_samples(dir: &Path) {
    let line = |id: u32, answers: &str| {
        let samples: Vec<String> =
            answers.chars().map(|letter| format!("<answer>{letter}</answer>")).collect();
        json!({"id": id, "category": "route_planning", "solution": "B", "question": "q",
            "samples": samples})
        .to_string()
    };
    let text = format!("{}\n{}\n", line(1, "ABAA"), line(2, "BBAB"));
    std::fs::write(dir.join("samples.jsonl"), text).unwrap();
}

#[test]
fn saved_samples_are_scored_without_a_model() {
    let dir = tempfile::tempdir().unwrap();
    saved_samples(dir.path());
    let words = ["--predictions", "samples.jsonl", "--pass-at", "1,2,4"];
    let report = stdout_of(eval(dir.path(), &words).arg("--json"));
    let report: Value = serde_json::from_str(&report).unwrap();
    let pass_at: Vec<f64> =
        ["1", "2", "4"].iter().map(|k| report["pass_at"][k].as_f64().unwrap()).collect();
    // 1 - C(3, 2) / C(4, 2) and 1 - 0 for k = 2.
    for (found, expected) in pass_at.iter().zip([50.0, 75.0, 100.0]) {
        assert!((found - expected).abs() < 1e-9, "{report}");
    }
    assert_eq!((&report["overall"], &report["samples"]), (&json!(50.0), &json!(4)));
    assert!(report.get("temperature").is_none());
    let table = stdout_of(&mut eval(dir.path(), &words));
    assert!(table.contains("| pass@1 | pass@2 | pass@4 |"), "{table}");
    assert!(table.contains("4 samples per question. "), "{table}");
}

#[test]
fn wrong_usage_is_one_error_that_says_what_to_give() {
    let dir = tempfile::tempdir().unwrap();
    saved_samples(dir.path());
    let model = ["--model", "model", "--data", "train.json"];
    let saved = ["--predictions", "samples.jsonl"];
    for (source, words, code, message) in [
        (&model[..], &["--pass-at", "8", "--num-samples", "4"][..], 2, "give 8 or more"),
        (&model, &["--pass-at", "2", "--temperature", "0"], 2, "needs `--temperature` above 0"),
        (&model, &["--pass-at", "0"], 2, "must be at least 1"),
        (&model, &["--num-samples", "4"], 2, "--pass-at <K>"),
        (&saved, &["--pass-at", "2", "--num-samples", "4"], 2, "cannot be used with"),
        (&saved, &["--pass-at", "8"], 1, "pass@8 needs at least 8 samples per question, not 4"),
        (&saved, &[], 1, "a `samples.jsonl` is scored with `--pass-at`"),
        (&[], &["--pass-at", "2"], 2, "nothing to score"),
    ] {
        let stderr = stderr_of(eval(dir.path(), source).args(words), code);
        assert!(stderr.contains(message), "{words:?}: {stderr}");
    }
    let answer = json!({"id": 1, "category": "route_planning", "solution": "B", "prediction": "B"});
    std::fs::write(dir.path().join("answers.jsonl"), answer.to_string()).unwrap();
    let words = ["--predictions", "answers.jsonl", "--pass-at", "1"];
    let stderr = stderr_of(&mut eval(dir.path(), &words), 1);
    assert!(stderr.contains("`samples` in line 1 of `answers.jsonl` is missing"), "{stderr}");
}

#[test]
fn an_interrupted_run_resumes_with_its_finished_questions() {
    let dir = inputs();
    sample(dir.path(), "2", "whole", &[]);
    let whole = samples(dir.path(), "whole");
    // Fails when the samples are written; a kill after the first batch would have left no line of the second question.
    let output = dir.path().join("out/samples.jsonl");
    std::fs::create_dir_all(&output).unwrap();
    let words = ["--model", "model", "--data", "train.json", "--max-new-tokens", "6", "--json"];
    let rest = ["--pass-at", "2", "--batch", "1", "--output", "out"];
    let stderr = stderr_of(eval(dir.path(), &words).args(rest), 1);
    assert!(stderr.contains("samples.jsonl"), "{stderr}");
    let journal = dir.path().join("out/samples.jsonl.partial.jsonl");
    let lines = std::fs::read_to_string(&journal).unwrap();
    let first: Vec<&str> = lines.split_inclusive('\n').take(2).collect();
    std::fs::write(&journal, first.concat()).unwrap();
    std::fs::remove_dir(&output).unwrap();
    let resumed = eval(dir.path(), &words).args(rest).assert().code(0);
    let stderr = String::from_utf8_lossy(&resumed.get_output().stderr).into_owned();
    assert!(stderr.contains("resuming: 1 of 2 questions are answered already"), "{stderr}");
    assert_eq!(samples(dir.path(), "out"), whole);
}
