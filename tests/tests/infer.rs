//! `embodied-r infer` on questions whose videos are not captioned yet.

use std::fs;
use std::path::Path;
use std::process::Command;

use assert_cmd::assert::OutputAssertExt as _;
use embodied_r_tests::{binary, stderr_of, tiny_model};
use serde_json::{Value, json};

fn embodied_r(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.current_dir(dir).args(arguments);
    command
}

/// A model, rooms, and two questions: one that starts with `<video>`, and one with its captions.
fn inputs(dir: &Path) {
    tiny_model::write(&dir.join("model"));
    let categories = "Landmark Position";
    let rooms = ["sim", "rooms", "--output", "rooms", "--rooms", "1", "--categories", categories];
    embodied_r(dir, &rooms).assert().code(0);
    let preprocess = ["preprocess", "--data", "rooms", "--output", "dataset"];
    embodied_r(dir, &preprocess).assert().code(0);
    let mut records = ["train", "val", "test"]
        .into_iter()
        .flat_map(|split| read(&dir.join(format!("dataset/complete/{split}_data.json"))));
    let mut with_video = records.next().unwrap();
    with_video["question"] =
        format!("<video>\n{}", with_video["question"].as_str().unwrap()).into();
    with_video["note"] = json!({"mine": [1, 2]});
    let with_captions =
        json!({"Question_id": 7, "question": "Frame 0: Observe: lamp left 30\nWhere?"});
    fs::write(dir.join("test.json"), json!([with_video, with_captions]).to_string()).unwrap();
}

fn read(file: &Path) -> Vec<Value> {
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

const INFER: [&str; 9] = [
    "infer",
    "--model",
    "model",
    "--data",
    "test.json",
    "--output",
    "answers.json",
    "--max-new-tokens",
    "4",
];

#[test]
fn videos_are_captioned_on_the_fly_and_other_fields_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    embodied_r(dir.path(), &INFER).args(["--scenes", "rooms/scenes"]).assert().code(0);
    let (questions, answers) =
        (read(&dir.path().join("test.json")), read(&dir.path().join("answers.json")));
    assert_eq!(answers.len(), 2);
    let question = |record: &Value| record["question"].as_str().unwrap().to_owned();
    let prompt = question(&answers[0]);
    let expected = question(&questions[0]).replace("<video>\n", "");
    assert!(prompt.contains("Frame 0:") && prompt.contains(&expected), "{prompt}");
    assert_eq!(answers[0]["note"], questions[0]["note"]);
    assert_eq!(question(&answers[1]), question(&questions[1]));
    assert!(answers.iter().all(|answer| answer["content"].is_string()), "{answers:?}");
    assert!(dir.path().join("answers.json.perceived/prompts/questions.captions.jsonl").is_file());
}

#[test]
fn without_a_captioner_no_work_starts() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    let stderr = stderr_of(&mut embodied_r(dir.path(), &INFER), 2);
    assert!(stderr.contains("`--base-url URL` or `--scenes DIR`"), "{stderr}");
    let entries = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(entries.into_iter().all(|name| !name.to_string_lossy().starts_with("answers")));
}
