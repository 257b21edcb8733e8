//! `embodied-r filter`: a blind model by API and in process, stops, changes and wrong usage.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod filter {
    pub(crate) mod server;
}
mod tiny_model;

use std::path::Path;
use std::process::{Command, Output};

use embodied_r_tests::binary;
use filter::server::Server;
use serde_json::{Value, json};

/// A perceived question whose right answer is B; `word` says how the server takes it.
fn question(id: u32, word: &str) -> Value {
    json!({"note": {"mine": [id]}, "Question_id": id, "question_category": "route_planning",
        "question": format!("Video content:\n<\nFrame 0: Observe: an elephant\n>\n\
            Question: {word}?\n\nChoices:\nA. left\nB. right"),
        "answer": "B", "extra_number": 1.50})
}

/// A folder with these questions as `data.json`.
fn place(questions: &[Value]) -> tempfile::TempDir {
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

/// The command with the server and `kept.json`.
fn filter(folder: &Path, server: &Server, words: &[&str]) -> Output {
    let url = server.base_url();
    let own = ["--out", "kept.json", "--base-url", &url, "--api-model", "blind"];
    filter_bare(folder, &[&own, words].concat())
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
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

#[tokio::test(flavor = "multi_thread")]
async fn what_a_blind_model_answers_right_goes_and_the_rest_stays_as_it_was() {
    let server = Server::start().await;
    let number = json!({"Question_id": 5, "question": "Question: how many?", "answer": "4"});
    let all = [question(1, "easy"), question(2, "hard"), question(3, "even"), question(4, "odd")];
    let all: Vec<Value> = all.into_iter().chain([number]).collect();
    let folder = place(&all);
    let output = filter(folder.path(), &server, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let kept = kept(folder.path());
    assert_eq!(ids(&kept), [2, 3, 4, 5]);
    // As text, so that the order of the fields counts too.
    let text = |questions: &[Value]| questions.iter().map(Value::to_string).collect::<Vec<_>>();
    assert_eq!(text(&kept), text(&all[1..]));
    let tries = tries(folder.path());
    assert_eq!(tries[0]["drop_at"], json!(3));
    let told = |line: &Value| (line["id"].clone(), line["right"].clone(), line["kept"].clone());
    assert_eq!(told(&tries[1]), (json!("1"), json!(4), json!(false)));
    assert_eq!(told(&tries[3]), (json!("3"), json!(2), json!(true)));
    assert_eq!(tries[4]["answers"], json!([null, null, null, null]));
    assert_eq!(tries.len(), 5);
    let summary = stdout(&output);
    let line = summary.lines().find(|line| line.starts_with("route_planning")).unwrap();
    let cells: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(cells, ["route_planning", "4", "4", "1", "3", "37.5", "%", "25.0", "%"]);
    assert!(summary.contains("dropped from 3 right of 4 tries on; 4 questions kept in kept.json"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_blind_model_reads_no_word_of_the_video_and_draws_anew_each_time() {
    let server = Server::start().await;
    let folder = place(&[question(1, "easy"), question(2, "hard")]);
    assert_eq!(filter(folder.path(), &server, &["--tries", "3"]).status.code(), Some(0));
    let requests = server.requests();
    assert_eq!(requests.len(), 6);
    for request in &requests {
        assert!(!request.to_string().contains("elephant"), "{request}");
        assert_eq!((&request["model"], &request["temperature"]), (&json!("blind"), &json!(1.0)));
    }
    let asked = "Question: easy?\n\nChoices:\nA. left\nB. right";
    assert!(requests.iter().any(|request| request["messages"][1]["content"] == asked));
    let seeds: std::collections::HashSet<u64> =
        requests.iter().map(|request| request["seed"].as_u64().unwrap()).collect();
    assert_eq!(seeds.len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_is_not_asked_again_and_another_mark_decides_anew() {
    let server = Server::start().await;
    let folder = place(&[question(1, "easy"), question(2, "even"), question(3, "hard")]);
    assert_eq!(filter(folder.path(), &server, &["--limit", "1"]).status.code(), Some(0));
    assert_eq!((server.requests().len(), kept(folder.path()).len()), (4, 0));
    // A line that a kill cut short.
    let journal = folder.path().join("kept.json.tries.jsonl");
    let text = std::fs::read_to_string(&journal).unwrap() + "{\"index\": 1, \"id\": \"2\", \"rep";
    std::fs::write(&journal, text).unwrap();
    let output = filter(folder.path(), &server, &[]);
    assert!(stderr(&output).contains("1 of 3 are asked already"), "{}", stderr(&output));
    assert_eq!((server.requests().len(), ids(&kept(folder.path()))), (12, vec![2, 3]));
    let output = filter(folder.path(), &server, &["--drop-at", "2", "--json"]);
    let summary: Value = serde_json::from_str(stdout(&output)).unwrap();
    assert_eq!((server.requests().len(), ids(&kept(folder.path()))), (12, vec![3]));
    assert_eq!((&summary["drop_at"], &summary["dropped"]), (&json!(2), &json!(2)));
    assert_eq!(summary["by_category"]["route_planning"]["kept"], json!(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_setting_is_named_and_nothing_is_asked() {
    let server = Server::start().await;
    let folder = place(&[question(1, "easy")]);
    assert_eq!(filter(folder.path(), &server, &["--seed", "1"]).status.code(), Some(0));
    let output = filter(folder.path(), &server, &["--seed", "2"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("`seed` was 1 and is 2;"), "{}", stderr(&output));
    assert_eq!(server.requests().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_asked_is_kept_and_asked_the_next_time() {
    let server = Server::start().await;
    let folder = place(&[question(1, "easy one"), question(2, "easy two")]);
    server.refuse(Some("two"));
    let output = filter(folder.path(), &server, &["--tries", "1"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("answered 400: not this"), "{}", stderr(&output));
    assert_eq!(ids(&kept(folder.path())), [2]);
    server.refuse(None);
    let asked = server.requests().len();
    assert_eq!(filter(folder.path(), &server, &["--tries", "1"]).status.code(), Some(0));
    assert_eq!((server.requests().len() - asked, kept(folder.path()).len()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_names_one_letter_whatever_it_is_asked_is_told() {
    let server = Server::start().await;
    let told = |words: [&str; 5]| {
        let all: Vec<Value> = (0..).zip(words).map(|(id, word)| question(id, word)).collect();
        let folder = place(&all);
        stderr(&filter(folder.path(), &server, &[])).to_owned()
    };
    let habit = told(["easy a", "easy b", "easy c", "easy d", "hard"]);
    assert!(habit.contains("the model named B in 80 % of its tries"), "{habit}");
    assert_eq!(told(["easy e", "easy f", "hard g", "hard h", "hard i"]), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_benchmarks_own_form_is_kept() {
    let server = Server::start().await;
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
fn a_local_model_tries_alike_every_time_and_differently_each_try() {
    let questions: Vec<Value> = (0..3).map(|id| question(id, "where")).collect();
    let folder = place(&questions);
    let folder = folder.path();
    tiny_model::write(&folder.join("model"));
    let run = |out: &str, batch: &str| {
        let words = ["--out", out, "--model", "model", "--max-new-tokens", "6", "--batch", batch];
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
fn wrong_usage_ends_with_two_and_wrong_data_with_one() {
    let folder = place(&[question(1, "easy")]);
    let url = ["--base-url", "http://127.0.0.1:9/v1", "--api-model", "m"];
    for (words, code, told) in [
        (vec!["--out", "o.json"], 2, "--model"),
        (vec!["--out", "o.json", "--base-url", "http://127.0.0.1:9/v1"], 2, "--api-model"),
        (
            [&["--out", "o.json", "--drop-at", "5"], &url[..]].concat(),
            2,
            "never reached in 4 tries",
        ),
        ([&["--out", "o.json", "--temperature", "0"], &url[..]].concat(), 2, "`--tries 1`"),
        ([&["--out", "data.json"], &url[..]].concat(), 2, "would overwrite the data"),
        (vec!["--out", "o.json", "--base-url", "nowhere", "--api-model", "m"], 2, "not a base URL"),
    ] {
        let output = filter_bare(folder.path(), &words);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(told), "{words:?}: {}", stderr(&output));
    }
    let mut unanswered = question(9, "easy");
    unanswered.as_object_mut().unwrap().remove("answer");
    let folder = place(&[unanswered]);
    let output = filter_bare(folder.path(), &[&["--out", "o.json"], &url[..]].concat());
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("question `9` has no `answer`"), "{}", stderr(&output));
    assert!(!folder.path().join("o.json").exists());
}
