//! `infer` and `eval --direct` on EgoSchema and MVBench, and over folds.

use std::fs;
use std::path::Path;
use std::process::Command;

use embodied_r_tests::{VisionModel, binary, stderr_of, stdout_of, write_clip};
use serde_json::{Value, json};

use crate::images::test_image::test_image;

/// A folder with the model in `model` and two videos in `folder`.
fn workspace(folder: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    VisionModel::Nested.write(&dir.path().join("model"));
    fs::create_dir_all(dir.path().join(folder)).unwrap();
    let codec = "-frames:v 12 -c:v libx264 -preset ultrafast -pix_fmt yuv420p";
    for (source, name) in [("testsrc2", "one.mp4"), ("mandelbrot", "two.mp4")] {
        let path = dir.path().join(folder).join(name);
        write_clip(&format!("-f lavfi -i {source}=s=84x56:r=2 {codec}"), &path);
    }
    dir
}

fn write(path: &Path, value: &Value) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, value.to_string()).unwrap();
}

fn read(path: &Path) -> Vec<Value> {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn run(dir: &Path, command: &str, words: &[&str]) -> Command {
    let mut run = Command::new(binary());
    run.current_dir(dir).args([command, "--direct", "--model", "model", "--max-new-tokens", "6"]);
    run.args(words);
    run
}

/// Asserts that the answers to the benchmark of `words` are those to `questions` about the videos in `folder`.
fn assert_answers(dir: &Path, words: &[&str], questions: &Value, folder: &str) {
    let frames = ["--frames", "uniform=2", "--output", "out.json"];
    stdout_of(run(dir, "infer", words).args(frames));
    let found = read(&dir.join("out.json"));
    write(&dir.join("official.json"), questions);
    let official = ["--data", "official.json", "--video-dir", folder];
    stdout_of(run(dir, "infer", &official).args(frames));
    let expected = read(&dir.join("out.json"));
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        for field in ["content", "question", "answer", "video_id"] {
            assert_eq!(found[field], expected[field], "{field} of {found}");
        }
    }
}

fn report(command: &mut Command) -> Value {
    serde_json::from_str(stdout_of(command).lines().last().unwrap()).unwrap()
}

#[test]
fn egoschema_is_answered_from_its_videos() {
    let dir = workspace("ego/videos");
    let options = ["walks", "reads", "sits", "runs", "cooks"];
    let record = |id: &str| {
        let mut record = json!({"q_uid": id, "question": "What does C do?"});
        for (index, option) in options.iter().enumerate() {
            record[format!("option {index}")] = json!(option);
        }
        record
    };
    let questions = json!([record("one"), record("unanswered"), record("two")]);
    write(&dir.path().join("ego/questions.json"), &questions);
    let text = stderr_of(&mut run(dir.path(), "infer", &["--data", "ego", "--output", "o"]), 1);
    assert!(text.contains("subset_answers.json"), "{text}");
    let file = ["--data", "ego/questions.json", "--output", "o"];
    let text = stderr_of(&mut run(dir.path(), "infer", &file), 1);
    assert!(text.contains("subset_answers.json"), "the reason, not an unknown format: {text}");
    let answers = json!({"one": 4, "two": 0});
    write(&dir.path().join("ego/subset_answers.json"), &answers);
    let text = "What does C do?\n\nChoices:\nA. walks\nB. reads\nC. sits\nD. runs\nE. cooks";
    let official = |id: &str, answer: &str| {
        json!({"Question_id": id, "video_id": format!("{id}.mp4"), "answer": answer,
            "question": format!("Question: {text}")})
    };
    let official = json!([official("one", "E"), official("two", "A")]);
    assert_answers(dir.path(), &["--data", "ego"], &official, "ego/videos");
    let found = report(&mut run(dir.path(), "eval", &["--data", "ego", "--json"]));
    assert_eq!((&found["protocol"], &found["n"]), (&json!("egoschema"), &json!(2)));
    fs::remove_file(dir.path().join("ego/videos/two.mp4")).unwrap();
    let words = ["--data", "ego", "--output", "o"];
    let text = stderr_of(&mut run(dir.path(), "infer", &words), 1);
    assert!(text.contains("record 3") && text.contains("two.mp4"), "{text}");
    let mut skipping = run(dir.path(), "infer", &words);
    let text = stderr_of(skipping.arg("--skip-bad-records"), 0);
    assert!(text.contains("left out 1 bad record"), "{text}");
}

#[test]
fn mvbench_is_answered_from_videos_in_folders_of_their_own() {
    let dir = workspace("mv/video/vlnqa");
    let record = |video: &str| {
        json!({"video": video, "question": "Which move?", "answer": "Stop",
            "candidates": ["Go on", "Turn left", "Stop"]})
    };
    let records = json!([record("vlnqa/one.mp4"), record("vlnqa/two.mp4")]);
    write(&dir.path().join("mv/json/egocentric_navigation.json"), &records);
    let official = |id: u32, name: &str| {
        json!({"Question_id": id, "video_id": name, "answer": "C",
            "question": "Question: Which move?\n\nChoices:\nA. Go on\nB. Turn left\nC. Stop"})
    };
    let official = json!([official(0, "one.mp4"), official(1, "two.mp4")]);
    for folder in ["mv/video", "mv/video/vlnqa"] {
        let words = ["--data", "mv", "--video-dir", folder];
        assert_answers(dir.path(), &words, &official, "mv/video/vlnqa");
    }
    let words = ["--data", "mv", "--video-dir", "mv/video", "--json"];
    let found = report(&mut run(dir.path(), "eval", &words));
    assert_eq!((&found["protocol"], &found["n"]), (&json!("mvbench"), &json!(2)));
    let text = stderr_of(&mut run(dir.path(), "eval", &["--data", "mv"]), 1);
    assert!(text.contains("record 1") && text.contains("--video-dir"), "{text}");
}

#[test]
fn equal_questions_about_different_images_are_in_different_folds() {
    let dir = tempfile::tempdir().unwrap();
    VisionModel::Nested.write(&dir.path().join("model"));
    let fold = |fold: u32, seed: u32| {
        // The same name, so that the pixels decide.
        let folder = dir.path().join(fold.to_string());
        fs::create_dir_all(&folder).unwrap();
        test_image((60, 60), seed).save(folder.join("a.png")).unwrap();
        let record = json!({"problem": "<image>Where?", "answer": "A", "images": ["a.png"],
            "question_category": "Landmark Position"});
        fs::write(folder.join("data.jsonl"), record.to_string()).unwrap();
    };
    let eval =
        || run(dir.path(), "eval", &["--data", "{fold}/data.jsonl", "--folds", "2", "--json"]);
    fold(0, 1);
    fold(1, 2);
    assert_eq!(report(&mut eval())["n"], 2);
    fold(1, 1);
    let text = stderr_of(&mut eval(), 2);
    assert!(text.contains("is in `0/data.jsonl` and in `1/data.jsonl`"), "{text}");
}
