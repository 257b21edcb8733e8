//! `ask`, and `chat` about videos and images.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use assert_cmd::assert::OutputAssertExt as _;
use embodied_r_tests::{VisionModel, binary, tiny_model};
use serde_json::Value;

/// A room's video, whose file name is in `name`, its scene in `raw/scenes`, a text model in `text`, a vision-language
/// model in `vl`.
fn workspace() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let rooms = ["sim", "rooms", "--output", "raw", "--rooms", "2", "--seed", "7"];
    command(dir.path(), &rooms).assert().code(0);
    tiny_model::write(&dir.path().join("text"));
    VisionModel::Flat.write(&dir.path().join("vl"));
    let video = videos(&dir.path().join("raw")).remove(0);
    let name = video.rsplit('/').next().unwrap().to_owned();
    fs::copy(&video, dir.path().join(&name)).unwrap();
    fs::write(dir.path().join("name"), name).unwrap();
    dir
}

fn videos(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(videos(&path));
        } else if path.extension().is_some_and(|extension| extension == "mp4") {
            found.push(path.to_str().unwrap().to_owned());
        }
    }
    found.sort();
    found
}

fn command(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.current_dir(dir).args(arguments).env_remove("OPENAI_API_KEY");
    command
}

fn video(dir: &Path) -> String {
    fs::read_to_string(dir.join("name")).unwrap()
}

fn ask(dir: &Path, more: &[&str]) -> Output {
    let video = video(dir);
    let arguments =
        ["ask", &video, "Where is the lamp?", "--max-frames", "4", "--max-tokens", "12"];
    command(dir, &[&arguments[..], more].concat()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_question_is_answered_from_annotations_and_its_trace_is_saved() {
    let dir = workspace();
    let trace = ["--scenes", "raw/scenes", "--policy", "text", "--json", "--save-trace", "trace"];
    let options = ["--option", "A=To the left", "--option", "B=<b>Behind</b>"];
    let output = ask(dir.path(), &[&trace[..], &options].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let frames = report["keyframes"].as_array().unwrap();
    assert_eq!(frames.len(), 4);
    let prompt = report["prompt"].as_str().unwrap();
    assert!(prompt.contains(frames[1]["view"].as_str().unwrap()));
    assert!(prompt.ends_with("A. To the left\nB. <b>Behind</b>"), "{prompt}");
    assert!(!report["completion"].as_str().unwrap().is_empty());
    let page = fs::read_to_string(dir.path().join("trace/index.html")).unwrap();
    assert!(page.contains("frames/003.jpg") && page.contains("&lt;b&gt;Behind"), "{page}");
    assert!(dir.path().join("trace/frames/003.jpg").is_file());
    let saved = fs::read(dir.path().join("trace/trace.json")).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&saved).unwrap(), report);
}

#[test]
fn a_vision_language_model_captions_and_reasons() {
    let dir = workspace();
    let output = ask(dir.path(), &["--captioner", "vl", "--caption-tokens", "5", "--json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["keyframes"].as_array().unwrap().len(), 4);
    assert!(report["keyframes"][0]["prompt_tokens"].as_u64().unwrap() > 10);
    let output = ask(dir.path(), &["--captioner", "vl", "--caption-tokens", "5"]);
    let stdout = text(&output.stdout);
    assert!(stdout.starts_with(report["completion"].as_str().unwrap()), "{stdout}");
}

#[test]
fn missing_inputs_are_reported_before_any_captioning() {
    let dir = workspace();
    let stderr = |more: &[&str]| {
        let output = ask(dir.path(), more);
        assert!(!output.status.success());
        text(&output.stderr)
    };
    assert!(stderr(&[]).contains("--policy"));
    assert!(stderr(&["--policy", "text"]).contains("--captioner"));
    assert!(stderr(&["--policy", "absent", "--captioner", "vl"]).contains("absent"));
    assert!(stderr(&["--policy", "text", "--captioner", "text"]).contains("is a text model"));
    let both = ["--policy", "text", "--scenes", "raw/scenes", "--captioner", "vl"];
    assert!(stderr(&both).contains("cannot be used with"));
    let one = ["--policy", "text", "--scenes", "raw/scenes", "--option", "A=x"];
    assert!(stderr(&one).contains("is not a choice"));
    let absent = ["ask", "absent.mp4", "?", "--scenes", "raw/scenes", "--policy", "text"];
    let output = command(dir.path(), &absent).output().unwrap();
    assert!(text(&output.stderr).contains("absent.mp4"));
}

fn chat(dir: &Path, arguments: &[&str], lines: &str) -> (String, String) {
    let mut child = command(dir, &[&["chat", "--max-tokens", "6"], arguments].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_conversation_is_about_a_video_until_the_video_is_removed() {
    let dir = workspace();
    let lines = format!(
        "/video absent.mp4\n/video {}\nwhere is it?\n/video\nand now?\n/save messages.json\n",
        video(dir.path())
    );
    let arguments = ["--model", "text", "--scenes", "raw/scenes", "--max-frames", "4"];
    let (_, stderr) = chat(dir.path(), &arguments, &lines);
    assert!(
        stderr.contains("absent.mp4") && stderr.contains("questions are now about"),
        "{stderr}"
    );
    let messages: Value =
        serde_json::from_slice(&fs::read(dir.path().join("messages.json")).unwrap()).unwrap();
    let content = |turn: usize| messages[turn]["content"].as_str().unwrap().to_owned();
    assert!(content(1).contains("Frame 3:") && content(1).ends_with("Question: where is it?"));
    assert_eq!(content(3), "and now?");
}

#[test]
fn images_need_a_vision_language_model() {
    let dir = workspace();
    image::RgbImage::from_fn(90, 60, |x, y| image::Rgb([x as u8, y as u8, 9]))
        .save(dir.path().join("a.png"))
        .unwrap();
    let sample = |temperature: &str, lines: &str| {
        let model = ["--model", "vl", "--system-prompt", "", "--temperature", temperature];
        chat(dir.path(), &model, lines)
    };
    let (with_image, stderr) = sample("0", "/image a.png\nWhat is there?\n");
    assert!(stderr.contains("adds 6 tokens"), "{stderr}");
    // With the same seed, another prompt samples another answer.
    let (sampled, _) = sample("1", "/image a.png\nWhat is there?\n");
    assert_ne!(sample("1", "What is there?\n").0, sampled);
    let arguments = [
        "inspect",
        "caption",
        "--model",
        "vl",
        "--image",
        "a.png",
        "--prompt",
        "What is there?",
        "--max-tokens",
        "6",
    ];
    let caption = command(dir.path(), &arguments).assert().code(0).get_output().clone();
    assert!(text(&caption.stdout).ends_with(&with_image), "{with_image}");
    let (_, stderr) = chat(dir.path(), &["--model", "text"], "/image a.png\n/image\n");
    assert!(stderr.contains("is text-only") && stderr.contains("needs a file name"), "{stderr}");
}

#[test]
fn gguf_files_answer_and_chat_as_the_same_weights_in_a_folder() {
    let dir = workspace();
    VisionModel::Gguf.write(&dir.path().join("gguf"));
    image::RgbImage::from_fn(90, 60, |x, y| image::Rgb([x as u8, y as u8, 9]))
        .save(dir.path().join("a.png"))
        .unwrap();
    let reply = |model: &str| {
        let model = ["--model", model, "--system-prompt", "", "--temperature", "0"];
        chat(dir.path(), &model, "/image a.png\nWhat is there?\n").0
    };
    assert_eq!(reply("gguf"), reply("vl"));
    // Under one path: the random stream depends on the question and the model path.
    let answer = |model: VisionModel| -> Value {
        let _ = fs::remove_dir_all(dir.path().join("m"));
        model.write(&dir.path().join("m"));
        let models = ["--policy", "m", "--captioner", "m", "--caption-tokens", "8", "--json"];
        let output = ask(dir.path(), &models);
        assert!(output.status.success(), "{}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let (flat, gguf) = (answer(VisionModel::Flat), answer(VisionModel::Gguf));
    assert!(flat["completion"].as_str().is_some_and(|text| !text.is_empty()), "{flat}");
    for field in ["prompt", "completion"] {
        assert_eq!(gguf[field], flat[field], "{field}");
    }
    let bench = [
        "bench", "caption", "--model", "gguf", "--frames", "2", "--size", "90", "60", "--new", "3",
        "--runs", "1", "--json",
    ];
    let output = command(dir.path(), &bench).assert().code(0).get_output().clone();
    let metrics: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(metrics["tokens_per_frame"], 6.0);
    assert!(metrics["decode_tokens_per_s"].as_f64().unwrap() > 0.0, "{metrics}");
}

/// The model in `dir`, with a context of 64 tokens.
fn shorten_context(dir: &Path) {
    let path = dir.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["max_position_embeddings"] = 64.into();
    fs::write(path, config.to_string()).unwrap();
}

#[test]
fn captions_are_kept_before_the_policy_is_asked_and_too_long_a_prompt_names_the_way_out() {
    let dir = workspace();
    shorten_context(&dir.path().join("text"));
    let output =
        ask(dir.path(), &["--scenes", "raw/scenes", "--policy", "text", "--save-trace", "trace"]);
    assert_eq!(output.status.code(), Some(1));
    let stderr = text(&output.stderr);
    assert!(stderr.contains("the context length of `text` is 64"), "{stderr}");
    for way_out in ["`--max-frames`", "`--threshold`", "`--caption-tokens`", "`--policy`"] {
        assert!(stderr.contains(way_out), "{stderr}");
    }
    assert!(stderr.contains("the captions are kept in `trace`"), "{stderr}");
    let saved: Value =
        serde_json::from_slice(&fs::read(dir.path().join("trace/trace.json")).unwrap()).unwrap();
    assert_eq!(saved["keyframes"].as_array().unwrap().len(), 4);
    assert_eq!(saved["completion"], Value::Null);
    assert!(dir.path().join("trace/frames/003.jpg").is_file());
    let page = fs::read_to_string(dir.path().join("trace/index.html")).unwrap();
    assert!(page.contains("the language model has not answered"), "{page}");
}
