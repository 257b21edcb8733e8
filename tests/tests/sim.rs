//! `embodied-r sim`.

use std::path::Path;

use assert_cmd::Command;
use embodied_r_data::{Benchmark, urban, vsi};
use embodied_r_tests::binary;

fn embodied_r() -> Command {
    Command::new(binary())
}

fn rooms(out: &Path, arguments: &[&str]) -> assert_cmd::assert::Assert {
    embodied_r().args(["sim", "rooms", "--output"]).arg(out).args(arguments).assert()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn rooms_of_both_benchmarks_are_generated_and_preprocess_reads_them() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("dataset");
    let arguments = [
        "--rooms",
        "4",
        "--seed",
        "3",
        "--categories",
        "obj_appearance_order,Landmark Position,Action Generation",
    ];
    let done = rooms(&out, &arguments).success();
    let stdout = text(&done.get_output().stdout);
    assert!(stdout.contains("Landmark Position               2 questions"), "{stdout}");

    assert_eq!(vsi::read_parquet(&Benchmark::Vsi.annotations(&out)).unwrap().len(), 2);
    assert_eq!(urban::read_parquet(&Benchmark::Urban.annotations(&out)).unwrap().len(), 4);

    embodied_r()
        .args(["preprocess", "--data"])
        .arg(&out)
        .arg("--output")
        .arg(&out)
        .assert()
        .success();
    let mut videos: Vec<_> = std::fs::read_dir(out.join("complete/videos"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    videos.sort();
    assert_eq!(videos, ["Room_1_0.mp4", "Room_3_0.mp4", "room_00000.mp4", "room_00002.mp4"]);
    for video in videos {
        assert!(out.join("scenes").join(video.replace(".mp4", ".json")).exists());
    }
}

#[test]
fn rooms_of_different_seeds_are_not_mixed() {
    let folder = tempfile::tempdir().unwrap();
    let few = ["--rooms", "1", "--categories", "Landmark Position", "--seed"];
    rooms(folder.path(), &[&few[..], &["1"]].concat()).success();
    let refused = rooms(folder.path(), &[&few[..], &["2"]].concat()).failure().code(1);
    let stderr = text(&refused.get_output().stderr);
    assert!(
        stderr.contains("contains rooms generated with different settings")
            && stderr.contains("hint:"),
        "{stderr}"
    );
}

#[test]
fn an_unknown_category_is_wrong_usage() {
    let folder = tempfile::tempdir().unwrap();
    let refused = rooms(folder.path(), &["--categories", "Landmark"]).failure().code(2);
    let stderr = text(&refused.get_output().stderr);
    assert!(stderr.contains("`Landmark`") && stderr.contains("Landmark Position"), "{stderr}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn zero_rooms_are_wrong_usage() {
    let folder = tempfile::tempdir().unwrap();
    rooms(folder.path(), &["--rooms", "0"]).failure().code(2);
}

#[test]
fn the_corpus_is_json_lines_and_depends_only_on_the_seed() {
    let corpus = |seed: &str| {
        let arguments = ["sim", "corpus", "--documents", "8", "--seed", seed];
        text(&embodied_r().args(arguments).assert().success().get_output().stdout)
    };
    let lines = corpus("1");
    assert_eq!(lines.lines().count(), 8);
    assert!(lines.lines().any(|line| line.contains("\"system\"")), "{lines}");
    for (index, line) in lines.lines().enumerate() {
        let document: serde_json::Value = serde_json::from_str(line).unwrap();
        let expected = embodied_r_sim::corpus::chat_document(1, index as u64);
        assert_eq!(document["prompt"], expected.context);
        assert_eq!(document["completion"], expected.statements);
        assert_eq!(document["system"].as_str(), expected.system);
    }
    assert_eq!(corpus("1"), lines);
    assert_ne!(corpus("2"), lines);
}

#[test]
fn a_corpus_can_be_written_to_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("corpus.jsonl");
    embodied_r()
        .args(["sim", "corpus", "--documents", "20", "--output"])
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
        let mut command = embodied_r();
        command.args(["sim", "pretrain"]).args(short).args(more).arg("--output").arg(out);
        command.assert()
    };
    pretrain(&first, &shape).success();
    pretrain(&second, &["--seed", "1", "--from", first.to_str().unwrap()]).success();

    let read = |path: &Path| std::fs::read(path).unwrap();
    assert_eq!(read(&first.join("tokenizer.json")), read(&second.join("tokenizer.json")));
    assert_ne!(read(&first.join("model.safetensors")), read(&second.join("model.safetensors")));
    let runs: Vec<serde_json::Value> =
        serde_json::from_slice(&read(&second.join("pretrain.json"))).unwrap();
    let commands: Vec<_> = runs.iter().map(|run| run["command"].as_str().unwrap()).collect();
    assert_eq!(commands.len(), 2);
    assert!(commands[0].contains("--hidden-size 32") && commands[0].contains("--seed 0"));
    assert!(commands[1].contains("--from DIR") && commands[1].contains("--seed 1"));

    let missing = folder.path().join("none");
    let refused = pretrain(&second, &["--from", missing.to_str().unwrap()]).failure();
    let stderr = text(&refused.get_output().stderr);
    assert!(stderr.contains("none"), "{stderr}");
}

#[test]
fn views_are_questions_that_a_vision_language_model_trains_on() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("views");
    let views = |arguments: &[&str]| {
        embodied_r().args(["sim", "views", "--output"]).arg(&out).args(arguments).assert()
    };
    let refused = views(&["--categories", "Counterfactual"]).code(2);
    let stderr = text(&refused.get_output().stderr);
    assert!(
        stderr.contains("a few frames do not answer questions of `Counterfactual`"),
        "{stderr}"
    );
    let refused = views(&["--train", "0", "--val", "0", "--test", "0"]).code(2);
    let stderr = text(&refused.get_output().stderr);
    assert!(stderr.contains("`questions`"), "{stderr}");

    views(&["--train", "6", "--val", "3", "--test", "3", "--seed", "5"]).success();
    assert_eq!(std::fs::read_dir(out.join("frames")).unwrap().count(), 4 * 12);
    let conversations = out.join("conversations.jsonl");
    embodied_r()
        .args(["sim", "conversations", "--questions", "3", "--judge-examples", "1", "--data"])
        .arg(out.join("train_data.json"))
        .arg("--output")
        .arg(&conversations)
        .assert()
        .success();
    let lines: Vec<serde_json::Value> = std::fs::read_to_string(&conversations)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 4);
    for line in &lines[..3] {
        assert_eq!(line["images"].as_array().unwrap().len(), 4);
        let user = line["messages"][1]["content"].as_str().unwrap();
        assert_eq!(user.matches("Observe: <image>").count(), 4);
    }
    assert!(lines[3].get("images").is_none());
}

#[test]
fn a_text_model_learns_to_see_and_is_saved_as_a_vision_language_model() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("model");
    let pretrain = |arguments: &[&str]| {
        let mut command = embodied_r();
        command.args(["sim", "pretrain", "--vision", "--output"]).arg(&out).args(arguments);
        command.assert()
    };
    for wrong in [["--steps", "5"], ["--hidden-size", "64"]] {
        let refused = pretrain(&wrong).code(2);
        let stderr = text(&refused.get_output().stderr);
        assert!(stderr.contains("cannot be used with"), "{stderr}");
    }
    let few =
        ["--detection-steps", "3", "--images-per-step", "4", "--vision-steps", "2", "--rooms", "8"];
    let done = pretrain(&few).success();
    let stdout = text(&done.get_output().stdout);
    assert!(stdout.contains("2.60 M parameters"), "{stdout}");
    let record: serde_json::Value =
        serde_json::from_slice(&std::fs::read(out.join("pretrain.json")).unwrap()).unwrap();
    let last = record.as_array().unwrap().last().unwrap();
    assert_eq!((&last["detection_steps"], &last["steps"]), (&3.into(), &2.into()));
    let command = last["command"].as_str().unwrap();
    assert!(command.contains("--rooms 8") && command.contains("--vision-steps 2"), "{command}");

    // Training continues from its result.
    let more = folder.path().join("more");
    let mut command = embodied_r();
    command.args(["sim", "pretrain", "--vision", "--detection-steps", "0", "--vision-steps", "3"]);
    command
        .args(["--tokens-per-step", "256", "--rooms", "4", "--seed", "1", "--from"])
        .arg(&out)
        .arg("--output")
        .arg(&more);
    command.assert().success();
    let weights = |model: &Path| std::fs::read(model.join("model.safetensors")).unwrap();
    assert!(weights(&more) != weights(&out), "the weights are those before");
    let files: Vec<_> =
        std::fs::read_dir(&more).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert_eq!(files.len(), 7, "{files:?}");

    // The vision encoder, the decoder and the placeholders work together.
    let views = folder.path().join("views");
    embodied_r()
        .args(["sim", "views", "--train", "0", "--val", "0", "--test", "2", "--output"])
        .arg(&views)
        .assert()
        .success();
    let answers = folder.path().join("answers.json");
    embodied_r()
        .args(["infer", "--direct", "--max-new-tokens", "4", "--model"])
        .arg(&out)
        .arg("--data")
        .arg(views.join("test_data.json"))
        .arg("--output")
        .arg(&answers)
        .assert()
        .success();
    let answers: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&answers).unwrap()).unwrap();
    assert_eq!(answers.as_array().unwrap().len(), 2);
}

#[test]
fn an_interrupted_run_goes_on_after_the_stages_that_it_has_done() {
    let folder = tempfile::tempdir().unwrap();
    let pretrain = |out: &str, steps: &str| {
        let mut command = embodied_r();
        command.args(["sim", "pretrain", "--vision", "--detection-steps", "3", "--rooms", "8"]);
        command.args(["--images-per-step", "4", "--vision-steps", steps, "--output"]);
        command.arg(folder.path().join(out)).assert()
    };
    let path = |file: &str| folder.path().join(file);
    let read = |file: &str| std::fs::read(path(file)).unwrap();
    pretrain("whole", "2").success();
    assert!(!path("whole/before-frames").exists());

    // Nothing can be saved at the beginning of the last stage.
    std::fs::create_dir_all(path("model/model.safetensors")).unwrap();
    let failed = pretrain("model", "2").failure();
    let stderr = text(&failed.get_output().stderr);
    assert!(stderr.contains("model.safetensors"), "{stderr}");
    let other = pretrain("model", "3").failure();
    let stderr = text(&other.get_output().stderr);
    assert!(stderr.contains("another command: `embodied-r sim pretrain --vision"), "{stderr}");

    // What it says of the encoder shows whether detection is repeated.
    let stages = path("model/before-frames/stages.json");
    let mut done: serde_json::Value =
        serde_json::from_slice(&read("model/before-frames/stages.json")).unwrap();
    done["found"] = 0.125.into();
    std::fs::write(stages, done.to_string()).unwrap();
    std::fs::remove_dir_all(path("model/model.safetensors")).unwrap();
    let went_on = pretrain("model", "2").success();
    let stdout = text(&went_on.get_output().stdout);
    assert!(stdout.contains("going on with the unfinished run"), "{stdout}");
    assert!(stdout.contains("the encoder found 12.5 % of objects"), "{stdout}");
    assert!(!path("model/before-frames").exists());
    assert!(read("model/model.safetensors") == read("whole/model.safetensors"), "weights differ");
}
