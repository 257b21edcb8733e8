//! `embodied-r perceive` against a server that misbehaves, through kills, and from annotations.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod perceive {
    pub(crate) mod place;
    pub(crate) mod server;
}

use std::time::{Duration, Instant};

use perceive::place::{Place, question};
use perceive::server::{Fault, Server};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn a_faulty_server_costs_no_question() {
    let faults = [
        Fault::TooManyRequests,
        Fault::InternalError,
        Fault::Hang,
        Fault::BrokenJson,
        Fault::CutConnection,
    ];
    let server = Server::start(faults).await;
    let place = Place::new(&[question(1, "one"), question(2, "two"), question(3, "three")]);
    let run = place.run(&server, &["--timeout-s", "1", "--max-retries", "8"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(server.faults_left(), 0);
    for (question, id) in place.output().iter().zip(1..) {
        assert_eq!(question["Question_id"], json!(id));
        let prompt = question["question"].as_str().unwrap();
        assert!(prompt.contains("\nFrame 0: Observe: a red door ahead\n"), "{prompt}");
        assert!(prompt.contains("\nFrame 3: After rotate left, Observe: a lamp. nothing of it."));
    }
    assert_eq!(place.output().len(), 3);
    assert_eq!(place.log().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_key_frame_is_logged_with_its_action_tokens_and_time() {
    let server = Server::start([]).await;
    let place = Place::new(&[question(1, "one")]);
    place.run(&server, &[]);
    let log = place.log();
    let frames = log[0]["frames"].as_array().unwrap();
    assert_eq!(frames.len(), 4);
    let last = &frames[3];
    assert_eq!((&last["index"], &last["time_s"]), (&json!(11), &json!(2.75)));
    assert_eq!((&last["action"], &last["prompt_tokens"]), (&json!("rotate left"), &json!(200)));
    assert!(last["completion_tokens"] == json!(12) && last["elapsed_s"].as_f64().unwrap() >= 0.0);
    assert_eq!(frames[0]["action"], Value::Null);
    assert_eq!(frames[0]["prompt_tokens"], json!(100));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_fails_for_good_is_recorded_and_done_by_the_next_run() {
    let place = Place::new(&[question(1, "one"), question(2, "forbidden"), question(3, "three")]);
    let server = Server::start([]).await;
    server.refuse("forbidden");
    let first = place.run(&server, &[]);
    assert_eq!(first.code, 1);
    assert!(first.stdout.contains("2 captioned now, 0 before, 1 failed"), "{}", first.stdout);
    assert!(place.log()[1]["error"].as_str().unwrap().contains("answered 400: not allowed"));
    assert_eq!(place.output().len(), 2);

    let healthy = Server::start([]).await;
    let second = place.run(&healthy, &[]);
    assert_eq!(second.code, 0, "{}", second.stderr);
    assert!(second.stdout.contains("1 captioned now, 2 before, 0 failed"), "{}", second.stdout);
    assert_eq!(healthy.answered(), 4);
    assert_eq!(place.output().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_run_loses_no_finished_question() {
    let questions: Vec<Value> = (1..=3).map(|id| question(id, "one")).collect();
    let place = Place::new(&questions);
    // The second question never gets its last frame.
    let server = Server::start([]).await;
    server.hang_after(7);
    let mut child = place.command(&server, &["--concurrency", "1"]).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while server.answered() < 7 || place.log().is_empty() {
        assert!(Instant::now() < deadline, "no question was finished");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(place.log().len(), 1);

    let healthy = Server::start([]).await;
    let run = place.run(&healthy, &[]);
    assert!(run.stdout.contains("2 captioned now, 1 before, 0 failed"), "{}", run.stdout);
    assert_eq!(healthy.answered(), 8);
    assert_eq!(place.output().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_base_urls_share_the_work() {
    let servers = [Server::start([]).await, Server::start([]).await];
    let place = Place::new(&[question(1, "one"), question(2, "two")]);
    let second = servers[1].base_url();
    let run = place.run(&servers[0], &[&second]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(servers.map(|server| server.answered()), [4, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_is_sent_and_never_logged() {
    let server = Server::start([Fault::InternalError]).await;
    let place = Place::new(&[question(1, "one")]);
    let mut command = place.command(&server, &["--log", "trace"]);
    let output = command.env("OPENAI_API_KEY", "sk-very-secret").output().unwrap();
    assert_eq!(server.authorization().as_deref(), Some("Bearer sk-very-secret"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("trying again"), "{said}");
    assert!(!said.contains("very-secret"), "the key is in the log");
    assert!(!place.everything().contains("very-secret"), "the key is in an output");
}

#[tokio::test(flavor = "multi_thread")]
async fn captions_of_another_model_are_not_mixed_in() {
    let server = Server::start([]).await;
    let place = Place::new(&[question(1, "one")]);
    place.run(&server, &["--model-path", "small"]);
    let run = place.run(&server, &["--model-path", "large"]);
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains(r#"`model` was "small" and is "large""#), "{}", run.stderr);
    assert_eq!(server.answered(), 4);
    let redone = place.run(&server, &["--model-path", "large", "--redo-changed"]);
    assert_eq!(redone.code, 0, "{}", redone.stderr);
    assert_eq!(place.log()[0]["settings"]["model"], json!("large"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_without_video_fails_alone() {
    let mut lost = question(2, "two");
    lost["video_id"] = json!("nowhere.mp4");
    let server = Server::start([]).await;
    let place = Place::new(&[question(1, "one"), lost]);
    let run = place.run(&server, &[]);
    assert_eq!(run.code, 1);
    assert!(place.log()[1]["error"].as_str().unwrap().contains("the video `nowhere.mp4`"));
    assert_eq!(place.output().len(), 1);
}

#[test]
fn wrong_usage_ends_with_code_two_and_one_reason() {
    let place = Place::new(&[question(1, "one")]);
    for (args, reason) in [
        (vec!["--backend", "scene"], "--scenes <DIR>"),
        (
            vec!["--backend", "scene", "--scenes", ".", "--base-url", "http://h"],
            "`--base-url` belongs",
        ),
        (vec!["--scenes", "."], "`--scenes` belongs to `--backend scene`"),
        (vec!["--base-url", "localhost:8000"], "`localhost:8000` is not a base URL"),
        (vec!["--threshold", "7"], "`threshold`"),
        (vec!["--concurrency", "0"], "at least 1"),
        (vec!["--timeout-s", "0"], "above 0"),
    ] {
        let run = place.run_bare(&args);
        assert_eq!(run.code, 2, "{args:?}: {}", run.stderr);
        assert!(run.stderr.contains(reason), "{args:?}: {}", run.stderr);
    }
}

#[test]
fn the_scene_backend_needs_neither_server_nor_answer() {
    let place = Place::new(&[question(1, "one")]);
    place.add_scene();
    let prompts = ["A", "B"].map(|answer| {
        place.set_answer(answer);
        let save = format!("inter-{answer}");
        let run =
            place.run_bare(&["--backend", "scene", "--scenes", "scenes", "--save-path", &save]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        std::fs::read(place.path(&format!("{save}/train_data.captions.jsonl"))).unwrap()
    });
    assert!(String::from_utf8_lossy(&prompts[0]).contains("red lamp ahead, 3 m"));
    assert_eq!(prompts[0], prompts[1]);
}
