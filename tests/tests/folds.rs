//! `embodied-r eval --folds`: means over the folds of `preprocess --folds`.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use embodied_r_tests::{binary, stderr, stdout, tiny_model};
use serde_json::{Value, json};

use crate::filter::server::Server;

fn run(dir: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.current_dir(dir).env_remove("OPENAI_API_KEY").env("NO_PROXY", "127.0.0.1");
    command.args(words).output().unwrap()
}

fn report(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    serde_json::from_str(stdout(output).lines().last().unwrap()).unwrap()
}

fn write(path: &Path, value: &Value) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, value.to_string()).unwrap();
}

/// Questions with the answer B, one for each word of `words`.
fn questions(fold: usize, words: &str) -> Vec<Value> {
    let question = |(id, word): (usize, &str)| {
        json!({"Question_id": id, "question_category": "route_planning", "answer": "B",
            "question": format!("Question {fold}.{id}: {word}?"), "scene_name": format!("{fold}.{id}")})
    };
    words.split(' ').enumerate().map(question).collect()
}

/// `fold-I/test_data.json` for each item of `folds`.
fn data(folds: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (fold, words) in folds.iter().enumerate() {
        let path = dir.path().join(format!("fold-{fold}/test_data.json"));
        write(&path, &json!(questions(fold, words)));
    }
    dir
}

/// `answers-I.json` with these letters for each item of `folds`.
fn predictions(folds: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (fold, letters) in folds.iter().enumerate() {
        let mut records = questions(fold, letters);
        for (record, letter) in records.iter_mut().zip(letters.split(' ')) {
            record["content"] = json!(format!("<answer>{letter}</answer>"));
        }
        write(&dir.path().join(format!("answers-{fold}.json")), &json!(records));
    }
    dir
}

const SAVED: [&str; 3] = ["eval", "--predictions", "answers-{fold}.json"];
const DATA: [&str; 3] = ["eval", "--data", "fold-{fold}/test_data.json"];

#[test]
fn saved_predictions_are_averaged_over_folds() {
    let dir = predictions(&["B", "B A", "A A A A"]);
    let output = run(dir.path(), &[&SAVED[..], &["--folds", "3", "--json"]].concat());
    let all = report(&output);
    assert_eq!((&all["overall"], &all["n"]), (&json!(50.0), &json!(7)));
    assert_eq!(all["by_category"], json!({"route_planning": {"score": 50.0, "n": 7}}));
    assert_eq!(all["std"]["overall"], json!(50.0));
    assert_eq!(all["std"]["by_category"], json!({"route_planning": 50.0}));
    for (fold, score) in [(0, 100.0), (1, 50.0), (2, 0.0)] {
        let alone = ["eval", "--json", "--predictions", &format!("answers-{fold}.json")];
        let alone = report(&run(dir.path(), &alone));
        assert_eq!((&all["folds"][fold], &alone["overall"]), (&alone, &json!(score)));
    }
    let words = [&SAVED[..], &["--folds", "3", "--name", "ours", "--output", "out"]].concat();
    let output = run(dir.path(), &words);
    let table = stdout(&output);
    let line = table.lines().find(|line| line.starts_with("| route_planning")).unwrap();
    let cells: Vec<&str> = line.split('|').map(str::trim).collect();
    assert_eq!(cells[1..8], ["route_planning", "7", "50.0", "50.0", "100.0", "50.0", "0.0"]);
    assert!(table.contains("| **ours** "), "{table}");
    assert_eq!(fs::read_to_string(dir.path().join("out/embodied-r.md")).unwrap(), table);
    let saved = fs::read(dir.path().join("out/embodied-r.json")).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&saved).unwrap(), all);
}

#[test]
fn one_model_answers_every_fold_as_it_answers_that_fold_alone() {
    let dir = data(&["where is the lamp", "think a chair"]);
    tiny_model::write(&dir.path().join("model"));
    let model = ["--model", "model", "--max-new-tokens", "6", "--pass-at", "1,2", "--json"];
    let all = [&DATA[..], &model, &["--folds", "2", "--output", "all"]].concat();
    let output = run(dir.path(), &all);
    let all = report(&output);
    assert!(stderr(&output).contains("fold 1 of 2: 3 questions"), "{}", stderr(&output));
    assert_eq!((&all["samples"], &all["n"]), (&json!(2), &json!(7)));
    assert!(all["std"]["pass_at"]["2"].is_number(), "{all}");
    for fold in ["0", "1"] {
        let path = format!("fold-{fold}/test_data.json");
        let alone = ["eval", "--data", &path, "--output", fold];
        report(&run(dir.path(), &[&alone[..], &model].concat()));
        let samples = |folder: &str| {
            fs::read_to_string(dir.path().join(folder).join("samples.jsonl")).unwrap()
        };
        assert_eq!(samples(&format!("all/fold-{fold}")), samples(fold));
    }
    let left = |folder: &str| {
        let entries = fs::read_dir(dir.path().join(folder)).unwrap().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(left("all/fold-0"), ["samples.jsonl"]);
    assert_eq!(left("all"), ["embodied-r.json", "embodied-r.md", "fold-0", "fold-1"]);
}

#[test]
fn every_fold_has_its_own_model_and_finished_folds_are_kept() {
    let server = Server::start();
    let dir = data(&["easy hard", "easy easy", "hard easy"]);
    let url = server.base_url();
    let words = ["--model", "m-{fold}", "--base-url", &url, "--folds", "3", "--output", "out"];
    let eval = || run(dir.path(), &[&DATA[..], &words, &["--json"]].concat());
    server.refuse(Some("Question 2.1"));
    let failed = eval();
    assert_eq!(failed.status.code(), Some(1));
    assert!(stderr(&failed).contains("1 of 2 questions failed"), "{}", stderr(&failed));
    assert_eq!(server.requests().len(), 6);
    server.refuse(None);
    let all = report(&eval());
    let requests = server.requests();
    assert_eq!(requests.len(), 7);
    for request in &requests {
        let question = request["messages"][1]["content"].as_str().unwrap();
        let fold = question.strip_prefix("Question ").unwrap().split('.').next().unwrap();
        assert_eq!(request["model"], json!(format!("m-{fold}")));
    }
    let overall = |fold: usize| all["folds"][fold]["overall"].as_f64().unwrap();
    assert_eq!([0, 1, 2].map(overall), [50.0, 100.0, 50.0]);
}

#[test]
fn the_folds_of_preprocess_are_evaluated() {
    let dir = tempfile::tempdir().unwrap();
    tiny_model::write(&dir.path().join("model"));
    let rooms = ["sim", "rooms", "--output", "rooms", "--rooms", "4"];
    assert_eq!(run(dir.path(), &rooms).status.code(), Some(0));
    for fold in ["0", "1"] {
        let output = format!("fold-{fold}");
        let words =
            ["preprocess", "--data", "rooms", "--folds", "2", "--fold", fold, "--output", &output];
        assert_eq!(run(dir.path(), &words).status.code(), Some(0));
    }
    for file in ["fold-0/complete/test_data.json", "fold-1/complete/test_data.json"] {
        let path = dir.path().join(file);
        let mut questions: Vec<Value> = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        questions.truncate(3);
        for question in &mut questions {
            question["question"] =
                json!(format!("<video>{}", question["question"].as_str().unwrap()));
        }
        fs::write(&path, json!(questions).to_string()).unwrap();
    }
    let words = ["eval", "--data", "fold-{fold}/complete/test_data.json", "--model", "model"];
    let more = ["--max-new-tokens", "2", "--scenes", "rooms/scenes", "--output", "out", "--json"];
    let with = |folds: &str| run(dir.path(), &[&words[..], &more, &["--folds", folds]].concat());
    let all = report(&with("2"));
    assert_eq!((&all["n"], all["folds"].as_array().unwrap().len()), (&json!(6), 2));
    let answers = fs::read_to_string(dir.path().join("out/fold-1/answers.json")).unwrap();
    assert!(answers.contains("Frame 0:"), "{answers}");

    fs::rename(dir.path().join("fold-1"), dir.path().join("fold-2")).unwrap();
    fs::rename(dir.path().join("fold-0"), dir.path().join("fold-1")).unwrap();
    fs::rename(dir.path().join("fold-2"), dir.path().join("fold-0")).unwrap();
    let swapped = with("2");
    assert_eq!(swapped.status.code(), Some(2));
    let message = stderr(&swapped);
    assert!(message.contains("`fold-0/complete/test_data.json` is fold 1 of 2 "), "{message}");
}

#[test]
fn missing_surplus_and_overlapping_folds_are_named_before_the_model_is_loaded() {
    let dir = data(&["a", "b", "c"]);
    let same = fs::read(dir.path().join("fold-0/test_data.json")).unwrap();
    fs::create_dir(dir.path().join("twice")).unwrap();
    for fold in 0..2 {
        fs::write(dir.path().join(format!("twice/{fold}.json")), &same).unwrap();
    }
    let twice = ["eval", "--data", "twice/{fold}.json"];
    let plain = ["eval", "--data", "fold-0/test_data.json"];
    for (words, more, code, message) in [
        (
            &DATA,
            &["--folds", "4"][..],
            1,
            "fold 3 of 4 is missing: `fold-3/test_data.json` does not exist",
        ),
        (
            &DATA,
            &["--folds", "4"],
            1,
            "`embodied-r preprocess --folds 4 --fold 3` makes it; folds are counted from 0",
        ),
        (
            &DATA,
            &["--folds", "2"],
            2,
            "`fold-2/test_data.json` exists, but with `--folds 2` the last fold is 1",
        ),
        (&DATA, &["--folds", "1"], 2, "must be at least 2"),
        (&DATA, &[], 2, "contains `{fold}`, so give the number of folds with `--folds`"),
        (
            &plain,
            &["--folds", "2"],
            2,
            "`--data fold-0/test_data.json` is the same file for every fold",
        ),
        (&twice, &["--folds", "2"], 2, "scene `0.0` is in `twice/0.json` and in `twice/1.json`"),
    ] {
        let output = run(dir.path(), &[&words[..], &["--model", "absent"], more].concat());
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        assert!(stderr(&output).contains(message), "{message} in {}", stderr(&output));
    }
    let per_fold = run(dir.path(), &[&plain[..], &["--model", "m-{fold}"]].concat());
    assert!(stderr(&per_fold).contains("`--model m-{fold}` contains"), "{}", stderr(&per_fold));
}

#[test]
fn a_broken_fold_of_predictions_is_named() {
    let dir = predictions(&["B", "B", "A"]);
    let question = json!([{"Question_id": 1, "question_category": "route_planning",
        "question": "q", "answer": "B"}]);
    write(&dir.path().join("answers-1.json"), &question);
    let output = run(dir.path(), &[&SAVED[..], &["--folds", "3"]].concat());
    assert_eq!(output.status.code(), Some(1));
    let message = stderr(&output);
    assert!(
        message.starts_with("error: fold 1: none of the 1 records has a `content`"),
        "{message}"
    );
    fs::remove_file(dir.path().join("answers-1.json")).unwrap();
    let output = run(dir.path(), &[&SAVED[..], &["--folds", "3"]].concat());
    let message = stderr(&output);
    assert!(
        message.contains("fold 1 of 3 is missing: `answers-1.json` does not exist"),
        "{message}"
    );
}
