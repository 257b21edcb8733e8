//! `embodied-r perceive` against a server that misbehaves, through kills, and from annotations.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod perceive {
    pub(crate) mod place;
    pub(crate) mod server;
}

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use perceive::place::{Place, other_video, question, third_video};
use perceive::server::{Fault, Server};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn a_faulty_server_costs_no_question() {
    let faults = [
        Fault::TooManyRequests,
        Fault::TooManyRequestsUntil,
        Fault::InternalError,
        Fault::Overloaded,
        Fault::Hang,
        Fault::HangInBody,
        Fault::BrokenJson,
        Fault::CutConnection,
        Fault::Silence,
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
    let place = Place::new(&[question(1, "one"), question(2, "two"), question(3, "three")]);
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
    // Of the second question three frames were answered before the kill.
    assert_eq!(healthy.answered(), 5);
    assert_eq!(place.output().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_run_waits_for_the_requests_on_their_way_and_keeps_them() {
    let place = Place::new(&[question(1, "one"), question(2, "two"), question(3, "three")]);
    let server = Server::start([]).await;
    server.take(Duration::from_millis(300));
    let mut command = place.command(&server, &["--concurrency", "2"]);
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while server.asked() < 2 {
        assert!(Instant::now() < deadline, "nothing was asked");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let signal = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(signal.success());
    let ended = tokio::task::spawn_blocking(|| child.wait_with_output().unwrap()).await.unwrap();
    let stdout = String::from_utf8(ended.stdout).unwrap();
    let stderr = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{stderr}");
    assert!(stdout.contains("3 left as the run was stopped"), "{stdout}");
    assert!(stderr.contains("the same command goes on"), "{stderr}");
    let before = server.asked();
    assert!((2..12).contains(&before) && server.answered() == before, "{before}");

    server.take(Duration::ZERO);
    let run = place.run(&server, &[]);
    assert!(run.stdout.contains("3 captioned now, 0 before, 0 failed"), "{}", run.stdout);
    assert_eq!(server.asked(), 12);
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

/// The frames of a question's line in the log.
fn frames(line: &Value) -> &[Value] {
    line["frames"].as_array().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caption_of_another_form_is_asked_for_once_more_and_then_taken() {
    let server = Server::start([]).await;
    server.mumble("alpha", 1);
    server.mumble("beta", 6);
    let place = Place::new(&[question(1, "alpha"), question(2, "beta")]);
    let run = place.run(&server, &[]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(server.answered(), (4 + 1) + (4 + 3));
    let log = place.log();
    assert!(frames(&log[0]).iter().all(|frame| frame["fault"].is_null()), "{}", log[0]);
    assert_eq!(frames(&log[0])[1]["action"], json!("rotate left"));
    let told = &frames(&log[1])[1];
    assert_eq!((&told["action"], &told["fault"]), (&Value::Null, &json!("malformed")));
    assert_eq!((&told["view"], &told["attempts"]), (&json!("well, a lamp"), &json!(2)));
    assert!(run.stdout.contains("3 of the captions are not in the form"), "{}", run.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_frame_fails_its_question_alone_and_is_not_asked_again() {
    let place = Place::new(&[question(1, "alpha"), question(2, "beta")]);
    let server = Server::start([]).await;
    server.filter("beta");
    let first = place.run(&server, &[]);
    assert_eq!(first.code, 1);
    assert!(first.stdout.contains("1 captioned now, 0 before, 1 failed"), "{}", first.stdout);
    let error = place.log()[1]["error"].as_str().unwrap().to_owned();
    assert!(error.contains("the model refuses to describe frame"), "{error}");
    assert!(error.contains("not this one"), "{error}");
    assert!(first.stdout.contains("`--retry-refused` asks for it again"), "{}", first.stdout);

    let healthy = Server::start([]).await;
    let second = place.run(&healthy, &[]);
    assert_eq!((second.code, healthy.asked()), (1, 0), "{}", second.stderr);
    let third = place.run(&healthy, &["--retry-refused"]);
    assert_eq!((third.code, healthy.asked()), (0, 4), "{}", third.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caption_that_was_cut_off_gets_twice_the_tokens_once() {
    let server = Server::start([]).await;
    server.cut_off_at(50);
    let place = Place::new(&[question(1, "one")]);
    let run = place.run(&server, &["--max-tokens", "40"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    // Each frame with 40 tokens, then with 80.
    assert_eq!(server.answered(), 8);
    let log = place.log();
    assert!(frames(&log[0]).iter().all(|frame| frame["fault"].is_null()), "{}", log[0]);

    let place = Place::new(&[question(1, "one")]);
    let run = place.run(&server, &["--max-tokens", "20"]);
    assert_eq!(frames(&place.log()[0])[0]["fault"], json!("truncated"));
    assert!(run.stdout.contains("4 of the captions are cut off"), "{}", run.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_and_costs_are_summed_over_runs() {
    let server = Server::start([]).await;
    let place = Place::new(&[question(1, "one"), question(2, "two")]);
    let prices = ["--price-in", "1000", "--price-out", "2000"];
    place.run(&server, &[&prices[..], &["--limit", "1"]].concat());
    let run = place.run(&server, &prices);
    // A question has one request of 100 tokens and three of 200, with 12 tokens of reply each.
    for line in [
        "replies: 4 now and 0 from the cache; 8 in all",
        "tokens: 700 in and 48 out now; 1400 in and 96 out in all",
        "cost: 0.7960 now; 1.5920 in all",
    ] {
        assert!(run.stdout.contains(line), "{}", run.stdout);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_to_the_cost_stops_in_good_order_and_a_higher_one_goes_on() {
    let server = Server::start([]).await;
    let place = Place::new(&[question(1, "one"), question(2, "two"), question(3, "three")]);
    let limit = |cost| ["--price-in", "1000", "--price-out", "0", "--max-cost", cost];
    // A question costs 0.7: one fits whole, and a part of another.
    let first = place.run(&server, &[&limit("1.25")[..], &["--concurrency", "1"]].concat());
    assert_eq!(first.code, 1, "{}", first.stderr);
    assert!(first.stdout.contains("1 captioned now, 0 before, 0 failed"), "{}", first.stdout);
    assert!(first.stdout.contains("2 left by `--max-cost`"), "{}", first.stdout);
    assert!(first.stdout.contains("cost: 1.2000 now; 1.2000 in all"), "{}", first.stdout);
    assert_eq!((place.output().len(), place.log().len()), (1, 1));

    let second = place.run(&server, &limit("3"));
    assert_eq!(second.code, 0, "{}", second.stderr);
    assert!(second.stdout.contains("cost: 0.9000 now; 2.1000 in all"), "{}", second.stdout);
    assert_eq!(server.answered(), 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_cache_serves_another_folder_of_outputs() {
    let server = Server::start([]).await;
    let place = Place::new(&[question(1, "one")]);
    place.run(&server, &["--cache", "kept"]);
    std::fs::rename(place.path("inter"), place.path("first")).unwrap();
    let run = place.run(&server, &["--cache", "kept"]);
    assert_eq!((run.code, server.answered()), (0, 4), "{}", run.stderr);
    assert!(run.stdout.contains("replies: 0 now and 4 from the cache; 0 in all"), "{}", run.stdout);
    // Other settings make other requests.
    place.run(&server, &["--cache", "kept", "--redo-changed", "--image-side", "56"]);
    assert_eq!(server.answered(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_entry_of_the_cache_is_asked_for_again() {
    let server = Server::start([]).await;
    let place = Place::new(&[question(1, "one")]);
    place.run(&server, &[]);
    let path = place.path("inter/cache/replies-1.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen("{", "", 1)).unwrap();
    std::fs::remove_file(place.path("inter/train_data.captions.jsonl")).unwrap();
    let run = place.run(&server, &[]);
    assert!(run.stderr.contains("has 1 broken lines, which are passed over"), "{}", run.stderr);
    assert_eq!((run.code, server.answered()), (0, 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn captions_for_a_video_cost_one_question() {
    let server = Server::start([]).await;
    let place = Place::new(&[question(1, "one"), question(2, "two"), question(3, "gamma")]);
    let run = place.run(&server, &["--scope", "video"]);
    assert_eq!((run.code, server.answered()), (0, 4), "{}", run.stderr);
    let prompts = place.output();
    assert_eq!(prompts.len(), 3);
    assert!(prompts[2]["question"].as_str().unwrap().contains("Question: gamma?"));
    assert!(!server.requests().iter().any(|request| request.contains("gamma")));
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_are_done_apart_and_put_together() {
    let server = Server::start([]).await;
    let place = Place::new(&[question(1, "one"), question(2, "two"), other_video(3, "three")]);
    let shard = |shard: &str| place.run(&server, &["--shard", shard]);
    let first = shard("1/2");
    assert!(first.stdout.contains("2 captioned now, 0 before, 0 failed"), "{}", first.stdout);
    let early = place.run_merge(&[]);
    assert_eq!(early.code, 1);
    assert!(early.stderr.contains("`inter/shard-2-of-2` is missing"), "{}", early.stderr);
    shard("2/2");
    let merged = place.run_merge(&[]);
    assert_eq!(merged.code, 0, "{}", merged.stderr);
    assert!(merged.stdout.contains("3 of 3 questions"), "{}", merged.stdout);
    assert_eq!((place.output().len(), place.log().len()), (3, 3));
    let same = place.run_merge(&["inter/shard-2-of-2", "inter/shard-1-of-2"]);
    assert_eq!(same.code, 0, "{}", same.stderr);
    // A run of the whole has nothing left to do.
    let whole = place.run(&server, &[]);
    assert!(whole.stdout.contains("0 captioned now, 3 before, 0 failed"), "{}", whole.stdout);
}

/// Four questions about each of three videos.
fn of_three_videos() -> Vec<Value> {
    let video = |id: u32| match id % 3 {
        0 => question(id, &format!("word {id}")),
        1 => other_video(id, &format!("word {id}")),
        _ => third_video(id, &format!("word {id}")),
    };
    (0..12).map(video).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_every_question_is_not_asked_all_of_them() {
    let server = Server::start([]).await;
    server.refuse("Question: ");
    let place = Place::new(&of_three_videos());
    let run = place.run(&server, &["--concurrency", "1"]);
    // The questions of a video come one after another: the ninth is of the third one.
    assert_eq!((run.code, server.asked()), (1, 9), "{}", run.stderr);
    assert!(run.stderr.contains("9 questions in a row got no captions"), "{}", run.stderr);
    assert!(run.stderr.contains("not allowed"), "{}", run.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_nobody_listens_at_ends_the_run_with_advice() {
    let gone = Server::start([]).await.base_url();
    let place = Place::new(&of_three_videos());
    let run = place.run_bare(&["--base-url", &gone, "--max-retries", "0"]);
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("questions in a row got no captions"), "{}", run.stderr);
    assert!(run.stderr.contains("hint: what is finished is kept"), "{}", run.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_ends_the_run_at_once() {
    let server = Server::start([Fault::Unauthorized; 16]).await;
    let place = Place::new(&[question(1, "one")]);
    let run = place.run(&server, &["--concurrency", "1"]);
    assert_eq!((run.code, server.asked()), (1, 1), "{}", run.stderr);
    assert!(run.stderr.contains("hint: put the key into OPENAI_API_KEY"), "{}", run.stderr);
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
        (vec!["--base-url", "http://h/v1#weight=0"], "`weight=` and a number above 0"),
        (vec!["--shard", "0/4"], "from `1/8` to `8/8`"),
        (vec!["--max-cost", "5"], "--price-in"),
        (vec!["--price-in", "5"], "--price-out"),
        (vec!["--price-in=-1", "--price-out", "1"], "at least 0"),
        (vec!["--backend", "scene", "--scenes", ".", "--max-cost", "5"], "--price-in"),
        (vec!["--backend", "scene", "--scenes", ".", "--cache", "c"], "`--cache` belongs"),
        (vec!["--limit", "1", "merge"], "merge"),
        (vec!["--save-path", "inter", "merge"], "merge"),
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
