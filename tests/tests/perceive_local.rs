//! `perceive --backend local`: a vision-language model in the process, beside the same one behind an API.

#[path = "serve/client.rs"]
#[allow(dead_code)]
mod client;
mod tiny_model;

use std::fs;
use std::path::Path;
use std::process::Command;

use assert_cmd::assert::OutputAssertExt as _;
use client::Server;
use embodied_r_tests::{VisionModel, binary};
use serde_json::Value;

/// Rooms with their questions in `data`, and a small random vision-language model in `model`.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), &["sim", "rooms", "--out", "raw", "--rooms", "6", "--seed", "5"]);
    run(dir.path(), &["preprocess", "--input", "raw", "--output", "data"]);
    VisionModel::Nested.write(&dir.path().join("model"));
    dir
}

fn run(dir: &Path, arguments: &[&str]) -> String {
    let output = command(dir, arguments).assert().code(0).get_output().clone();
    String::from_utf8(output.stdout).unwrap()
}

fn command(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.current_dir(dir).args(arguments).env_remove("OPENAI_API_KEY");
    command
}

/// Few short captions of the test questions, and where they go.
const ASKED: [&str; 11] = [
    "perceive",
    "--data-paths",
    "data/complete/test_data.json",
    "--max-frames",
    "5",
    "--max-tokens",
    "8",
    "--image-side",
    "160",
    "--temperature",
    "0",
];

fn perceive(dir: &Path, place: &str, arguments: &[&str]) -> String {
    run(dir, &[&ASKED[..], &["--save-path", place], arguments].concat())
}

const LOCAL: [&str; 4] = ["--backend", "local", "--model-path", "model"];

/// The prompts that were written.
fn prompts(dir: &Path, place: &str) -> Vec<String> {
    let text = fs::read(dir.join(place).join("test_data.json")).unwrap();
    let questions: Vec<Value> = serde_json::from_slice(&text).unwrap();
    questions.iter().map(|question| question["question"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn captions_of_a_model_in_the_process_are_those_of_the_same_model_behind_an_api() {
    let dir = folder();
    let told = perceive(dir.path(), "local", &LOCAL);
    let ours = prompts(dir.path(), "local");
    assert!(ours.len() > 2, "{told}");
    let again = perceive(dir.path(), "local", &LOCAL);
    assert!(again.contains("0 captioned now"), "{again}");
    // Another folder with the same cache asks for nothing.
    let cached =
        perceive(dir.path(), "cached", &[&LOCAL[..], &["--cache", "local/cache"]].concat());
    assert!(cached.contains("replies: 0 now"), "{cached}");
    assert_eq!(prompts(dir.path(), "cached"), ours);
    // Few at a time, in little memory: the same words.
    let tight = ["--max-num-seqs", "2", "--kv-cache-gb", "0.002", "--concurrency", "3"];
    perceive(dir.path(), "tight", &[&LOCAL[..], &tight].concat());
    assert_eq!(prompts(dir.path(), "tight"), ours);

    let server = Server::of(dir.path(), &[], None);
    let url = format!("http://{}/v1", server.address());
    let api = ["--backend", "openai", "--model-path", "tiny", "--base-url", &url];
    perceive(dir.path(), "api", &api);
    assert_eq!(prompts(dir.path(), "api"), ours);
}

#[test]
fn captions_of_gguf_files_are_those_of_the_same_numbers_in_a_folder() {
    let dir = folder();
    for (place, model) in [("flat", VisionModel::Flat), ("gguf", VisionModel::Gguf)] {
        let name = format!("model-{place}");
        model.write(&dir.path().join(&name));
        perceive(dir.path(), place, &["--backend", "local", "--model-path", &name]);
    }
    assert_eq!(prompts(dir.path(), "gguf"), prompts(dir.path(), "flat"));
}

#[test]
fn captions_for_videos_serve_all_of_their_questions() {
    let dir = folder();
    perceive(dir.path(), "video", &[&LOCAL[..], &["--scope", "video"]].concat());
    let video = |prompt: &String| prompt.split("Question:").next().unwrap().to_owned();
    let mut seen: Vec<String> = prompts(dir.path(), "video").iter().map(video).collect();
    let questions = seen.len();
    seen.dedup();
    assert!(seen.len() < questions, "{questions} questions, {} videos", seen.len());
}

#[test]
fn what_cannot_be_run_is_told_before_the_model_is_loaded() {
    let dir = folder();
    let told = |arguments: &[&str]| {
        let output = command(dir.path(), arguments).assert().failure().get_output().clone();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let with = |more: &[&'static str]| [&ASKED[..], more].concat();
    let (code, text) = told(&with(&["--backend", "local"]));
    assert!(code == Some(2) && text.contains("--model-path"), "{text}");
    let (code, text) = told(&with(&["--quantize", "q8_0"]));
    assert!(code == Some(2) && text.contains("`--backend local`"), "{text}");
    let (code, text) = told(&[&with(&LOCAL)[..], &["--base-url", "http://a/v1"]].concat());
    assert!(code == Some(2) && text.contains("`--backend openai`"), "{text}");
    let absent = ["perceive", "--data-paths", "absent.json"];
    let (_, text) = told(&[&absent[..], &LOCAL].concat());
    assert!(text.contains("absent.json") && !text.contains("billion"), "{text}");
    tiny_model::write(&dir.path().join("text"));
    let (_, text) = told(&with(&["--backend", "local", "--model-path", "text"]));
    assert!(text.contains("is a text model"), "{text}");
}

#[test]
fn memory_and_time_are_told_first_and_speed_is_measured() {
    let dir = folder();
    let limit = [&ASKED[..], &LOCAL, &["--limit", "1"]].concat();
    let output = command(dir.path(), &limit).assert().code(0).get_output().clone();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.contains("billion weights in f32") && told.contains("1 questions about"),
        "{told}"
    );
    let bench = [
        "bench", "caption", "--model", "model", "--frames", "3", "--size", "90", "60", "--new",
        "4", "--runs", "1", "--json",
    ];
    let figures: Value = serde_json::from_str(&run(dir.path(), &bench)).unwrap();
    for name in [
        "frames_per_s",
        "frames_per_s_without_reuse",
        "tower_gflop_per_frame",
        "prefill_tokens_per_s",
        "decode_tokens_per_s",
    ] {
        assert!(figures[name].as_f64().unwrap() > 0.0, "{name} in {figures}");
    }
    assert_eq!(figures["tokens_per_frame"], 6.0);
}
