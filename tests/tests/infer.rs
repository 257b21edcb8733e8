//! `embodied-r infer`, as its users run it, on questions that are not perceived yet.

mod tiny_model;

use std::fs;
use std::path::Path;
use std::process::Command;

use assert_cmd::assert::OutputAssertExt as _;
use embodied_r_tests::binary;
use serde_json::{Value, json};

fn embodied_r(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.current_dir(dir).args(arguments);
    command
}

/// A model, rooms, and two questions: one that begins with `<video>` and one told in words.
fn inputs(dir: &Path) {
    tiny_model::write(&dir.join("model"));
    let categories = "Landmark Position";
    let rooms = ["sim", "rooms", "--out", "rooms", "--rooms", "1", "--categories", categories];
    embodied_r(dir, &rooms).assert().code(0);
    let preprocess = ["preprocess", "--input", "rooms", "--output", "dataset"];
    embodied_r(dir, &preprocess).assert().code(0);
    let mut asked = ["train", "val", "test"]
        .into_iter()
        .flat_map(|split| read(&dir.join(format!("dataset/complete/{split}_data.json"))));
    let mut video = asked.next().unwrap();
    video["question"] = format!("<video>\n{}", video["question"].as_str().unwrap()).into();
    video["note"] = json!({"mine": [1, 2]});
    let words = json!({"Question_id": 7, "question": "Frame 0: Observe: lamp left 30\nWhere?"});
    fs::write(dir.join("asked.json"), json!([video, words]).to_string()).unwrap();
}

fn read(file: &Path) -> Vec<Value> {
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

const INFER: [&str; 9] = [
    "infer",
    "--model",
    "model",
    "--input",
    "asked.json",
    "--output",
    "answers.json",
    "--max-new-tokens",
    "4",
];

#[test]
fn videos_are_perceived_on_the_way_and_other_fields_pass_through() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    embodied_r(dir.path(), &INFER).args(["--scenes", "rooms/scenes"]).assert().code(0);
    let (asked, answers) =
        (read(&dir.path().join("asked.json")), read(&dir.path().join("answers.json")));
    assert_eq!(answers.len(), 2);
    let question = |of: &Value| of["question"].as_str().unwrap().to_owned();
    let told = question(&answers[0]);
    let wanted = question(&asked[0]).replace("<video>\n", "");
    assert!(told.contains("Frame 0:") && told.contains(&wanted), "{told}");
    assert_eq!(answers[0]["note"], asked[0]["note"]);
    assert_eq!(question(&answers[1]), question(&asked[1]));
    assert!(answers.iter().all(|answer| answer["content"].is_string()), "{answers:?}");
    assert!(dir.path().join("answers.json.perceived/prompts/questions.captions.jsonl").is_file());
}

#[test]
fn without_a_captioner_nothing_is_begun() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    let refused = embodied_r(dir.path(), &INFER).assert().code(2);
    let told = String::from_utf8(refused.get_output().stderr.clone()).unwrap();
    assert!(told.contains("`--base-url URL` or `--scenes DIR`"), "{told}");
    let left = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(left.into_iter().all(|name| !name.to_string_lossy().starts_with("answers")));
}
