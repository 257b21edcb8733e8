//! Control characters of captions, file names, ids and completions, which must not reach a terminal.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use embodied_r_test_server::{Response, Server};
use embodied_r_tests::{VisionModel, binary, tiny_model};
use serde_json::{Value, json};

/// Sets the window's title and clears the screen, then C1, DEL and a right-to-left override.
const HOSTILE: &str = "\u{1b}]0;owned\u{7}\u{1b}[2J\r\u{9b}31m\u{7f}\u{202e}";

/// Fails if the output has a character that controls a terminal.
fn assert_harmless(output: &Output) {
    for text in [&output.stdout, &output.stderr] {
        let text = String::from_utf8(text.clone()).unwrap();
        let is_hostile = |c: char| {
            c.is_control() && c != '\n' && c != '\t'
                || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        };
        assert!(!text.contains(is_hostile), "{text:?}");
    }
}

fn run(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.current_dir(dir).args(arguments).env_remove("OPENAI_API_KEY");
    command.env("NO_PROXY", "127.0.0.1").stdin(Stdio::null()).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

fn video(path: &Path) {
    let status = Command::new("ffmpeg")
        .args(["-v", "error", "-f", "lavfi", "-i", "testsrc=size=64x48:rate=4:duration=3"])
        .args(["-pix_fmt", "yuv420p", "-f", "mp4"])
        .arg(path)
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn file_names_are_escaped_in_output_errors_and_usage_errors() {
    let dir = tempfile::tempdir().unwrap();
    let name = format!("a{HOSTILE}.mp4");
    video(&dir.path().join(&name));
    fs::write(dir.path().join(format!("b{HOSTILE}.mp4")), "no video").unwrap();
    fs::write(dir.path().join(format!("c{HOSTILE}.json")), "no JSON").unwrap();
    let broken = format!("b{HOSTILE}.mp4");
    let data = format!("c{HOSTILE}.json");
    for arguments in [
        &["keyframes", &name, &broken][..],
        &["keyframes", "--json", &name, &broken],
        &["keyframes", HOSTILE],
        &["perceive", "--data", &data, "--output", "out"],
        &["perceive", "--data", &data, "--output", "out", "--backend", HOSTILE],
        &[HOSTILE],
        &["train", HOSTILE],
        &["show", HOSTILE],
        &["infer", "--model", HOSTILE, "--data", &data, "--output", "out.json"],
    ] {
        let output = run(dir.path(), arguments);
        assert_harmless(&output);
        let said = said(&output);
        assert!(said.contains("\\u009b31m"), "{arguments:?}: {said}");
    }
}

#[test]
fn json_with_control_characters_is_the_same_data() {
    let dir = tempfile::tempdir().unwrap();
    let name = format!("a{HOSTILE}.mp4");
    video(&dir.path().join(&name));
    let output = run(dir.path(), &["keyframes", "--json", &name]);
    assert_harmless(&output);
    let line: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(line["video"], name);
}

#[test]
fn captions_and_messages_of_a_server_are_escaped_in_output_and_log() {
    let dir = tempfile::tempdir().unwrap();
    video(&dir.path().join("a.mp4"));
    let path = dir.path().to_owned();
    let hostile = format!("1. Action: turn {HOSTILE}\n2. Observation: a lamp {HOSTILE}");
    let captions = Server::chat(move |_| Response::completion(&hostile));
    let refusal = json!({"error": {"message": format!("out of memory {HOSTILE}")}}).to_string();
    let refused = Server::chat(move |_| Response::new(500, refusal.clone()));
    let question = json!([{"Question_id": HOSTILE, "video_id": "a.mp4", "question": "where?",
        "question_category": "route_planning", "answer": "A"}]);
    fs::write(path.join("data.json"), question.to_string()).unwrap();
    tiny_model::write(&path.join("text"));
    let (good, bad) = (captions.base_url(), refused.base_url());
    let ask = |url: &str| {
        let ask = ["ask", "a.mp4", HOSTILE, "--policy", "text", "--captioner", "m"];
        run(&path, &[&ask[..], &["--captioner-base-url", url, "--max-new-tokens", "4"]].concat())
    };
    let output = ask(&good);
    assert_harmless(&output);
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("a lamp \\u001b]0;owned\\u0007"), "{}", said(&output));
    let perceive = |output: &str, url: &str| {
        let data = ["--data", "data.json", "--video-dir", ".", "--output", output];
        let server = ["--base-url", url, "--max-retries", "1", "--log", "debug"];
        run(&path, &[&["perceive"], &data[..], &server].concat())
    };
    let output = perceive("good", &good);
    assert_harmless(&output);
    assert!(output.status.success(), "{}", said(&output));
    // Files keep the characters.
    let log = fs::read_to_string(path.join("good/data.captions.jsonl")).unwrap();
    let line: Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    assert_eq!(line["id"], HOSTILE);
    let output = perceive("bad", &bad);
    assert_harmless(&output);
    // The message is in a log line, with the id of the question.
    let said = said(&output);
    assert!(said.contains("out of memory \\u001b]0;owned\\u0007"), "{said}");
}

/// At a high temperature the random model of single bytes writes control characters, too.
#[test]
fn completions_are_escaped_while_they_are_streamed() {
    let dir = tempfile::tempdir().unwrap();
    tiny_model::write(&dir.path().join("model"));
    let mut child = Command::new(binary())
        .current_dir(dir.path())
        .args(["chat", "--model", "model", "--max-new-tokens", "300", "--temperature", "9"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"hello\n/save messages.json\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert_harmless(&output);
    let saved: Value =
        serde_json::from_slice(&fs::read(dir.path().join("messages.json")).unwrap()).unwrap();
    let completion = saved.as_array().unwrap().last().unwrap()["content"].as_str().unwrap();
    let control = completion.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\t')).unwrap();
    let escape = format!("\\u{:04x}", u32::from(control));
    assert!(String::from_utf8(output.stdout).unwrap().contains(&escape), "{escape}");
}

#[test]
fn a_local_captioners_words_are_escaped() {
    let dir = tempfile::tempdir().unwrap();
    video(&dir.path().join("a.mp4"));
    VisionModel::Flat.write(&dir.path().join("vl"));
    let captioner = ["ask", "a.mp4", "?", "--captioner", "vl", "--caption-tokens", "40"];
    let decoding = ["--max-new-tokens", "300", "--temperature", "9"];
    let output = run(dir.path(), &[&captioner[..], &decoding].concat());
    assert!(output.status.success(), "{}", said(&output));
    assert_harmless(&output);
    assert!(said(&output).contains("\\u00"), "{}", said(&output));
}

/// With colors, a progress bar and styled usage errors.
#[test]
fn a_terminal_gets_no_control_characters_of_names() {
    let dir = tempfile::tempdir().unwrap();
    let name = format!("a{HOSTILE}.mp4");
    video(&dir.path().join(&name));
    let on_terminal = |arguments: &str| {
        let mut command = Command::new("script");
        command.args(["-qec", &format!("\"$BINARY\" {arguments}"), "/dev/null"]);
        command.env("BINARY", binary()).env("NAME", &name).env("TERM", "xterm-256color");
        command.current_dir(dir.path()).stdin(Stdio::null()).output()
    };
    for (arguments, escaped) in [
        ("keyframes \"$NAME\"", "\\u001b]0;owned\\u0007"),
        ("show \"$NAME\"", "\\u001b]0;owned\\u0007"),
        // clap drops the escape sequences of a value that it quotes.
        ("keyframes --threshold \"$NAME\" x", "\\u202e"),
    ] {
        let Ok(output) = on_terminal(arguments) else {
            return embodied_r_tests::skipped("there is no `script`");
        };
        let said = said(&output);
        assert!(said.contains(escaped), "{arguments}: {said:?}");
        for hostile in ["\u{1b}]0;", "\u{1b}[2J", "\u{9b}", "\u{7f}", "\u{202e}", "\u{7}"] {
            assert!(!said.contains(hostile), "{arguments}: {said:?}");
        }
    }
}
