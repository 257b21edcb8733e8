//! `embodied-r filter`: a blind model by API and in process, interruptions, changed settings and wrong usage.

pub(crate) mod server;

use std::path::Path;
use std::process::{Command, Output};

use embodied_r_tests::{binary, stderr, stdout, tiny_model};
use serde_json::{Value, json};
use server::Server;

/// A captioned question with the answer B; `word` selects the server's response.
fn question(id: u32, word: &str) -> Value {
    json!({"note": {"mine": [id]}, "Question_id": id, "question_category": "route_planning",
        "question": format!("Video content:\n<\nFrame 0: Observe: an elephant\n>\n\
            Question: {word}?\n\nChoices:\nA. left\nB. right"),
        "answer": "B", "extra_number": 1.50})
}

/// A folder with these questions in `data.json`.
fn workspace(questions: &[Value]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("data.json"), json!(questions).to_string()).unwrap();
    folder
}

fn filter_bare(folder: &Path, words: &[&str]) -> Output {
    Command::new(binary())
        .current_dir(folder)
        .env_remove("OPENAI_API_KEY")
        .env("NO_PROXY", "127.0.0.1")
        .args(["filter", "--data", "data.json"])
        .args(words)
        .output()
        .unwrap()
}

/// The command with the server, writing `kept.json`.
fn filter(folder: &Path, server: &Server, words: &[&str]) -> Output {
    let url = server.base_url();
    let fixed = ["--output", "kept.json", "--base-url", &url, "--model", "blind"];
    filter_bare(folder, &[&fixed, words].concat())
}

fn kept(folder: &Path) -> Vec<Value> {
    serde_json::from_slice(&std::fs::read(folder.join("kept.json")).unwrap()).unwrap()
}

fn ids(questions: &[Value]) -> Vec<u64> {
    questions.iter().map(|question| question["Question_id"].as_u64().unwrap()).collect()
}

fn tries(folder: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join("kept.json.tries.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn questions_that_a_blind_model_answers_are_dropped_and_the_others_are_unchanged() {
    let server = Server::start();
    let number = json!({"Question_id": 5, "question": "Question: how many?", "answer": "4"});
    let all = [question(1, "easy"), question(2, "hard"), question(3, "even"), question(4, "odd")];
    let all: Vec<Value> = all.into_iter().chain([number]).collect();
    let folder = workspace(&all);
    let output = filter(folder.path(), &server, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let kept = kept(folder.path());
    assert_eq!(ids(&kept), [2, 3, 4, 5]);
    // As text, to compare the order of the fields too.
    let text = |questions: &[Value]| questions.iter().map(Value::to_string).collect::<Vec<_>>();
    assert_eq!(text(&kept), text(&all[1..]));
    let tries = tries(folder.path());
    assert_eq!(tries[0]["drop_at"], json!(3));
    let outcome = |line: &Value| (line["id"].clone(), line["right"].clone(), line["kept"].clone());
    assert_eq!(outcome(&tries[1]), (json!("1"), json!(4), json!(false)));
    assert_eq!(outcome(&tries[3]), (json!("3"), json!(2), json!(true)));
    assert_eq!(tries[4]["answers"], json!([null, null, null, null]));
    assert_eq!(tries.len(), 5);
    let summary = stdout(&output);
    let line = summary.lines().find(|line| line.starts_with("route_planning")).unwrap();
    let cells: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(cells, ["route_planning", "4", "4", "1", "3", "37.5", "%", "25.0", "%"]);
    let last = "dropped questions with 3 or more of 4 tries correct; kept 4 questions in kept.json";
    assert!(summary.contains(last), "{summary}");
}

#[test]
fn json_lines_are_filtered_too() {
    let server = Server::start();
    let folder = workspace(&[]);
    let lines = [question(1, "easy"), question(2, "hard")].map(|question| question.to_string());
    // A line's number counts empty lines.
    std::fs::write(folder.path().join("data.json"), lines.join("\n\n")).unwrap();
    let output = filter(folder.path(), &server, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(ids(&kept(folder.path())), [2]);
}

#[test]
fn several_files_are_filtered_into_one_with_their_records_unchanged() {
    let server = Server::start();
    let (first, second) = ([question(1, "easy"), question(2, "hard")], [question(3, "odd")]);
    let folder = workspace(&first);
    std::fs::write(folder.path().join("more.json"), json!(second).to_string()).unwrap();
    let output = filter(folder.path(), &server, &["--data", "more.json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(kept(folder.path()), [first[1].clone(), second[0].clone()]);
    let onto_itself = filter_bare(
        folder.path(),
        &["--data", "more.json", "--output", "more.json", "--base-url", "http://x", "--model", "m"],
    );
    assert_eq!(onto_itself.status.code(), Some(2));
    assert!(stderr(&onto_itself).contains("would overwrite the data `more.json`"));
}

#[test]
fn the_blind_model_sees_no_captions_and_each_try_is_a_new_sample() {
    let server = Server::start();
    let folder = workspace(&[question(1, "easy"), question(2, "hard")]);
    assert_eq!(filter(folder.path(), &server, &["--tries", "3"]).status.code(), Some(0));
    let requests = server.requests();
    assert_eq!(requests.len(), 6);
    for request in &requests {
        assert!(!request.to_string().contains("elephant"), "{request}");
        assert_eq!((&request["model"], &request["temperature"]), (&json!("blind"), &json!(1.0)));
    }
    let question = "Question: easy?\n\nChoices:\nA. left\nB. right";
    assert!(requests.iter().any(|request| request["messages"][1]["content"] == question));
    let seeds: std::collections::HashSet<u64> =
        requests.iter().map(|request| request["seed"].as_u64().unwrap()).collect();
    assert_eq!(seeds.len(), 6);
}

#[test]
fn completions_are_reused_even_with_another_threshold() {
    let server = Server::start();
    let folder = workspace(&[question(1, "easy"), question(2, "even"), question(3, "hard")]);
    assert_eq!(filter(folder.path(), &server, &["--limit", "1"]).status.code(), Some(0));
    assert_eq!((server.requests().len(), kept(folder.path()).len()), (4, 0));
    // A line truncated by a kill.
    let journal = folder.path().join("kept.json.tries.jsonl");
    let text = std::fs::read_to_string(&journal).unwrap() + "{\"index\": 1, \"id\": \"2\", \"rep";
    std::fs::write(&journal, text).unwrap();
    let output = filter(folder.path(), &server, &[]);
    assert!(stderr(&output).contains("resuming: 1 of 3 questions are done"), "{}", stderr(&output));
    assert_eq!((server.requests().len(), ids(&kept(folder.path()))), (12, vec![2, 3]));
    let output = filter(folder.path(), &server, &["--drop-at", "2", "--json"]);
    let summary: Value = serde_json::from_str(stdout(&output)).unwrap();
    assert_eq!((server.requests().len(), ids(&kept(folder.path()))), (12, vec![3]));
    assert_eq!((&summary["drop_at"], &summary["dropped"]), (&json!(2), &json!(2)));
    assert_eq!(summary["by_category"]["route_planning"]["kept"], json!(1));
}

#[test]
fn a_changed_setting_is_named_and_no_request_is_sent() {
    let server = Server::start();
    let folder = workspace(&[question(1, "easy")]);
    assert_eq!(filter(folder.path(), &server, &["--seed", "1"]).status.code(), Some(0));
    let output = filter(folder.path(), &server, &["--seed", "2"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("`seed` was 1 and is 2;"), "{}", stderr(&output));
    assert_eq!(server.requests().len(), 4);
}

#[test]
fn questions_whose_requests_failed_are_kept_and_retried_by_the_next_run() {
    let server = Server::start();
    let folder = workspace(&[question(1, "easy one"), question(2, "easy two")]);
    server.refuse(Some("two"));
    let output = filter(folder.path(), &server, &["--tries", "1"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("returned 400: not this"), "{}", stderr(&output));
    assert_eq!(ids(&kept(folder.path())), [2]);
    server.refuse(None);
    let before = server.requests().len();
    assert_eq!(filter(folder.path(), &server, &["--tries", "1"]).status.code(), Some(0));
    assert_eq!((server.requests().len() - before, kept(folder.path()).len()), (1, 0));
}

#[test]
fn a_model_that_favors_one_letter_is_reported() {
    let server = Server::start();
    let warnings = |words: [&str; 5]| {
        let all: Vec<Value> = (0..).zip(words).map(|(id, word)| question(id, word)).collect();
        let folder = workspace(&all);
        stderr(&filter(folder.path(), &server, &[])).to_owned()
    };
    let biased = warnings(["easy a", "easy b", "easy c", "easy d", "hard"]);
    assert!(biased.contains("it answers B in 80 % of its tries"), "{biased}");
    assert_eq!(warnings(["easy e", "easy f", "hard g", "hard h", "hard i"]), "");
}

#[test]
fn a_benchmark_keeps_its_format() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let record = |question: &str| {
        json!({"video": "a.mp4", "question": question, "candidates": ["Stop", "Go"],
            "answer": "Go"})
    };
    let all = json!([record("easy"), record("hard")]);
    std::fs::write(folder.path().join("data.json"), all.to_string()).unwrap();
    assert_eq!(filter(folder.path(), &server, &["--tries", "2"]).status.code(), Some(0));
    assert_eq!(kept(folder.path()), [record("hard")]);
}

#[test]
fn a_local_model_is_reproducible_and_its_tries_differ() {
    let questions: Vec<Value> = (0..3).map(|id| question(id, "where")).collect();
    let folder = workspace(&questions);
    let folder = folder.path();
    tiny_model::write(&folder.join("model"));
    let run = |out: &str, batch: &str| {
        let words =
            ["--output", out, "--model", "model", "--max-new-tokens", "6", "--batch", batch];
        let output = filter_bare(folder, &words);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        std::fs::read_to_string(folder.join(format!("{out}.tries.jsonl"))).unwrap()
    };
    let (first, second) = (run("a.json", "1"), run("b.json", "3"));
    assert_eq!(first, second);
    let line: Value = serde_json::from_str(first.lines().nth(1).unwrap()).unwrap();
    let replies = line["replies"].as_array().unwrap();
    assert_eq!(replies.len(), 4);
    assert!(replies.iter().any(|reply| reply != &replies[0]), "{replies:?}");
}

#[test]
fn wrong_usage_exits_with_two_and_wrong_data_with_one() {
    let folder = workspace(&[question(1, "easy")]);
    let url = ["--base-url", "http://127.0.0.1:9/v1", "--model", "m"];
    for (words, code, reason) in [
        (vec!["--output", "o.json"], 2, "--model"),
        (vec!["--output", "o.json", "--base-url", "http://127.0.0.1:9/v1"], 2, "--model"),
        (
            ["--output", "o.json", "--device", "cpu"].iter().chain(&url).copied().collect(),
            2,
            "--device",
        ),
        ([&["--output", "o.json", "--drop-at", "5"], &url[..]].concat(), 2, "exceeds the 4 tries"),
        ([&["--output", "o.json", "--temperature", "0"], &url[..]].concat(), 2, "`--tries 1`"),
        ([&["--output", "data.json"], &url[..]].concat(), 2, "would overwrite the data"),
        (vec!["--output", "o.json", "--base-url", "nowhere", "--model", "m"], 2, "not a base URL"),
    ] {
        let output = filter_bare(folder.path(), &words);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(reason), "{words:?}: {}", stderr(&output));
    }
    let mut unanswered = question(9, "easy");
    unanswered.as_object_mut().unwrap().remove("answer");
    let folder = workspace(&[unanswered]);
    let output = filter_bare(folder.path(), &[&["--output", "o.json"], &url[..]].concat());
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("question `9` has no `answer`"), "{}", stderr(&output));
    assert!(!folder.path().join("o.json").exists());
}
