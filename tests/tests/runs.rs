//! `embodied-r runs`: finished, active and broken runs.

use std::path::Path;
use std::process::{Command, Output};

use embodied_r_tests::{binary, stderr, stdout};
use serde_json::{Value, json};

fn runs(folder: &Path, words: &[&str]) -> Output {
    Command::new(binary()).current_dir(folder).arg("runs").args(words).output().unwrap()
}

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

const TRAIN: &str = r#"{"event":"start","steps":8,"done":0}
{"event":"step","step":8,"reward":0.75,"rewards/accuracy/mean":0.5,"step_time":1}
{"event":"eval","step":8,"eval/accuracy":0.625}
{"event":"end","step":8}
"#;

/// A finished run, an active cold start, and a broken run.
fn write_runs(folder: &Path) {
    write(folder, "results/train/done/events.jsonl", TRAIN);
    write(folder, "results/train/done/settings.toml", "model = \"base\"\nnum_generations = 4\n");
    write(folder, "results/train/sets/cold/events.jsonl", "{\"event\":\"start\",\"steps\":90}\n");
    write(folder, "results/train/sets/cold/settings.toml", "train_batch_size = 4\n");
    write(folder, "results/train/torn/settings.toml", "model = \n");
    write(folder, "results/train/notes/readme.txt", "not a run");
}

#[test]
fn runs_are_listed_with_their_state_despite_a_broken_one() {
    let folder = tempfile::tempdir().unwrap();
    write_runs(folder.path());
    let output = runs(folder.path(), &[]);
    assert_eq!(output.status.code(), Some(0));
    let text = stdout(&output);
    let line = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(&format!("results/train/{name} ")));
        let line = line.unwrap_or_else(|| panic!("{name} in {text}"));
        line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect::<Vec<_>>()
    };
    assert_eq!(
        line("done")[1..9],
        ["train", "base", "8/8", "finished", "–", "reward 0.750", "0.500", "accuracy 0.625 at 8"]
    );
    assert_eq!(line("sets/cold")[1..5], ["sft", "–", "0/90", "active"]);
    assert_eq!(line("torn")[4], "broken");
    assert!(text.contains("results/train/torn: cannot parse `results/train/torn/settings.toml`: "));
    assert!(!text.contains("notes"), "{text}");
}

#[test]
fn as_json_a_run_has_its_fields() {
    let folder = tempfile::tempdir().unwrap();
    write_runs(folder.path());
    let output = runs(folder.path(), &["results/train/done", "--json"]);
    let list: Vec<Value> = serde_json::from_str(stdout(&output)).unwrap();
    let mut run = list[0].clone();
    assert!(run["changed"].as_u64().unwrap() > 1_700_000_000);
    run.as_object_mut().unwrap().remove("changed");
    assert_eq!(
        run,
        json!({"name": "done", "path": "results/train/done", "kind": "train", "model": "base",
            "step": 8, "steps": 8, "state": "finished", "checkpoint": null, "reward": 0.75,
            "accuracy": 0.5, "loss": null,
            "best": {"metric": "eval/accuracy", "value": 0.625, "step": 8}})
    );
    assert_eq!(list.len(), 1);
}

#[test]
fn a_folder_without_runs_is_reported_and_a_missing_one_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let output = runs(folder.path(), &["."]);
    assert_eq!((output.status.code(), stdout(&output)), (Some(0), "no runs in `.`\n"));
    assert_eq!(stdout(&runs(folder.path(), &[".", "--json"])), "[]\n");
    let output = runs(folder.path(), &[]);
    assert_eq!(output.status.code(), Some(1));
    let stderr = stderr(&output);
    assert!(stderr.starts_with("error: cannot read `results/train`: "), "{stderr}");
    assert!(stderr.contains("hint: "), "{stderr}");
}
