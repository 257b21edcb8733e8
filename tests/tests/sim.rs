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
fn commands_of_the_pretraining_binary_name_it() {
    for words in [
        &["sim", "corpus"][..],
        &["sim", "corpus", "--documents", "8", "--seed", "1", "--help"],
        &["sim", "pretrain", "--steps", "4", "--output", "model"],
        &["sim", "pretrain", "--vision", "--world", "arm", "more"],
        &["quickstart", "--from-scratch"],
        &["quickstart", "--robot", "--from-scratch", "--output", "run"],
    ] {
        let folder = tempfile::tempdir().unwrap();
        let refused = embodied_r().current_dir(&folder).args(words).assert().code(2).stdout("");
        let stderr = text(&refused.get_output().stderr);
        assert!(stderr.contains("is in another binary, `embodied-r-pretrain`"), "{stderr}");
        assert!(stderr.contains("hint: build it in a checkout with `cargo build"), "{stderr}");
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "{words:?}");
    }
    let help = embodied_r().args(["sim", "--help"]).assert().success();
    let help = text(&help.get_output().stdout);
    assert!(!help.contains("pretrain") && !help.contains("corpus"), "{help}");
}
