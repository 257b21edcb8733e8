//! `perceive --backend local`: an in-process vision-language model, compared with the same model behind an API.

use std::fs;
use std::path::Path;
use std::process::Command;

use assert_cmd::assert::OutputAssertExt as _;
use embodied_r_tests::{VisionModel, binary, tiny_model};
use serde_json::Value;

use crate::serve::client::Server;

/// Rooms with their questions in `data`, and a small random vision-language model in `model`.
fn workspace() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), &["sim", "rooms", "--output", "raw", "--rooms", "6", "--seed", "5"]);
    run(dir.path(), &["preprocess", "--data", "raw", "--output", "data"]);
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

/// Few short captions of the test questions.
const PERCEIVE: [&str; 11] = [
    "perceive",
    "--data",
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

fn perceive(dir: &Path, output: &str, arguments: &[&str]) -> String {
    run(dir, &[&PERCEIVE[..], &["--output", output], arguments].concat())
}

const LOCAL: [&str; 4] = ["--backend", "local", "--captioner", "model"];

/// The questions with captions that were written.
fn prompts(dir: &Path, output: &str) -> Vec<String> {
    let text = fs::read(dir.join(output).join("test_data.json")).unwrap();
    let questions: Vec<Value> = serde_json::from_slice(&text).unwrap();
    questions.iter().map(|question| question["question"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn captions_of_an_in_process_model_are_those_of_the_same_model_behind_an_api() {
    let dir = workspace();
    let stdout = perceive(dir.path(), "local", &LOCAL);
    let expected = prompts(dir.path(), "local");
    assert!(expected.len() > 2, "{stdout}");
    let again = perceive(dir.path(), "local", &LOCAL);
    assert!(again.contains("0 captioned,"), "{again}");
    // Another output folder with the same cache needs no new responses.
    let cached =
        perceive(dir.path(), "cached", &[&LOCAL[..], &["--cache", "local/cache"]].concat());
    assert!(cached.contains("responses: 0 new"), "{cached}");
    assert_eq!(prompts(dir.path(), "cached"), expected);
    // Few concurrent sequences and a small KV cache give the same captions.
    let tight = ["--max-num-seqs", "2", "--kv-cache-gb", "0.002", "--concurrency", "3"];
    perceive(dir.path(), "tight", &[&LOCAL[..], &tight].concat());
    assert_eq!(prompts(dir.path(), "tight"), expected);

    let server = Server::of(dir.path(), &[], None);
    let url = format!("http://{}/v1", server.address());
    let api = ["--backend", "openai", "--captioner", "tiny", "--base-url", &url];
    perceive(dir.path(), "api", &api);
    assert_eq!(prompts(dir.path(), "api"), expected);
}

#[test]
fn captions_of_gguf_files_are_those_of_the_same_weights_in_a_folder() {
    let dir = workspace();
    for (output, model) in [("flat", VisionModel::Flat), ("gguf", VisionModel::Gguf)] {
        let name = format!("model-{output}");
        model.write(&dir.path().join(&name));
        perceive(dir.path(), output, &["--backend", "local", "--captioner", &name]);
    }
    assert_eq!(prompts(dir.path(), "gguf"), prompts(dir.path(), "flat"));
}

#[test]
fn captions_per_video_are_shared_by_its_questions() {
    let dir = workspace();
    perceive(dir.path(), "video", &[&LOCAL[..], &["--scope", "video"]].concat());
    let video = |prompt: &String| prompt.split("Question:").next().unwrap().to_owned();
    let mut captions: Vec<String> = prompts(dir.path(), "video").iter().map(video).collect();
    let questions = captions.len();
    captions.dedup();
    assert!(captions.len() < questions, "{questions} questions, {} videos", captions.len());
}

#[test]
fn wrong_usage_is_reported_before_the_model_is_loaded() {
    let dir = workspace();
    let run = |arguments: &[&str]| {
        let output = command(dir.path(), arguments).assert().failure().get_output().clone();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let with = |more: &[&'static str]| [&PERCEIVE[..], more].concat();
    let (code, text) = run(&with(&["--backend", "local"]));
    assert!(code == Some(2) && text.contains("--captioner"), "{text}");
    let (code, text) = run(&with(&["--quantize", "q8_0"]));
    assert!(code == Some(2) && text.contains("`--backend local`"), "{text}");
    let (code, text) = run(&[&with(&LOCAL)[..], &["--base-url", "http://a/v1"]].concat());
    assert!(code == Some(2) && text.contains("`--backend openai`"), "{text}");
    let absent = ["perceive", "--data", "absent.json"];
    let (_, text) = run(&[&absent[..], &LOCAL].concat());
    assert!(text.contains("absent.json") && !text.contains("B parameters"), "{text}");
    tiny_model::write(&dir.path().join("text"));
    let (_, text) = run(&with(&["--backend", "local", "--captioner", "text"]));
    assert!(text.contains("is a text model"), "{text}");
}

#[test]
fn memory_and_work_are_estimated_first_and_speed_is_measured() {
    let dir = workspace();
    let limit = [&PERCEIVE[..], &LOCAL, &["--limit", "1"]].concat();
    let output = command(dir.path(), &limit).assert().code(0).get_output().clone();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains("B parameters in f32") && stderr.contains("1 questions about"),
        "{stderr}"
    );
    let bench = [
        "bench", "caption", "--model", "model", "--frames", "3", "--size", "90", "60", "--new",
        "4", "--runs", "1", "--json",
    ];
    let metrics: Value = serde_json::from_str(&run(dir.path(), &bench)).unwrap();
    for name in [
        "frames_per_s",
        "frames_per_s_without_reuse",
        "tower_gflop_per_frame",
        "prefill_tokens_per_s",
        "decode_tokens_per_s",
    ] {
        assert!(metrics[name].as_f64().unwrap() > 0.0, "{name} in {metrics}");
    }
    assert_eq!(metrics["tokens_per_frame"], 6.0);
}
