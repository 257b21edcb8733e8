//! `embodied-r report` of one run and of several.

use std::path::Path;
use std::process::{Command, Output};

use embodied_r_tests::binary;

/// Two runs, `a` and `b`.
fn place() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, reward) in [("a", 0.25), ("b", 0.75)] {
        let run = folder.path().join(name);
        std::fs::create_dir(&run).unwrap();
        let events = format!("{{\"event\":\"step\",\"step\":1,\"reward\":{reward}}}\n");
        std::fs::write(run.join("events.jsonl"), events).unwrap();
        std::fs::write(run.join("settings.toml"), format!("beta = {reward}\nseed = 1\n")).unwrap();
    }
    folder
}

fn report(folder: &Path, words: &[&str]) -> Output {
    Command::new(binary()).current_dir(folder).arg("report").args(words).output().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn html(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(name)).unwrap()
}

#[test]
fn several_runs_share_one_page_however_they_are_given() {
    for words in [&["--run", "a", "--run", "b"][..], &["--run", "a", "b"]] {
        let folder = place();
        let output = report(folder.path(), words);
        assert_eq!((output.status.code(), stdout(&output)), (Some(0), "a/comparison.html\n"));
        let html = html(folder.path(), "a/comparison.html");
        assert!(html.contains("<td>reward</td><td>0.25</td><td>0.75</td>"), "{html}");
        assert!(html.contains("<td>beta</td><td>0.25</td><td>0.75</td>"), "{html}");
        assert!(!html.contains("<td>seed</td>"), "{html}");
    }
}

#[test]
fn one_run_has_a_page_of_its_own() {
    let folder = place();
    let output = report(folder.path(), &["--run", "a"]);
    assert_eq!(stdout(&output), "a/report.html\n");
    let html = html(folder.path(), "a/report.html");
    assert!(html.contains("training report") && html.contains("all settings of the run"));
}

#[test]
fn a_run_twice_is_wrong_usage_and_a_folder_without_events_an_error() {
    let folder = place();
    let twice = report(folder.path(), &["--run", "a", "./a"]);
    assert_eq!(twice.status.code(), Some(2));
    let none = report(folder.path(), &["--run", "a", "."]);
    assert_eq!(none.status.code(), Some(1));
    assert!(!folder.path().join("a/comparison.html").exists());
}
