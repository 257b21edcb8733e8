//! `ask`, and `chat` about videos and pictures, as their users run them.

mod tiny_model;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use assert_cmd::assert::OutputAssertExt as _;
use embodied_r_tests::{VisionModel, binary};
use serde_json::Value;

/// A room's video in `room.mp4`, its scene in `raw/scenes`, a text model in `text`, one that can see in `vl`.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let rooms = ["sim", "rooms", "--out", "raw", "--rooms", "2", "--seed", "7"];
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

fn asked(dir: &Path, more: &[&str]) -> Output {
    let video = video(dir);
    let fixed = ["ask", &video, "Where is the lamp?", "--max-frames", "4", "--max-tokens", "12"];
    command(dir, &[&fixed[..], more].concat()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_question_is_answered_from_annotations_and_the_way_is_kept() {
    let dir = folder();
    let trace = ["--scenes", "raw/scenes", "--policy", "text", "--json", "--save-trace", "trace"];
    let options = ["--option", "A=To the left", "--option", "B=<b>Behind</b>"];
    let output = asked(dir.path(), &[&trace[..], &options].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let answered: Value = serde_json::from_slice(&output.stdout).unwrap();
    let frames = answered["keyframes"].as_array().unwrap();
    assert_eq!(frames.len(), 4);
    let prompt = answered["prompt"].as_str().unwrap();
    assert!(prompt.contains(frames[1]["view"].as_str().unwrap()));
    assert!(prompt.ends_with("A. To the left\nB. <b>Behind</b>"), "{prompt}");
    assert!(!answered["completion"].as_str().unwrap().is_empty());
    let page = fs::read_to_string(dir.path().join("trace/index.html")).unwrap();
    assert!(page.contains("frames/003.jpg") && page.contains("&lt;b&gt;Behind"), "{page}");
    assert!(dir.path().join("trace/frames/003.jpg").is_file());
    let kept = fs::read(dir.path().join("trace/trace.json")).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&kept).unwrap(), answered);
}

#[test]
fn a_model_that_can_see_describes_and_reasons() {
    let dir = folder();
    let output = asked(dir.path(), &["--perceiver", "vl", "--caption-tokens", "5", "--json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let answered: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answered["keyframes"].as_array().unwrap().len(), 4);
    assert!(answered["keyframes"][0]["prompt_tokens"].as_u64().unwrap() > 10);
    let output = asked(dir.path(), &["--perceiver", "vl", "--caption-tokens", "5"]);
    let shown = text(&output.stdout);
    assert!(shown.starts_with(answered["completion"].as_str().unwrap()), "{shown}");
}

#[test]
fn what_is_missing_is_told_before_anything_is_described() {
    let dir = folder();
    let told = |more: &[&str]| {
        let output = asked(dir.path(), more);
        assert!(!output.status.success());
        text(&output.stderr)
    };
    assert!(told(&[]).contains("--policy"));
    assert!(told(&["--policy", "text"]).contains("--perceiver"));
    assert!(told(&["--policy", "absent", "--perceiver", "vl"]).contains("absent"));
    assert!(told(&["--policy", "text", "--perceiver", "text"]).contains("is a text model"));
    let both = ["--policy", "text", "--scenes", "raw/scenes", "--perceiver", "vl"];
    assert!(told(&both).contains("cannot be used with"));
    let one = ["--policy", "text", "--scenes", "raw/scenes", "--option", "A=x"];
    assert!(told(&one).contains("no choice"));
    let absent = ["ask", "absent.mp4", "?", "--scenes", "raw/scenes", "--policy", "text"];
    let output = command(dir.path(), &absent).output().unwrap();
    assert!(text(&output.stderr).contains("absent.mp4"));
}

fn talk(dir: &Path, arguments: &[&str], lines: &str) -> (String, String) {
    let mut chat = command(dir, &[&["chat", "--max-tokens", "6"], arguments].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    chat.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = chat.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_conversation_is_about_a_video_until_it_is_put_away() {
    let dir = folder();
    let lines = format!(
        "/video absent.mp4\n/video {}\nwhere is it?\n/video\nand now?\n/save said.json\n",
        video(dir.path())
    );
    let arguments = ["--model", "text", "--scenes", "raw/scenes", "--max-frames", "4"];
    let (_, told) = talk(dir.path(), &arguments, &lines);
    assert!(told.contains("absent.mp4") && told.contains("questions are about"), "{told}");
    let said: Value =
        serde_json::from_slice(&fs::read(dir.path().join("said.json")).unwrap()).unwrap();
    let content = |turn: usize| said[turn]["content"].as_str().unwrap().to_owned();
    assert!(content(1).contains("Frame 3:") && content(1).ends_with("Question: where is it?"));
    assert_eq!(content(3), "and now?");
}

#[test]
fn a_model_that_can_see_is_shown_pictures_and_another_is_not() {
    let dir = folder();
    image::RgbImage::from_fn(90, 60, |x, y| image::Rgb([x as u8, y as u8, 9]))
        .save(dir.path().join("a.png"))
        .unwrap();
    let said = |temperature: &str, lines: &str| {
        let model = ["--model", "vl", "--system-prompt", "", "--temperature", temperature];
        talk(dir.path(), &model, lines)
    };
    let (seeing, told) = said("0", "/image a.png\nWhat is there?\n");
    assert!(told.contains("takes 6 tokens"), "{told}");
    // The same random numbers, another distribution.
    let (drawn, _) = said("1", "/image a.png\nWhat is there?\n");
    assert_ne!(said("1", "What is there?\n").0, drawn);
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
    assert!(text(&caption.stdout).ends_with(&seeing), "{seeing}");
    let (_, told) = talk(dir.path(), &["--model", "text"], "/image a.png\n/image\n");
    assert!(told.contains("reads text alone") && told.contains("needs the name"), "{told}");
}

#[test]
fn gguf_files_answer_and_talk_as_the_folder_of_the_same_numbers() {
    let dir = folder();
    VisionModel::Gguf.write(&dir.path().join("gguf"));
    image::RgbImage::from_fn(90, 60, |x, y| image::Rgb([x as u8, y as u8, 9]))
        .save(dir.path().join("a.png"))
        .unwrap();
    let said = |model: &str| {
        let model = ["--model", model, "--system-prompt", "", "--temperature", "0"];
        talk(dir.path(), &model, "/image a.png\nWhat is there?\n").0
    };
    assert_eq!(said("gguf"), said("vl"));
    // Under one name: random numbers follow from what is asked, and of whom.
    let answer = |model: VisionModel| -> Value {
        let _ = fs::remove_dir_all(dir.path().join("m"));
        model.write(&dir.path().join("m"));
        let models = ["--policy", "m", "--perceiver", "m", "--caption-tokens", "8", "--json"];
        let output = asked(dir.path(), &models);
        assert!(output.status.success(), "{}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let (folder, gguf) = (answer(VisionModel::Flat), answer(VisionModel::Gguf));
    assert!(folder["completion"].as_str().is_some_and(|text| !text.is_empty()), "{folder}");
    for field in ["prompt", "completion"] {
        assert_eq!(gguf[field], folder[field], "{field}");
    }
    let bench = [
        "bench", "caption", "--model", "gguf", "--frames", "2", "--size", "90", "60", "--new", "3",
        "--runs", "1", "--json",
    ];
    let output = command(dir.path(), &bench).assert().code(0).get_output().clone();
    let figures: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(figures["tokens_per_frame"], 6.0);
    assert!(figures["decode_tokens_per_s"].as_f64().unwrap() > 0.0, "{figures}");
}
