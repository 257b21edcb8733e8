//! `embodied-r quickstart --robot` on a few demonstrations with minimal training.

use std::collections::BTreeSet;
use std::path::Path;

use assert_cmd::Command;
use embodied_r_tests::binary;
use serde_json::{Value, json};

/// The quickstart's standard output.
fn quickstart(out: &Path) -> String {
    let done = Command::new(binary())
        .args(["quickstart", "--robot", "--full", "--json", "--episodes", "2", "--examples", "6"])
        .args(["--sft-set", "num_train_epochs=2", "--sft-set", "train_batch_size=4"])
        .args(["--set", "max_steps=2", "--set", "warmup_steps=0"])
        .args(["--set", "generation_batch_size=32", "--set", "dynamic_sample=false"])
        .args(["--set", "max_completion_length=8", "--output"])
        .arg(out)
        .assert()
        .success();
    String::from_utf8(done.get_output().stdout.clone()).unwrap()
}

fn read(path: &Path) -> Vec<Value> {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn a_full_run_on_the_robot_arm_has_rows_by_kind_and_grey_controls() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("quickstart");
    let stdout = quickstart(&out);
    assert_eq!(std::fs::read_to_string(out.join("results.json")).unwrap(), stdout);
    let results: Value = serde_json::from_str(&stdout).unwrap();
    let rows = results["rows"].as_array().unwrap();
    let all: Vec<&Value> = rows.iter().filter(|row| row["kind"] == "all").collect();
    let names: Vec<&str> = all.iter().map(|row| row["name"].as_str().unwrap()).collect();
    let expected = [
        "cold start",
        "trained",
        "sft",
        "grey images",
        "cold start, held-out tasks",
        "trained, held-out tasks",
        "trained on grey images",
        "random rewards",
    ];
    assert_eq!(names, expected);
    for row in &all {
        let of_kinds = rows.iter().filter(|it| it["name"] == row["name"] && it["kind"] != "all");
        let n: u64 = of_kinds.map(|it| it["n"].as_u64().unwrap()).sum();
        assert_eq!(row["n"], n, "{row}");
        assert_eq!(row["supervised_examples"], 6);
        assert!(row.get("sound_at_1").is_none(), "{row}");
    }

    let questions = |file: &str| read(&out.join("questions").join(file));
    let (test, grey) = (questions("test_selected.json"), questions("test_grey.json"));
    assert_eq!(all[0]["n"], test.len());
    for (own, grey) in test.iter().zip(&grey) {
        assert_eq!((&own["question"], &own["answer"]), (&grey["question"], &grey["answer"]));
        assert_eq!(grey["images"], json!(["grey.png"]));
    }
    let tasks = |file: &str| -> BTreeSet<String> {
        questions(file).iter().map(|it| it["task"].as_str().unwrap().to_owned()).collect()
    };
    let held_out = tasks("held_out_selected.json");
    assert_eq!(held_out.len(), 5);
    assert!(held_out.is_disjoint(&tasks("train_selected.json")));
    for file in ["train/report.html", "curves.svg", "bench/report.md"] {
        assert!(out.join(file).is_file(), "{file}");
    }
}
