//! `robot questions`: from LeRobot data sets to question files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use embodied_r_lerobot::{
    Camera, Column, VectorFeature, Version, VideoCodec, Writer, WriterOptions,
};
use embodied_r_tests::{VisionModel, binary, stderr, stdout, stdout_of};
use image::{Rgb, RgbImage};
use serde_json::{Value, json};

const TASKS: [&str; 2] = ["pick up the cup", "push the button"];

/// Ways of 6 to 9 frames between five stops of 3 frames, the third and the fourth of which change the gripper.
fn positions(episode: usize) -> Vec<([f32; 3], f32)> {
    let spread = |salt: usize| ((episode * 37 + salt * 61) % 100) as f32 / 100.0;
    let object = [0.05 + 0.4 * spread(1), -0.3 + 0.6 * spread(2), 0.8];
    let above = [object[0], object[1], 0.92 + 0.1 * spread(3)];
    let goal = [0.1 + 0.3 * spread(4), -0.3 + 0.6 * spread(5), 0.95];
    let home = [0.28, 0.0, 1.2 + 0.05 * spread(6)];
    let mut rows = vec![(home, 1.0)];
    for (to, steps, width) in [(above, 9, 1.0), (object, 6, 0.0), (goal, 8, 1.0), (home, 7, 1.0)] {
        let (from, open) = rows[rows.len() - 1];
        for step in 1..=steps {
            let share = step as f32 / steps as f32;
            rows.push(([0, 1, 2].map(|axis| from[axis] + share * (to[axis] - from[axis])), open));
        }
        rows.extend(std::iter::repeat_n((to, open), 1));
        rows.extend(std::iter::repeat_n((to, width), 2));
    }
    rows
}

/// A gray frame whose halves have the levels of its episode and its number.
fn frame(episode: usize, frame: usize) -> RgbImage {
    let level = |number: usize| 40 + 4 * (number as u8 % 48);
    let (left, right) = (level(episode), level(frame));
    RgbImage::from_fn(64, 64, |x, _| Rgb([if x < 32 { left } else { right }; 3]))
}

/// Writes a data set of `episodes` episodes that take turns with the tasks.
fn write_demos(dir: &Path, version: Version, episodes: usize) {
    let names = ["x", "y", "z", "gripper"].map(str::to_owned).to_vec();
    let options = WriterOptions {
        version,
        fps: 10,
        robot_type: "franka".to_owned(),
        features: vec![VectorFeature { key: "observation.state".to_owned(), names }],
        camera: Camera { key: "observation.images.front".to_owned(), width: 64, height: 64 },
        codec: VideoCodec::H264,
    };
    let mut writer = Writer::create(dir, options).unwrap();
    for episode in 0..episodes {
        let rows = positions(episode);
        let frames: Vec<RgbImage> = (0..rows.len()).map(|index| frame(episode, index)).collect();
        let row = |([x, y, z], width): &([f32; 3], f32)| [*x, *y, *z, *width].map(f64::from);
        let values = rows.iter().flat_map(row).collect();
        let state = Column { width: 4, values };
        let columns = BTreeMap::from([("observation.state".to_owned(), state)]);
        writer.episode(TASKS[episode % 2], &columns, frames.into_iter()).unwrap();
    }
    writer.finish().unwrap();
}

fn questions(dir: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.current_dir(dir).args(["robot", "questions", "--demos", "demos", "--output", "q"]);
    command.args(words);
    command
}

fn run(dir: &Path, words: &[&str]) -> Output {
    questions(dir, words).output().unwrap()
}

fn workspace(episodes: usize) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    write_demos(&dir.path().join("demos"), Version::V30, episodes);
    dir
}

fn read(path: &Path) -> Vec<Value> {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// All files below a folder with their bytes.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![dir.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
                found.insert(name, fs::read(path).unwrap());
            }
        }
    }
    found
}

/// The level of half of an image, `0` or `1`.
fn level(image: &RgbImage, half: u32) -> i32 {
    i32::from(image.get_pixel(16 + 32 * half, 32).0[0])
}

#[test]
fn both_versions_give_the_same_questions_with_the_images_of_their_frames() {
    let dir = workspace(24);
    let output = stdout_of(&mut questions(dir.path(), &[]));
    assert!(output.starts_with("split      waypoint     state  movement\ntrain"), "{output}");
    let whole = files(&dir.path().join("q"));
    let mut of_kind: BTreeMap<String, usize> = BTreeMap::new();
    let mut episodes: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    for split in ["train", "val", "test"] {
        for record in read(&dir.path().join(format!("q/{split}.json"))) {
            *of_kind.entry(record["kind"].as_str().unwrap().to_owned()).or_default() += 1;
            let (episode, index) = (
                record["episode_index"].as_u64().unwrap(),
                record["frame_index"].as_u64().unwrap(),
            );
            episodes.entry(split).or_default().insert(episode);
            let path = record["images"][0].as_str().unwrap();
            let shown = image::open(dir.path().join("q").join(path)).unwrap().to_rgb8();
            let expected = frame(episode as usize, index as usize);
            for half in [0, 1] {
                let off = level(&shown, half) - level(&expected, half);
                assert!(off.abs() <= 2, "episode {episode}, frame {index}: {off}");
            }
        }
    }
    assert!(of_kind["waypoint"] >= 60 && of_kind["state"] >= 60, "{of_kind:?}");
    assert_eq!(
        (episodes["train"].len(), episodes["val"].len(), episodes["test"].len()),
        (21, 1, 2)
    );
    let lines = String::from_utf8(whole["episodes.jsonl"].clone()).unwrap();
    let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    // A stop near a change of the gripper is none.
    assert_eq!(first["frames"], 43);
    let found: Vec<(u64, &str)> = first["key_points"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["frame"].as_u64().unwrap(), it["cause"].as_str().unwrap()))
        .collect();
    assert_eq!(found, [(10, "stop"), (20, "gripper"), (31, "gripper"), (40, "stop"), (42, "end")]);

    fs::remove_dir_all(dir.path().join("demos")).unwrap();
    fs::remove_dir_all(dir.path().join("q")).unwrap();
    write_demos(&dir.path().join("demos"), Version::V21, 24);
    let mut single = questions(dir.path(), &[]);
    stdout_of(single.env("RAYON_NUM_THREADS", "1"));
    let other = files(&dir.path().join("q"));
    assert_eq!(whole.keys().collect::<Vec<_>>(), other.keys().collect::<Vec<_>>());
    for (name, bytes) in whole.iter().filter(|(name, _)| !name.ends_with(".png")) {
        assert!(other[name] == *bytes, "{name}");
    }
}

#[test]
fn the_question_files_are_read_by_the_other_commands() {
    let dir = workspace(24);
    VisionModel::Nested.write(&dir.path().join("model"));
    stdout_of(&mut questions(dir.path(), &["--prompt", "compact", "--decimals", "2"]));
    let command = |words: &[&str]| {
        let mut command = Command::new(binary());
        command.current_dir(dir.path()).args(words);
        command
    };
    let infer = ["infer", "--direct", "--model", "model", "--max-new-tokens", "4", "--limit", "2"];
    let answer = |data: &str| {
        stdout_of(&mut command(&[&infer[..], &["--data", data, "--output", "out.json"]].concat()))
    };
    assert!(answer("q/train.json").contains("wrote 2 answers"));
    let records = read(&dir.path().join("out.json"));
    assert_eq!(records[0]["kind"], "waypoint");
    assert!(records[0]["content"].is_string());
    // EasyR1's table has the same prompts.
    fs::remove_file(dir.path().join("out.json")).unwrap();
    answer("q/train.parquet");
    let same = read(&dir.path().join("out.json"));
    assert_eq!(same[0]["content"], records[0]["content"]);
    assert_eq!(same[0]["answer"], records[0]["answer"]);
    // All right, in the forms that the prompts suggest.
    let mut answered = read(&dir.path().join("q/test.json"));
    for (index, record) in answered.iter_mut().enumerate() {
        let letter = record["answer"].as_str().unwrap();
        let answer = [format!("[[{letter}]]"), format!("({letter})"), letter.to_owned()];
        record["content"] =
            json!(format!("<think> ... </think> <answer> {} </answer>", answer[index % 3]));
    }
    fs::write(dir.path().join("answered.json"), json!(answered).to_string()).unwrap();
    let report = stdout_of(&mut command(&["eval", "--predictions", "answered.json", "--json"]));
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!((&report["protocol"], &report["overall"]), (&json!("robot-r1"), &json!(100.0)));
    assert_eq!(report["n"], answered.len());
    for (command_name, data) in
        [("train", "q/train.json"), ("sft", "q/sft_direct.json"), ("sft", "q/sft_reasoned.json")]
    {
        let words =
            [command_name, "--model", "model", "--data", data, "--output", "run", "--dry-run"];
        stdout_of(&mut command(&words));
    }
    let example = &read(&dir.path().join("q/sft_reasoned.json"))[0];
    let reply = example["messages"][1]["content"].as_str().unwrap();
    assert!(reply.starts_with("<think>Move: ") && reply.contains(". Next waypoint: 0."), "{reply}");
}

#[test]
fn plans_beside_a_data_set_are_in_the_worked_examples() {
    let dir = workspace(24);
    let lines: Vec<String> = (0..24)
        .map(|episode| {
            json!({"episode_index": episode, "plan": ["Reach.", "Grasp."],
                "subtasks": [{"frame_index": 0, "text": "Reach."}]})
            .to_string()
        })
        .collect();
    fs::write(dir.path().join("demos/annotations.jsonl"), lines.join("\n")).unwrap();
    stdout_of(&mut questions(dir.path(), &[]));
    let example = &read(&dir.path().join("q/sft_reasoned.json"))[0];
    let reply = example["messages"][1]["content"].as_str().unwrap();
    assert!(
        reply.starts_with("<think> Plan: 1. Reach. 2. Grasp. Subtask: Reach. Move: "),
        "{reply}"
    );
}

#[test]
fn key_points_are_drawn_on_request() {
    let dir = workspace(12);
    stdout_of(&mut questions(dir.path(), &["--show-keypoints=2"]));
    let drawn = files(&dir.path().join("q/keypoints"));
    let names: Vec<&str> = drawn.keys().map(String::as_str).collect();
    let expected: Vec<String> = (0..4)
        .flat_map(|episode| ["png", "svg"].map(|kind| format!("episode_{episode:06}.{kind}")))
        .collect();
    assert_eq!(names, expected);
    let svg = std::str::from_utf8(&drawn["episode_000000.svg"]).unwrap();
    assert!(svg.contains(">20 gripper</text>"), "{svg}");
    let sheet = image::load_from_memory(&drawn["episode_000000.png"]).unwrap();
    assert!(sheet.width() > 1000, "six frames in a row");
}

#[test]
fn held_out_tasks_have_a_file_of_their_own() {
    let dir = workspace(24);
    stdout_of(&mut questions(dir.path(), &["--held-out-tasks", "Push the button"]));
    let tasks = |file: &str| -> BTreeSet<String> {
        let records = read(&dir.path().join("q").join(file));
        records.iter().map(|it| it["task"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(tasks("held_out.json"), BTreeSet::from([TASKS[1].to_owned()]));
    assert_eq!(tasks("train.json"), BTreeSet::from([TASKS[0].to_owned()]));
    let output = run(dir.path(), &["--held-out-tasks", "fly"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn the_papers_movement_labels_name_each_axis_that_changes() {
    let dir = workspace(24);
    let moved = |record: &Value| {
        let (from, to) = (&record["state"], &record["target"]);
        (0..3).filter(|&axis| from[axis] != to[axis]).count()
    };
    let named = |record: &Value| record["movement"].as_str().unwrap_or("").matches("move").count();
    stdout_of(&mut questions(dir.path(), &["--movement-labels", "paper"]));
    for record in read(&dir.path().join("q/train.json")) {
        assert!(named(&record) >= moved(&record), "{record}");
    }
    fs::remove_dir_all(dir.path().join("q")).unwrap();
    stdout_of(&mut questions(dir.path(), &["--movement-epsilon", "0.05"]));
    let records = read(&dir.path().join("q/train.json"));
    assert!(records.iter().any(|record| named(record) < moved(record)));
}

#[test]
fn balanced_kinds_are_as_many_of_each_in_training() {
    let dir = tempfile::tempdir().unwrap();
    // The episodes of `workspace` move so much alike that no movement is an option beside others.
    let mut arm = Command::new(binary());
    arm.args(["sim", "arm", "--tasks", "push_button,pick_up_cup", "--episodes", "12"]);
    arm.args(["--image-size", "64x48", "--bench-frames", "0", "--output"]);
    stdout_of(arm.arg(dir.path().join("demos")));
    let output = stdout_of(&mut questions(dir.path(), &["--balance-kinds"]));
    assert!(output.contains("questions are left out: `--balance-kinds`"), "{output}");
    let mut of_kind: BTreeMap<String, usize> = BTreeMap::new();
    for record in read(&dir.path().join("q/train.json")) {
        *of_kind.entry(record["kind"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    let counts: Vec<usize> = of_kind.values().copied().collect();
    assert!(counts.len() == 3 && counts[0] >= 4, "{of_kind:?}");
    assert_eq!(counts, [counts[0]; 3]);
}

#[test]
fn images_of_another_size_than_the_shape_are_used_with_a_warning() {
    let dir = workspace(12);
    let path = dir.path().join("demos/meta/info.json");
    let mut info: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    info["features"]["observation.images.front"]["shape"] = json!([32, 64, 3]);
    fs::write(&path, info.to_string()).unwrap();
    let output = run(dir.path(), &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let warning = "are 64 × 64 pixels, but 64 × 32 by `shape` in `meta/info.json`";
    assert!(stderr(&output).contains(warning), "{}", stderr(&output));
}

#[test]
fn positions_that_are_no_metres_give_a_warning() {
    let dir = workspace(12);
    let scaled = run(dir.path(), &["--position-scale", "1000"]);
    let error = stderr(&scaled);
    assert!(error.contains("m from the origin: if they are not in metres"), "{error}");
    let _ = fs::remove_dir_all(dir.path().join("q"));
    let as_recorded = run(dir.path(), &[]);
    assert!(!stderr(&as_recorded).contains("origin"), "{}", stderr(&as_recorded));
}

#[test]
fn open_ended_questions_ask_for_positions() {
    let dir = workspace(12);
    stdout_of(&mut questions(dir.path(), &["--open-ended"]));
    let records = read(&dir.path().join("q/train.json"));
    for record in &records {
        let answer: Vec<f64> = serde_json::from_str(record["answer"].as_str().unwrap()).unwrap();
        let field = if record["kind"] == "state" { "state" } else { "target" };
        let expected: Vec<f64> = serde_json::from_value(record[field].clone()).unwrap();
        assert!(answer.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= 0.0005001), "{record}");
        assert!(record.get("options").is_none());
    }
    assert!(records.iter().all(|record| record["kind"] != "movement"));
}

#[test]
fn wrong_options_are_refused_before_anything_is_written() {
    let dir = workspace(6);
    for (words, expected) in [
        (&["--camera", "wrist"][..], "`--camera` names no camera: `wrist`"),
        (&["--state-key", "state"], "`--state-key` names no feature of numbers: `state`"),
        (&["--position-dims", "0,1,9"], "three different indices below 4"),
        (&["--gripper-dim", "4"], "must be an index below 4"),
        (&["--gripper-key", "g"], "`--gripper-key` names no feature of numbers or booleans: `g`"),
        (
            &["--gripper-key", "observation.state", "--gripper-dim", "none"],
            "`--gripper-key` names a feature, and `--gripper-dim none` says that there is none",
        ),
        (&["--position-scale", "0"], "`--position-scale` must be a number above 0"),
        (
            &["--movement-labels", "paper", "--movement-epsilon", "0.01"],
            "`--movement-epsilon` is of `--movement-labels epsilon`",
        ),
        (&["--velocity-key", "v"], "`--velocity-key` names no feature of numbers: `v`"),
        (&["--min-distance", "-1"], "`--min-distance` must be a length of 0 m or more"),
        (&["--decimals", "9"], "`--decimals` must be from 1 to 6"),
        (&["--split", "50,50"], "whole numbers of 1 or more that sum to 100"),
        (&["--split", "90,10,10"], "whole numbers of 1 or more that sum to 100"),
        (&["--open-ended", "--distractors", "box"], "cannot be used with"),
        (&["--still-epsilon", "0.1", "--velocity-key", "v"], "cannot be used with"),
        (&["--robot", "nothing.toml"], "nothing.toml"),
    ] {
        let output = run(dir.path(), words);
        assert_ne!(output.status.code(), Some(0), "{words:?}: {}", stdout(&output));
        assert!(stderr(&output).contains(expected), "{words:?}: {}", stderr(&output));
        assert!(!dir.path().join("q").exists());
    }
    fs::create_dir(dir.path().join("q")).unwrap();
    fs::write(dir.path().join("q/mine.txt"), "text").unwrap();
    let output = run(dir.path(), &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("`q` is not empty"), "{}", stderr(&output));
}

#[test]
fn a_broken_video_leaves_nothing_behind() {
    let dir = workspace(12);
    let video = files(&dir.path().join("demos"));
    let video = video.keys().find(|name| name.ends_with(".mp4")).unwrap();
    let path = dir.path().join("demos").join(video);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 3]).unwrap();
    let mut command = questions(dir.path(), &["--min-distance", "0.03"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
    assert!(stderr(&output).contains(".mp4"), "{}", stderr(&output));
    let left: Vec<_> =
        fs::read_dir(dir.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert_eq!(left, ["demos"], "{left:?}");
}
