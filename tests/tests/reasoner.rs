//! `infer` and `eval` with a model behind an API: the same prompts and completions as in process, its parameters, and
//! what happens if requests fail.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use embodied_r_data::system_prompt::{Given, SystemPromptPreset};
use embodied_r_test_server::{self as http, Response};
use embodied_r_tests::{binary, stderr, stdout, tiny_model, write_questions};
use serde_json::{Value, json};

use crate::filter::server::Server;
use crate::serve::client::Server as ServeServer;

fn run(dir: &Path, words: &[&str]) -> Output {
    Command::new(binary())
        .current_dir(dir)
        .env_remove("OPENAI_API_KEY")
        .env("NO_PROXY", "127.0.0.1")
        .args(words)
        .output()
        .unwrap()
}

const INFER: [&str; 5] = ["infer", "--data", "train.json", "--output", "answers.json"];

/// `infer` with the model `name` at `url`.
fn infer(dir: &Path, url: &str, name: &str, more: &[&str]) -> Output {
    run(dir, &[&INFER[..], &["--base-url", url, "--model", name], more].concat())
}

fn answers(dir: &Path, file: &str) -> Vec<Value> {
    serde_json::from_slice(&std::fs::read(dir.join(file)).unwrap()).unwrap()
}

/// A folder with `count` questions that `Server` answers by `word`.
fn questions(count: usize, word: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    write_questions(dir.path(), count, |i| format!("Question {i}: {word}?"));
    dir
}

#[test]
fn a_served_model_gives_the_completions_of_the_same_model_in_process() {
    let dir = questions(5, "where is the lamp");
    tiny_model::write(&dir.path().join("model"));
    let server = ServeServer::of(dir.path(), &[], None);
    let url = format!("http://{}/v1", server.address());
    let more = ["--max-new-tokens", "24", "--system-prompt", "Think first."];
    let output = infer(dir.path(), &url, "tiny", &more);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let words = ["infer", "--data", "train.json", "--output", "local.json", "--model", "model"];
    let local = run(dir.path(), &[&words[..], &more].concat());
    assert_eq!(local.status.code(), Some(0), "{}", stderr(&local));
    let served = answers(dir.path(), "answers.json");
    assert_eq!(served, answers(dir.path(), "local.json"));
    assert!(served.iter().all(|answer| !answer["content"].as_str().unwrap().is_empty()));
    // Files beside the answers would be left by an unfinished run.
    assert!(!dir.path().join("answers.json.partial.jsonl").exists());

    let wrong = infer(dir.path(), &url, "other", &[]);
    assert_eq!(wrong.status.code(), Some(1));
    let message = stderr(&wrong);
    assert!(
        message.starts_with(&format!("error: `{url}/chat/completions` returned 404: ")),
        "{message}"
    );
    assert!(message.contains("unknown model `other`; available: `tiny`"), "{message}");
    assert!(
        message.contains("hint: check `--base-url`") && message.contains("`--model`"),
        "{message}"
    );
    assert_eq!(message.lines().count(), 2, "{message}");
}

#[test]
fn a_server_that_wants_a_key_is_one_error_that_says_how_to_give_it() {
    let dir = questions(20, "where");
    let server = ServeServer::start_with(&[], Some("secret"));
    let url = format!("http://{}/v1", server.address());
    let output = infer(dir.path(), &url, "tiny", &[]);
    assert_eq!(output.status.code(), Some(1));
    let message = stderr(&output);
    assert!(message.contains("/chat/completions` returned 401: "), "{message}");
    assert!(message.contains("hint: set OPENAI_API_KEY"), "{message}");
    assert_eq!(message.lines().count(), 2, "{message}");
    let mut command = Command::new(binary());
    command.current_dir(dir.path()).args(INFER).env("MY_KEY", "secret");
    command.args(["--base-url", &url, "--model", "tiny", "--api-key-env", "MY_KEY"]);
    let output = command.args(["--limit", "1", "--max-new-tokens", "2"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn an_unreachable_server_is_named_and_nothing_is_written() {
    let dir = questions(3, "where");
    let url = "http://127.0.0.1:9/v1";
    let output = infer(dir.path(), url, "m", &["--max-retries", "0"]);
    assert_eq!(output.status.code(), Some(1));
    let message = stderr(&output);
    assert!(
        message
            .contains("error: gave up after 1 attempts: the connection to `http://127.0.0.1:9/v1/"),
        "{message}"
    );
    assert!(message.contains("hint: check that the server runs"), "{message}");
    assert!(!dir.path().join("answers.json").exists());
    let output = infer(dir.path(), "nowhere", "m", &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("`nowhere` is not a base URL"), "{}", stderr(&output));
}

#[test]
fn requests_have_the_prompt_and_the_sampling_parameters() {
    let server = Server::start();
    let dir = questions(1, "easy");
    let url = server.base_url();
    let sampling =
        ["--temperature", "0.7", "--top-p", "0.9", "--top-k", "20", "--max-new-tokens", "50"];
    let more = ["--min-p", "0.25", "--repetition-penalty", "1.5"];
    assert_eq!(
        infer(dir.path(), &url, "org/big", &[&sampling[..], &more].concat()).status.code(),
        Some(0)
    );
    assert_eq!(infer(dir.path(), &url, "org/big", &[]).status.code(), Some(0));
    let mut requests = server.requests();
    let greedy = requests.pop().unwrap();
    let mut sampled = requests.pop().unwrap();
    assert!(sampled["seed"].take().as_u64().is_some_and(|seed| seed < 1 << 31), "{sampled}");
    let messages = json!([
        {"role": "system", "content": SystemPromptPreset::Text.text(Given::Text)},
        {"role": "user", "content": "Question 0: easy?"},
    ]);
    let expected = json!({"model": "org/big", "messages": messages, "temperature": 0.7, "top_p": 0.9,
        "max_tokens": 50, "seed": null, "top_k": 20, "min_p": 0.25, "repetition_penalty": 1.5});
    assert_eq!(sampled, expected);
    assert_eq!((&greedy["temperature"], &greedy["max_tokens"]), (&json!(0.0), &json!(3096)));
    for name in ["top_p", "top_k", "min_p", "repetition_penalty"] {
        assert!(greedy.get(name).is_none(), "{name} in {greedy}");
    }
    let answer = &answers(dir.path(), "answers.json")[0];
    assert_eq!(answer["content"], json!("<answer>B</answer>"));
}

#[test]
fn samples_have_seeds_of_their_own_which_depend_on_the_seed_option() {
    let server = Server::start();
    let dir = questions(2, "even");
    let url = server.base_url();
    let seeds = |output: &str, samples: &str, seed: &str| {
        let before = server.requests().len();
        let words = ["eval", "--data", "train.json", "--base-url", &url, "--model", "m"];
        let more = ["--pass-at", "1,2", "--num-samples", samples, "--seed", seed];
        let output =
            run(dir.path(), &[&words[..], &more, &["--output", output, "--json"]].concat());
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let report: Value = serde_json::from_str(stdout(&output)).unwrap();
        assert_eq!((&report["n"], &report["temperature"]), (&json!(2), &json!(1.0)));
        let requests = server.requests();
        let seed = |request: &Value| request["seed"].as_u64().unwrap();
        requests[before..].iter().map(seed).collect::<std::collections::BTreeSet<u64>>()
    };
    let four = seeds("a", "4", "1");
    assert_eq!(four.len(), 8);
    assert_eq!(seeds("b", "4", "1"), four);
    assert!(seeds("c", "2", "1").is_subset(&four));
    assert!(seeds("d", "4", "2").is_disjoint(&four));
    let text = std::fs::read_to_string(dir.path().join("a/samples.jsonl")).unwrap();
    assert_eq!(text.lines().count(), 2);
    let line: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(line["samples"].as_array().unwrap().len(), 4);
}

#[test]
fn a_failed_question_ends_the_run_which_resumes_with_it_alone() {
    let server = Server::start();
    let dir = questions(4, "easy");
    let url = server.base_url();
    server.refuse(Some("Question 2"));
    let output = infer(dir.path(), &url, "m", &[]);
    assert_eq!(output.status.code(), Some(1));
    let message = stderr(&output);
    assert!(message.contains("warning: question `2`: "), "{message}");
    assert!(message.contains("error: 1 of 4 questions failed"), "{message}");
    assert!(message.contains("run the same command again to resume"), "{message}");
    assert!(!dir.path().join("answers.json").exists());
    server.refuse(None);
    let before = server.requests().len();
    // Another server of the same model: where it is does not matter.
    let output = infer(dir.path(), &format!("{url}/"), "m", &["--concurrency", "1"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains("resuming: 3 of 4 questions"), "{}", stderr(&output));
    assert_eq!(server.requests().len() - before, 1);
    assert_eq!(answers(dir.path(), "answers.json").len(), 4);
    let changed = infer(dir.path(), &url, "m", &["--seed", "7"]);
    assert_eq!(changed.status.code(), Some(0), "a finished run leaves no settings behind");
}

#[test]
fn a_model_that_wants_the_newer_token_limit_gets_it() {
    let api = http::Server::chat(|request| {
        let request = request.json();
        if request.get("max_tokens").is_some() {
            let message = "Unsupported parameter: use 'max_completion_tokens' instead.";
            return Response::new(400, json!({"error": {"message": message}}).to_string());
        }
        Response::completion(&request["max_completion_tokens"].to_string())
    });
    let dir = questions(30, "where");
    let output = infer(dir.path(), &api.base_url(), "o1", &["--max-new-tokens", "77"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
    let answers = answers(dir.path(), "answers.json");
    assert!(answers.iter().all(|answer| answer["content"] == "77"), "{answers:?}");
}

#[test]
fn a_question_that_a_content_filter_rejects_gets_an_empty_completion() {
    let body = json!({"error": {"code": "content_filter", "message": "not this"}}).to_string();
    let api = http::Server::chat(move |_| Response::new(400, body.clone()));
    let dir = questions(1, "where");
    let output = infer(dir.path(), &api.base_url(), "m", &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let message = stderr(&output);
    assert!(
        message.contains("question `0` gets an empty completion: the content filter of"),
        "{message}"
    );
    assert_eq!(answers(dir.path(), "answers.json")[0]["content"], json!(""));
}

#[test]
fn a_server_that_fails_every_question_ends_the_run_early() {
    let api = http::Server::chat(|_| Response::new(422, "no"));
    let dir = questions(200, "where");
    let output = infer(dir.path(), &api.base_url(), "m", &["--concurrency", "2"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("returned 422: no"), "{}", stderr(&output));
    let count = api.requests().len();
    assert!(count < 20, "{count}");
}

#[test]
fn no_more_requests_are_in_flight_than_allowed() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (in_flight, peak) = (Arc::clone(&now), Arc::clone(&most));
    let api = http::Server::chat(move |_| {
        peak.fetch_max(in_flight.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(30));
        in_flight.fetch_sub(1, Ordering::SeqCst);
        Response::completion("<answer>A</answer>")
    });
    let dir = questions(12, "where");
    let words = ["eval", "--data", "train.json", "--model", "m", "--base-url", &api.base_url()];
    let more = ["--concurrency", "3", "--pass-at", "2"];
    let output = run(dir.path(), &[&words[..], &more, &["--json"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report: Value = serde_json::from_str(stdout(&output)).unwrap();
    assert_eq!(report["overall"], json!(100.0));
    assert!((1..=3).contains(&most.load(Ordering::SeqCst)), "{most:?}");
}

#[test]
fn ctrl_c_keeps_the_completions_in_flight_and_the_next_run_asks_for_the_others() {
    let latency = Duration::from_millis(400);
    let api =
        http::Server::chat(move |_| Response::completion("<answer>A</answer>").after(latency));
    let dir = questions(40, "where");
    let url = api.base_url();
    let command = |concurrency: &str| {
        let mut command = Command::new(binary());
        command.current_dir(dir.path()).args(INFER).env("NO_PROXY", "127.0.0.1");
        command.args(["--base-url", &url, "--model", "m", "--concurrency", concurrency]);
        command
    };
    let child = command("4").stderr(std::process::Stdio::piped()).spawn().unwrap();
    while api.requests().is_empty() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let message = stderr(&output);
    assert!(message.contains("waiting for requests in flight"), "{message}");
    assert!(message.contains("error: interrupted\nhint: run the same command again"), "{message}");
    let asked = api.requests().len();
    assert!(asked < 40, "{asked}");
    let output = command("40").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(api.requests().len(), 40, "no question is asked twice");
}

#[test]
fn the_table_has_the_models_whole_name() {
    let server = Server::start();
    let dir = questions(1, "easy");
    let words = ["eval", "--data", "train.json", "--model", "Qwen/Qwen2.5-7B-Instruct"];
    let output = run(dir.path(), &[&words[..], &["--base-url", &server.base_url()]].concat());
    assert!(stdout(&output).contains("| **Qwen/Qwen2.5-7B-Instruct** "), "{}", stdout(&output));
}
