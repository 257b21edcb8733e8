//! `embodied-r-pretrain`.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use assert_cmd::assert::Assert;
use embodied_r_inference::{ImageChat, VisionEngine, VisionEngineOptions};
use embodied_r_policy::TensorParallel;
use embodied_r_vision::{MultimodalMessage, MultimodalPart};
use image::RgbImage;
use serde_json::Value;

fn embodied_r_pretrain() -> Command {
    Command::new(env!("CARGO_BIN_EXE_embodied-r-pretrain"))
}

/// The bundled text base.
fn text_base() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../cli/base")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn stderr(done: &Assert) -> String {
    text(&done.get_output().stderr)
}

fn weights(model: &Path) -> Vec<u8> {
    std::fs::read(model.join("model.safetensors")).unwrap()
}

/// The runs that made a model.
fn runs(model: &Path) -> Vec<Value> {
    serde_json::from_slice(&std::fs::read(model.join("pretrain.json")).unwrap()).unwrap()
}

#[test]
fn the_corpus_is_json_lines_and_depends_only_on_the_seed() {
    let corpus = |seed: &str| {
        let arguments = ["corpus", "--documents", "8", "--seed", seed];
        text(&embodied_r_pretrain().args(arguments).assert().success().get_output().stdout)
    };
    let lines = corpus("1");
    assert_eq!(lines.lines().count(), 8);
    assert!(lines.lines().any(|line| line.contains("\"system\"")), "{lines}");
    for line in lines.lines() {
        let document: Value = serde_json::from_str(line).unwrap();
        assert!(document["prompt"].is_string() && document["completion"].is_string(), "{line}");
    }
    assert_eq!(corpus("1"), lines);
    assert_ne!(corpus("2"), lines);
}

#[test]
fn a_corpus_can_be_written_to_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("corpus.jsonl");
    embodied_r_pretrain()
        .args(["corpus", "--documents", "20", "--output"])
        .arg(&path)
        .assert()
        .success()
        .stdout("");
    assert_eq!(std::fs::read_to_string(path).unwrap().lines().count(), 20);
}

#[test]
fn pretraining_continues_an_earlier_model_with_its_tokenizer() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    let short = ["--steps", "4", "--lookup-steps", "2", "--tokens-per-step", "256"];
    let shape = ["--hidden-size", "32", "--intermediate-size", "64", "--layers", "1"];
    let pretrain = |out: &Path, more: &[&str]| {
        let mut command = embodied_r_pretrain();
        command.arg("model").args(short).args(more).arg("--output").arg(out);
        command.assert()
    };
    pretrain(&first, &shape).success();
    pretrain(&second, &["--seed", "1", "--from", first.to_str().unwrap()]).success();

    let tokenizer = |model: &Path| std::fs::read(model.join("tokenizer.json")).unwrap();
    assert_eq!(tokenizer(&first), tokenizer(&second));
    assert_ne!(weights(&first), weights(&second));
    let runs = runs(&second);
    let commands: Vec<_> = runs.iter().map(|run| run["command"].as_str().unwrap()).collect();
    assert_eq!(commands.len(), 2);
    assert!(commands[0].starts_with("embodied-r-pretrain model --steps 4 "), "{commands:?}");
    assert!(commands[0].contains("--hidden-size 32") && commands[0].contains("--seed 0"));
    assert!(commands[1].contains("--from DIR") && commands[1].contains("--seed 1"));

    let missing = folder.path().join("none");
    let refused = pretrain(&second, &["--from", missing.to_str().unwrap()]).code(1);
    assert!(stderr(&refused).contains("none"), "{}", stderr(&refused));
}

#[test]
fn wrong_usage_has_exit_code_2() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("model");
    for (wrong, expected) in [
        (&["--vision"][..], "give one with `--from`"),
        (&["--vision", "--steps", "5"], "cannot be used with"),
        (&["--vision", "--hidden-size", "64"], "cannot be used with"),
        (&["--vision", "--world", "arm", "--images-per-step", "0"], "must be at least 1"),
        (&["--rooms", "5"], "--vision"),
        (&["--hidden-size", "30", "--heads", "4"], "hidden_size"),
    ] {
        let mut command = embodied_r_pretrain();
        command.arg("model").args(wrong).arg("--output").arg(&out);
        let refused = command.assert().code(2);
        assert!(stderr(&refused).contains(expected), "{}", stderr(&refused));
    }
}

#[test]
fn a_text_model_learns_to_see_and_is_saved_as_a_vision_language_model() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("model");
    let pretrain = |from: &Path, out: &Path, options: &[&str]| {
        let mut command = embodied_r_pretrain();
        command.args(["model", "--vision", "--from"]).arg(from).arg("--output").arg(out);
        command.args(options).assert()
    };
    let few =
        ["--detection-steps", "3", "--images-per-step", "4", "--vision-steps", "2", "--rooms", "8"];
    let done = pretrain(&text_base(), &out, &few).success();
    let stdout = text(&done.get_output().stdout);
    assert!(stdout.contains("2.60 M parameters"), "{stdout}");
    let runs = runs(&out);
    let last = runs.last().unwrap();
    assert_eq!((&last["detection_steps"], &last["steps"]), (&3.into(), &2.into()));
    let command = last["command"].as_str().unwrap();
    assert!(command.contains("--rooms 8") && command.contains("--vision-steps 2"), "{command}");

    // Training continues from its result.
    let more = folder.path().join("more");
    let few = ["--detection-steps", "0", "--vision-steps", "3", "--rooms", "4", "--seed", "1"];
    pretrain(&out, &more, &[&few[..], &["--tokens-per-step", "256"]].concat()).success();
    assert!(weights(&more) != weights(&out), "the weights are those before");
    let files: Vec<_> =
        std::fs::read_dir(&more).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert_eq!(files.len(), 7, "{files:?}");

    // The vision encoder, the decoder and the placeholders work together.
    let completion = described(&out).unwrap();
    assert!((1..=4).contains(&completion.tokens), "{}", completion.text);
}

/// At most four tokens of a vision-language model about a grey frame.
fn described(model: &Path) -> embodied_r_inference::Result<embodied_r_inference::Completion> {
    let content = vec![MultimodalPart::Image, MultimodalPart::Text { text: "lamp".into() }];
    let chat = ImageChat {
        messages: vec![MultimodalMessage { role: "user".into(), content }],
        images: vec![RgbImage::from_pixel(112, 84, image::Rgb([128; 3]))],
        temperature: Some(1.0),
        max_tokens: 4,
        stream: 7,
    };
    let options =
        VisionEngineOptions { kv_cache_bytes: 64 << 20, ..VisionEngineOptions::default() };
    let engine = VisionEngine::load(model, &options, &TensorParallel::single_rank())?.unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async { engine.completion(engine.prepare(chat).await?.submit()).await })
}

#[test]
fn an_interrupted_run_goes_on_after_the_stages_that_it_has_done() {
    let folder = tempfile::tempdir().unwrap();
    let pretrain = |out: &str, steps: &str| {
        let mut command = embodied_r_pretrain();
        command.args(["model", "--vision", "--detection-steps", "3", "--rooms", "8", "--from"]);
        command.arg(text_base()).args(["--images-per-step", "4", "--vision-steps", steps]);
        command.arg("--output").arg(folder.path().join(out)).assert()
    };
    let path = |file: &str| folder.path().join(file);
    pretrain("whole", "2").success();
    assert!(!path("whole/before-frames").exists());

    // Nothing can be saved at the beginning of the last stage.
    std::fs::create_dir_all(path("model/model.safetensors")).unwrap();
    let failed = pretrain("model", "2").code(1);
    assert!(stderr(&failed).contains("model.safetensors"), "{}", stderr(&failed));
    let other = pretrain("model", "3").code(1);
    let expected = "another command: `embodied-r-pretrain model --vision";
    assert!(stderr(&other).contains(expected), "{}", stderr(&other));

    // What it says of the encoder shows whether detection is repeated.
    let stages = path("model/before-frames/stages.json");
    let mut done: Value = serde_json::from_slice(&std::fs::read(&stages).unwrap()).unwrap();
    done["found"] = 0.125.into();
    std::fs::write(stages, done.to_string()).unwrap();
    std::fs::remove_dir_all(path("model/model.safetensors")).unwrap();
    let went_on = pretrain("model", "2").success();
    let stdout = text(&went_on.get_output().stdout);
    assert!(stdout.contains("going on with the unfinished run"), "{stdout}");
    assert!(stdout.contains("the encoder found 12.5 % of objects"), "{stdout}");
    assert!(!path("model/before-frames").exists());
    assert!(weights(&path("model")) == weights(&path("whole")), "weights differ");
}
