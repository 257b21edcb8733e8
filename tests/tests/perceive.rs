//! `embodied-r perceive` with a faulty server, with kills, and from annotations.

mod server;
pub(crate) mod workspace;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use server::{Fault, Server};
use workspace::{Workspace, other_video, question, third_video};

#[test]
fn a_faulty_server_fails_no_question() {
    let faults = [
        Fault::TooManyRequests,
        Fault::TooManyRequestsUntil,
        Fault::InternalError,
        Fault::Overloaded,
        Fault::Hang,
        Fault::HangInBody,
        Fault::BrokenJson,
        Fault::CutConnection,
        Fault::Empty,
    ];
    let server = Server::start(faults);
    let workspace = Workspace::new(&[question(1, "one"), question(2, "two"), question(3, "three")]);
    let run = workspace.run(&server, &["--timeout-s", "1", "--max-retries", "8"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(server.faults_left(), 0);
    for (question, id) in workspace.output().iter().zip(1..) {
        assert_eq!(question["Question_id"], json!(id));
        let prompt = question["question"].as_str().unwrap();
        assert!(prompt.contains("\nFrame 0: Observe: a red door ahead\n"), "{prompt}");
        assert!(prompt.contains("\nFrame 3: After rotate left, Observe: a lamp. nothing of it."));
    }
    assert_eq!(workspace.output().len(), 3);
    assert_eq!(workspace.log().len(), 3);
}

#[test]
fn each_key_frame_is_logged_with_its_action_tokens_and_time() {
    let server = Server::start([]);
    let workspace = Workspace::new(&[question(1, "one")]);
    workspace.run(&server, &[]);
    let log = workspace.log();
    let frames = log[0]["frames"].as_array().unwrap();
    assert_eq!(frames.len(), 4);
    let last = &frames[3];
    assert_eq!((&last["index"], &last["time_s"]), (&json!(11), &json!(2.75)));
    assert_eq!((&last["action"], &last["prompt_tokens"]), (&json!("rotate left"), &json!(200)));
    assert!(last["completion_tokens"] == json!(12) && last["elapsed_s"].as_f64().unwrap() >= 0.0);
    assert_eq!(frames[0]["action"], Value::Null);
    assert_eq!(frames[0]["prompt_tokens"], json!(100));
}

#[test]
fn a_missing_video_is_told_apart_from_what_a_second_run_may_mend() {
    let server = Server::start([]);
    let mut missing = question(2, "two");
    missing["video_id"] = json!("nowhere.mp4");
    let run = Workspace::new(&[question(1, "one"), missing]).run(&server, &[]);
    assert_eq!(run.code, 1, "{}", run.stderr);
    let hint =
        "hint: the videos of 1 questions were not found; give their directory with `--video-dir`";
    assert!(run.stderr.contains(hint), "{}", run.stderr);
    assert!(!run.stderr.contains("to retry them"), "{}", run.stderr);
}

#[test]
fn a_failed_question_is_recorded_and_retried_by_the_next_run() {
    let workspace =
        Workspace::new(&[question(1, "one"), question(2, "forbidden"), question(3, "three")]);
    let server = Server::start([]);
    server.refuse("forbidden");
    let first = workspace.run(&server, &[]);
    assert_eq!(first.code, 1);
    assert!(first.stdout.contains("2 captioned, 0 cached, 1 failed"), "{}", first.stdout);
    assert!(workspace.log()[1]["error"].as_str().unwrap().contains("returned 400: not allowed"));
    assert_eq!(workspace.output().len(), 2);

    let healthy = Server::start([]);
    let second = workspace.run(&healthy, &[]);
    assert_eq!(second.code, 0, "{}", second.stderr);
    assert!(second.stdout.contains("1 captioned, 2 cached, 0 failed"), "{}", second.stdout);
    assert_eq!(healthy.answered(), 4);
    assert_eq!(workspace.output().len(), 3);
}

#[test]
fn a_killed_run_loses_no_finished_question() {
    let workspace = Workspace::new(&[question(1, "one"), question(2, "two"), question(3, "three")]);
    // The last frame of the second question is never answered.
    let server = Server::start([]);
    server.hang_after(7);
    let mut child = workspace.command(&server, &["--concurrency", "1"]).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    // An answer counts once the program has kept it.
    while workspace.cached() < 7 || workspace.log().is_empty() {
        assert!(Instant::now() < deadline, "no question was finished");
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(workspace.log().len(), 1);

    let healthy = Server::start([]);
    let run = workspace.run(&healthy, &[]);
    assert!(run.stdout.contains("2 captioned, 1 cached, 0 failed"), "{}", run.stdout);
    // Three frames of the second question were answered before the kill.
    assert_eq!(healthy.answered(), 5);
    assert_eq!(workspace.output().len(), 3);
}

#[test]
fn an_interrupted_run_waits_for_requests_in_flight_and_keeps_their_responses() {
    let workspace = Workspace::new(&[question(1, "one"), question(2, "two"), question(3, "three")]);
    let server = Server::start([]);
    server.delay(Duration::from_millis(300));
    let mut command = workspace.command(&server, &["--concurrency", "2"]);
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while server.request_count() < 2 {
        assert!(Instant::now() < deadline, "no request was sent");
        std::thread::sleep(Duration::from_millis(5));
    }
    let signal = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(signal.success());
    let output = child.wait_with_output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stdout.contains("3 not captioned: interrupted"), "{stdout}");
    assert!(stderr.contains("run the same command again to resume"), "{stderr}");
    let before = server.request_count();
    assert!((2..12).contains(&before) && server.answered() == before, "{before}");

    server.delay(Duration::ZERO);
    let run = workspace.run(&server, &[]);
    assert!(run.stdout.contains("3 captioned, 0 cached, 0 failed"), "{}", run.stdout);
    assert_eq!(server.request_count(), 12);
}

#[test]
fn several_base_urls_share_the_work() {
    let servers = [Server::start([]), Server::start([])];
    let workspace = Workspace::new(&[question(1, "one"), question(2, "two")]);
    let second = servers[1].base_url();
    let run = workspace.run(&servers[0], &[&second]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(servers.map(|server| server.answered()), [4, 4]);
}

#[test]
fn the_key_is_sent_and_never_logged() {
    let server = Server::start([Fault::InternalError]);
    let workspace = Workspace::new(&[question(1, "one")]);
    let mut command = workspace.command(&server, &["--log", "trace"]);
    let output = command.env("OPENAI_API_KEY", "sk-very-secret").output().unwrap();
    assert_eq!(server.authorization().as_deref(), Some("Bearer sk-very-secret"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("retrying"), "{stderr}");
    assert!(!stderr.contains("very-secret"), "the key is in the log");
    assert!(!workspace.all_outputs().contains("very-secret"), "the key is in an output");
}

#[test]
fn captions_of_different_models_are_not_mixed() {
    let server = Server::start([]);
    let workspace = Workspace::new(&[question(1, "one")]);
    workspace.run(&server, &["--captioner", "small"]);
    let run = workspace.run(&server, &["--captioner", "large"]);
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains(r#"`model` was "small" and is "large""#), "{}", run.stderr);
    assert_eq!(server.answered(), 4);
    let redone = workspace.run(&server, &["--captioner", "large", "--redo-changed"]);
    assert_eq!(redone.code, 0, "{}", redone.stderr);
    assert_eq!(workspace.log()[0]["settings"]["model"], json!("large"));
}

#[test]
fn only_the_question_without_a_video_fails() {
    let mut without_video = question(2, "two");
    without_video["video_id"] = json!("nowhere.mp4");
    let server = Server::start([]);
    let workspace = Workspace::new(&[question(1, "one"), without_video]);
    let run = workspace.run(&server, &[]);
    assert_eq!(run.code, 1);
    assert!(workspace.log()[1]["error"].as_str().unwrap().contains("the video `nowhere.mp4`"));
    assert_eq!(workspace.output().len(), 1);
}

/// The frames of a line of the log.
fn frames(line: &Value) -> &[Value] {
    line["frames"].as_array().unwrap()
}

#[test]
fn a_malformed_caption_is_retried_once_and_then_used_as_is() {
    let server = Server::start([]);
    server.malform("alpha", 1);
    server.malform("beta", 6);
    let workspace = Workspace::new(&[question(1, "alpha"), question(2, "beta")]);
    let run = workspace.run(&server, &[]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(server.answered(), (4 + 1) + (4 + 3));
    let log = workspace.log();
    assert!(frames(&log[0]).iter().all(|frame| frame["fault"].is_null()), "{}", log[0]);
    assert_eq!(frames(&log[0])[1]["action"], json!("rotate left"));
    let malformed = &frames(&log[1])[1];
    assert_eq!((&malformed["action"], &malformed["fault"]), (&Value::Null, &json!("malformed")));
    assert_eq!((&malformed["view"], &malformed["attempts"]), (&json!("well, a lamp"), &json!(2)));
    assert!(run.stdout.contains("3 captions are malformed"), "{}", run.stdout);
}

#[test]
fn a_refused_frame_fails_only_its_question_and_is_not_retried_by_default() {
    let workspace = Workspace::new(&[question(1, "alpha"), question(2, "beta")]);
    let server = Server::start([]);
    server.filter("beta");
    let first = workspace.run(&server, &[]);
    assert_eq!(first.code, 1);
    assert!(first.stdout.contains("1 captioned, 0 cached, 1 failed"), "{}", first.stdout);
    let error = workspace.log()[1]["error"].as_str().unwrap().to_owned();
    assert!(error.contains("the model refuses to describe frame"), "{error}");
    assert!(error.contains("not this one"), "{error}");
    assert!(first.stdout.contains("`--retry-refused` retries"), "{}", first.stdout);

    let healthy = Server::start([]);
    let second = workspace.run(&healthy, &[]);
    assert_eq!((second.code, healthy.request_count()), (1, 0), "{}", second.stderr);
    let third = workspace.run(&healthy, &["--retry-refused"]);
    assert_eq!((third.code, healthy.request_count()), (0, 4), "{}", third.stderr);
}

#[test]
fn a_truncated_caption_is_retried_once_with_twice_the_tokens() {
    let server = Server::start([]);
    server.truncate_below(50);
    let workspace = Workspace::new(&[question(1, "one")]);
    let run = workspace.run(&server, &["--max-tokens", "40"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    // Each frame with 40 tokens, then with 80.
    assert_eq!(server.answered(), 8);
    let log = workspace.log();
    assert!(frames(&log[0]).iter().all(|frame| frame["fault"].is_null()), "{}", log[0]);

    let workspace = Workspace::new(&[question(1, "one")]);
    let run = workspace.run(&server, &["--max-tokens", "20"]);
    assert_eq!(frames(&workspace.log()[0])[0]["fault"], json!("truncated"));
    assert!(run.stdout.contains("4 captions are truncated"), "{}", run.stdout);
}

#[test]
fn tokens_and_costs_are_summed_over_runs() {
    let server = Server::start([]);
    let workspace = Workspace::new(&[question(1, "one"), question(2, "two")]);
    let prices = ["--price-in", "1000", "--price-out", "2000"];
    workspace.run(&server, &[&prices[..], &["--limit", "1"]].concat());
    let run = workspace.run(&server, &prices);
    // A question has one request of 100 tokens and three of 200, with completions of 12 tokens.
    for line in [
        "responses: 4 new, 0 cached; 8 in total",
        "tokens: 700 prompt and 48 completion new; 1400 prompt and 96 completion in total",
        "cost: 0.7960 new; 1.5920 in total",
    ] {
        assert!(run.stdout.contains(line), "{}", run.stdout);
    }
}

#[test]
fn a_cost_limit_stops_the_run_and_a_higher_one_resumes_it() {
    let server = Server::start([]);
    let workspace = Workspace::new(&[question(1, "one"), question(2, "two"), question(3, "three")]);
    let limit = |cost| ["--price-in", "1000", "--price-out", "0", "--max-cost", cost];
    // A question costs 0.7, so one and part of another fit.
    let first = workspace.run(&server, &[&limit("1.25")[..], &["--concurrency", "1"]].concat());
    assert_eq!(first.code, 1, "{}", first.stderr);
    assert!(first.stdout.contains("1 captioned, 0 cached, 0 failed"), "{}", first.stdout);
    assert!(first.stdout.contains("2 not captioned: `--max-cost` reached"), "{}", first.stdout);
    assert!(first.stdout.contains("cost: 1.2000 new; 1.2000 in total"), "{}", first.stdout);
    assert_eq!((workspace.output().len(), workspace.log().len()), (1, 1));

    let second = workspace.run(&server, &limit("3"));
    assert_eq!(second.code, 0, "{}", second.stderr);
    assert!(second.stdout.contains("cost: 0.9000 new; 2.1000 in total"), "{}", second.stdout);
    assert_eq!(server.answered(), 12);
}

#[test]
fn a_shared_cache_serves_another_output_folder() {
    let server = Server::start([]);
    let workspace = Workspace::new(&[question(1, "one")]);
    workspace.run(&server, &["--cache", "kept"]);
    std::fs::rename(workspace.path("inter"), workspace.path("first")).unwrap();
    let run = workspace.run(&server, &["--cache", "kept"]);
    assert_eq!((run.code, server.answered()), (0, 4), "{}", run.stderr);
    assert!(run.stdout.contains("responses: 0 new, 4 cached; 0 in total"), "{}", run.stdout);
    // Other settings make other requests.
    workspace.run(&server, &["--cache", "kept", "--redo-changed", "--image-side", "56"]);
    assert_eq!(server.answered(), 8);
}

#[test]
fn a_broken_cache_entry_is_requested_again() {
    let server = Server::start([]);
    let workspace = Workspace::new(&[question(1, "one")]);
    workspace.run(&server, &[]);
    let path = workspace.path("inter/cache/replies-1.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen("{", "", 1)).unwrap();
    std::fs::remove_file(workspace.path("inter/train_data.captions.jsonl")).unwrap();
    let run = workspace.run(&server, &[]);
    assert!(run.stderr.contains("has 1 malformed lines, which are skipped"), "{}", run.stderr);
    assert_eq!((run.code, server.answered()), (0, 5));
}

#[test]
fn with_scope_video_a_video_is_captioned_once() {
    let server = Server::start([]);
    let workspace = Workspace::new(&[question(1, "one"), question(2, "two"), question(3, "gamma")]);
    let run = workspace.run(&server, &["--scope", "video"]);
    assert_eq!((run.code, server.answered()), (0, 4), "{}", run.stderr);
    let prompts = workspace.output();
    assert_eq!(prompts.len(), 3);
    assert!(prompts[2]["question"].as_str().unwrap().contains("Question: gamma?"));
    assert!(!server.requests().iter().any(|request| request.contains("gamma")));
}

#[test]
fn shards_run_separately_and_are_merged() {
    let server = Server::start([]);
    let workspace =
        Workspace::new(&[question(1, "one"), question(2, "two"), other_video(3, "three")]);
    let shard = |shard: &str| workspace.run(&server, &["--shard", shard]);
    let first = shard("1/2");
    assert!(first.stdout.contains("2 captioned, 0 cached, 0 failed"), "{}", first.stdout);
    let early = workspace.run_merge(&[]);
    assert_eq!(early.code, 1);
    assert!(early.stderr.contains("`inter/shard-2-of-2` is missing"), "{}", early.stderr);
    shard("2/2");
    let merged = workspace.run_merge(&[]);
    assert_eq!(merged.code, 0, "{}", merged.stderr);
    assert!(merged.stdout.contains("3 of 3 questions"), "{}", merged.stdout);
    assert_eq!((workspace.output().len(), workspace.log().len()), (3, 3));
    let same = workspace.run_merge(&["inter/shard-2-of-2", "inter/shard-1-of-2"]);
    assert_eq!(same.code, 0, "{}", same.stderr);
    // A run without shards has nothing left to do.
    let whole = workspace.run(&server, &[]);
    assert!(whole.stdout.contains("0 captioned, 3 cached, 0 failed"), "{}", whole.stdout);
}

/// Four questions about each of three videos.
fn questions_about_three_videos() -> Vec<Value> {
    let video = |id: u32| match id % 3 {
        0 => question(id, &format!("word {id}")),
        1 => other_video(id, &format!("word {id}")),
        _ => third_video(id, &format!("word {id}")),
    };
    (0..12).map(video).collect()
}

#[test]
fn a_run_stops_when_the_server_refuses_every_question() {
    let server = Server::start([]);
    server.refuse("Question: ");
    let workspace = Workspace::new(&questions_about_three_videos());
    let run = workspace.run(&server, &["--concurrency", "1"]);
    // Questions are ordered by video: the ninth is about the third one.
    assert_eq!((run.code, server.request_count()), (1, 9), "{}", run.stderr);
    assert!(run.stderr.contains("9 questions in a row got no captions"), "{}", run.stderr);
    assert!(run.stderr.contains("not allowed"), "{}", run.stderr);
}

#[test]
fn an_unreachable_server_ends_the_run_with_a_hint() {
    let gone = Server::start([]).base_url();
    let workspace = Workspace::new(&questions_about_three_videos());
    let run = workspace.run_bare(&["--base-url", &gone, "--max-retries", "0"]);
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("questions in a row got no captions"), "{}", run.stderr);
    assert!(run.stderr.contains("hint: finished captions are kept"), "{}", run.stderr);
}

#[test]
fn a_wrong_key_ends_the_run_at_once() {
    let server = Server::start([Fault::Unauthorized; 16]);
    let workspace = Workspace::new(&[question(1, "one")]);
    let run = workspace.run(&server, &["--concurrency", "1"]);
    assert_eq!((run.code, server.request_count()), (1, 1), "{}", run.stderr);
    assert!(run.stderr.contains("hint: set OPENAI_API_KEY"), "{}", run.stderr);
}

#[test]
fn wrong_usage_exits_with_two_and_names_the_option() {
    let workspace = Workspace::new(&[question(1, "one")]);
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
        (vec!["--price-in=-1", "--price-out", "1"], "must be a number of 0 or more"),
        (vec!["--backend", "scene", "--scenes", ".", "--max-cost", "5"], "--price-in"),
        (vec!["--backend", "scene", "--scenes", ".", "--cache", "c"], "`--cache` belongs"),
        (vec!["--limit", "1", "merge"], "merge"),
        (vec!["--output", "inter", "merge"], "merge"),
    ] {
        let run = workspace.run_bare(&args);
        assert_eq!(run.code, 2, "{args:?}: {}", run.stderr);
        assert!(run.stderr.contains(reason), "{args:?}: {}", run.stderr);
    }
}

#[test]
fn the_scene_backend_needs_no_server_and_ignores_answers() {
    let workspace = Workspace::new(&[question(1, "one")]);
    workspace.add_scene();
    let prompts = ["A", "B"].map(|answer| {
        workspace.set_answer(answer);
        let save = format!("inter-{answer}");
        let run =
            workspace.run_bare(&["--backend", "scene", "--scenes", "scenes", "--output", &save]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        std::fs::read(workspace.path(&format!("{save}/train_data.captions.jsonl"))).unwrap()
    });
    assert!(String::from_utf8_lossy(&prompts[0]).contains("red lamp ahead, 3 m"));
    assert_eq!(prompts[0], prompts[1]);
}

#[test]
fn nothing_is_created_without_questions_or_with_a_question_that_occurs_twice() {
    for (questions, expected) in [
        (vec![], "train_data.json` has no questions"),
        (vec![question(1, "one"), question(2, "two"), question(1, "three")], "record 3 of `"),
    ] {
        let workspace = Workspace::new(&questions);
        for backend in
            [&["--base-url", "http://127.0.0.1:9"][..], &["--backend", "scene", "--scenes", "."]]
        {
            let run = workspace.run_bare(backend);
            assert_eq!(run.code, 1, "{}", run.stderr);
            assert!(run.stderr.contains(expected), "{}", run.stderr);
            assert!(!workspace.path("inter").exists());
        }
    }
}

#[test]
fn an_interrupted_run_does_not_wait_for_a_decoder() {
    use std::os::unix::fs::PermissionsExt as _;
    let server = Server::start([]);
    let workspace = Workspace::new(&[question(1, "one")]);
    let bin = workspace.path("bin");
    std::fs::create_dir(&bin).unwrap();
    std::fs::write(bin.join("ffmpeg"), "#!/bin/sh\nsleep 900 & echo $! > child; wait\n").unwrap();
    std::fs::set_permissions(bin.join("ffmpeg"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut command = workspace.command(&server, &[]);
    let command = command.env("PATH", path).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let begin = Instant::now();
    while !workspace.path("child").exists() {
        assert!(begin.elapsed() < Duration::from_secs(300), "FFmpeg was not started");
        std::thread::sleep(Duration::from_millis(20));
    }
    let interrupted = Instant::now();
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let output = child.wait_with_output().unwrap();
    // The time limit of the video is 72 s.
    assert!(interrupted.elapsed() < Duration::from_secs(60));
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(stdout.contains("1 not captioned: interrupted"), "{stdout}");
}
