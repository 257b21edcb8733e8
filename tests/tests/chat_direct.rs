//! `embodied-r chat --direct`: the model sees the frames of the video that the conversation is about.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use embodied_r_tests::{VisionModel, binary, stderr, stderr_of, stdout_of, tiny_model, write_clip};
use serde_json::{Value, json};

/// A folder with the model in `model` and two videos.
fn workspace() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    VisionModel::Nested.write(&dir.path().join("model"));
    let codec = "-frames:v 12 -c:v libx264 -preset ultrafast -pix_fmt yuv420p";
    for (source, name) in [("testsrc2", "clip.mp4"), ("mandelbrot", "other.mp4")] {
        write_clip(&format!("-f lavfi -i {source}=s=84x56:r=2 {codec}"), &dir.path().join(name));
    }
    dir
}

fn embodied_r(dir: &Path, command: &str, words: &[&str]) -> Command {
    let mut run = Command::new(binary());
    run.current_dir(dir).args([command, "--direct", "--max-new-tokens", "6"]).args(words);
    run
}

/// The output of a chat with `input`, which must succeed.
fn converse(dir: &Path, words: &[&str], input: &str) -> Output {
    let mut command = embodied_r(dir, "chat", &["--model", "model"]);
    command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    output
}

/// The completions of a chat with `input`.
fn answers(dir: &Path, words: &[&str], input: &str) -> Vec<String> {
    converse(dir, words, &format!("{input}/save messages.json\n"));
    let messages: Vec<Value> =
        serde_json::from_slice(&fs::read(dir.join("messages.json")).unwrap()).unwrap();
    let answers = messages.iter().filter(|message| message["role"] == "assistant");
    answers.map(|message| message["content"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_first_answer_is_that_of_ask() {
    let dir = workspace();
    for words in [
        &["--frames", "uniform=2"][..],
        &["--frames", "uniform=2", "--frame-use", "images"],
        &["--fps", "2", "--max-frames", "4", "--max-pixels", "4000"],
        &["--frames", "uniform=2", "--min-pixels", "9000"],
    ] {
        let mut ask = embodied_r(dir.path(), "ask", &["clip.mp4", "Where?", "--policy", "model"]);
        let asked: Value = serde_json::from_str(&stdout_of(ask.arg("--json").args(words))).unwrap();
        let chatted = answers(dir.path(), words, "/video clip.mp4\nWhere?\n");
        assert_eq!(json!(chatted), json!([asked["completion"]]), "{words:?}");
    }
}

#[test]
fn frames_are_encoded_once_and_leave_with_the_conversation() {
    let dir = workspace();
    let words = ["--frames", "uniform=2"];
    let of = |input: &str| answers(dir.path(), &words, input);
    let (seen, unseen) = (of("/video clip.mp4\nWhere?\n"), of("Where?\n"));
    assert_ne!(seen, unseen);
    assert_eq!(of("/video clip.mp4\nWhere?\n/clear\nWhere?\n"), unseen);
    assert_eq!(of("/video clip.mp4\n/video\nWhere?\n"), unseen);
    // Three turns about a video, another video, and the first one again.
    let again = "/video clip.mp4\nWhere?\n";
    let input = format!("{again}What?\nWhy?\n/video other.mp4\nWhere?\n{again}");
    let output = converse(dir.path(), &[&words[..], &["--log", "info"]].concat(), &input);
    let log = stderr(&output);
    assert!(log.contains("encoded=2") && log.contains("from_memory=1"), "{log}");
}

#[test]
fn a_video_beyond_the_context_length_is_refused_when_it_is_opened() {
    let dir = workspace();
    let path = dir.path().join("model/config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["text_config"]["max_position_embeddings"] = json!(24);
    fs::write(&path, config.to_string()).unwrap();
    let output = converse(dir.path(), &["--frames", "uniform=12"], "/video clip.mp4\n");
    let text = stderr(&output);
    assert!(text.contains("cannot show `clip.mp4`: it has 36 tokens"), "{text}");
    assert!(text.contains("show fewer or smaller frames"), "{text}");
}

#[test]
fn a_video_that_cannot_be_shown_is_reported_and_the_conversation_goes_on() {
    let dir = workspace();
    fs::write(dir.path().join("broken.mp4"), "no video").unwrap();
    for file in ["missing.mp4", "broken.mp4"] {
        let output = converse(dir.path(), &[], &format!("/video {file}\nhello\n"));
        let text = stderr(&output);
        assert!(text.starts_with(&format!("error: cannot show `{file}`: ")), "{text}");
        assert!(!output.stdout.is_empty());
    }
}

#[test]
fn a_model_that_does_not_see_and_a_captioner_are_refused() {
    let dir = workspace();
    tiny_model::write(&dir.path().join("text"));
    let chat = |words: &[&str]| stderr_of(&mut embodied_r(dir.path(), "chat", words), 2);
    let text = chat(&["--model", "text"]);
    assert!(text.contains("`text` is a text model"), "{text}");
    let text = chat(&["--model", "model", "--captioner", "model"]);
    assert!(text.contains("--captioner") && text.contains("--direct"), "{text}");
    let text = chat(&["--model", "model", "--frames", "some"]);
    assert!(text.contains("the frames of videos"), "{text}");
    let mut without = Command::new(binary());
    without.current_dir(dir.path()).args(["chat", "--model", "model", "--fps", "1"]);
    assert!(stderr_of(&mut without, 2).contains("--direct"));
}
