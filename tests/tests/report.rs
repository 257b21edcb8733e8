//! `embodied-r report` of one run and of several.

use std::path::Path;
use std::process::{Command, Output};

use embodied_r_tests::{binary, stderr, stdout};

/// Two runs, `a` and `b`.
fn workspace() -> tempfile::TempDir {
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

fn html(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(name)).unwrap()
}

#[test]
fn several_runs_share_one_page_with_either_syntax() {
    for words in [&["--run", "a", "--run", "b"][..], &["--run", "a", "b"]] {
        let folder = workspace();
        let output = report(folder.path(), words);
        assert_eq!((output.status.code(), stdout(&output)), (Some(0), "a/comparison.html\n"));
        let html = html(folder.path(), "a/comparison.html");
        assert!(html.contains("<td>reward</td><td>0.25</td><td>0.75</td>"), "{html}");
        assert!(html.contains("<td>beta</td><td>0.25</td><td>0.75</td>"), "{html}");
        assert!(!html.contains("<td>seed</td>"), "{html}");
    }
}

#[test]
fn one_run_has_a_page_with_its_curves_completions_scores_and_settings() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    std::fs::create_dir_all(run.join("eval")).unwrap();
    let step = |step: u32, reward: f64| {
        format!(
            "{{\"event\":\"step\",\"step\":{step},\"reward\":{reward},\"kl\":0.125,\
             \"rewards/accuracy/mean\":{reward},\"rewards/format/mean\":1.0,\
             \"completions/mean_length\":31.0}}\n"
        )
    };
    let stage = "{\"event\":\"stage\",\"step\":1,\"stage\":0,\"weights\":{\"accuracy\":1.0}}\n";
    let warning =
        "{\"event\":\"warning\",\"step\":2,\"name\":\"kl\",\"message\":\"a <warning> text\"}\n";
    let events = [stage, &step(1, 0.25), &step(2, 0.625), warning].concat();
    std::fs::write(run.join("events.jsonl"), events).unwrap();
    std::fs::write(run.join("settings.toml"), "beta = 0.0625\nloss_type = \"dapo\"\n").unwrap();
    let scores = r#"{"protocol":"embodied-r","n":8,"overall":37.5,"micro":37.5,"macro":37.5,
        "by_category":{"Landmark Position":{"score":37.5,"n":8}}}"#;
    std::fs::write(run.join("eval/embodied-r.json"), scores).unwrap();

    let output = report(folder.path(), &["--run", "run"]);
    assert_eq!(stdout(&output), "run/report.html\n", "{output:?}");
    let html = html(folder.path(), "run/report.html");
    // Only logged metrics have a chart.
    for metric in ["reward", "kl", "rewards/accuracy/mean", "completions/mean_length"] {
        assert!(html.contains(metric), "no chart of `{metric}`: {html}");
    }
    assert!(!html.contains("grad_norm") && !html.contains("entropy"), "{html}");
    assert!(html.contains("<svg") && html.contains("2 steps"), "{html}");
    for text in ["0.0625", "dapo", "Landmark Position", "37.5", "<title>run"] {
        assert!(html.contains(text), "no `{text}`: {html}");
    }
}

#[test]
fn a_later_report_keeps_the_scores_of_an_earlier_one() {
    let folder = workspace();
    let scores = r#"{"protocol":"embodied-r","n":8,"overall":37.5,"micro":37.5,"macro":37.5,
        "by_category":{"Landmark Position":{"score":37.5,"n":8}}}"#;
    std::fs::write(folder.path().join("scores.txt"), scores).unwrap();
    report(folder.path(), &["--run", "a", "--eval", "cold start=scores.txt"]);
    std::fs::remove_file(folder.path().join("scores.txt")).unwrap();
    for words in [&["--run", "a"][..], &["--run", "a", "b", "--output", "a/report.html"]] {
        report(folder.path(), words);
        let html = html(folder.path(), "a/report.html");
        assert!(html.contains("Held-out scores") && html.contains("37.5"), "{html}");
    }
}

#[test]
fn a_duplicate_run_is_wrong_usage_and_a_folder_without_events_an_error() {
    let folder = workspace();
    let duplicate = report(folder.path(), &["--run", "a", "./a"]);
    assert_eq!(duplicate.status.code(), Some(2));
    let without_events = report(folder.path(), &["--run", "a", "."]);
    assert_eq!(without_events.status.code(), Some(1));
    assert!(!folder.path().join("a/comparison.html").exists());
}

#[test]
fn a_run_has_a_figure_and_several_runs_have_none() {
    let folder = workspace();
    let events = "{\"event\":\"step\",\"step\":1,\"rewards/accuracy/mean\":0.5}\n\
                  {\"event\":\"eval\",\"step\":1,\"eval/accuracy\":0.25}\n";
    std::fs::write(folder.path().join("a/events.jsonl"), events).unwrap();
    let output = report(folder.path(), &["--run", "a", "--svg", "curves.svg"]);
    assert_eq!(stdout(&output), "a/report.html\ncurves.svg\n", "{output:?}");
    let svg = html(folder.path(), "curves.svg");
    assert!(svg.starts_with("<svg xmlns") && svg.contains("held out, step 1: 0.25"), "{svg}");
    let several = report(folder.path(), &["--run", "a", "b", "--svg", "curves.svg"]);
    assert_eq!(several.status.code(), Some(2));
}

#[test]
fn a_broken_run_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("run")).unwrap();
    for (events, expected) in [
        ("", "the run ended before its first step"),
        ("{\"event\": \"start\"}\n", "the run ended before its first step"),
        ("\u{0}\u{0}\n{\"event\": \n", "it is damaged: 2 of its lines are not JSON objects"),
    ] {
        std::fs::write(dir.path().join("run/events.jsonl"), events).unwrap();
        let output = report(dir.path(), &["--run", "run"]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let stderr = stderr(&output);
        assert!(
            stderr.contains("has no step or evaluation to report") && stderr.contains(expected),
            "{stderr}"
        );
        assert!(!dir.path().join("run/report.html").exists());
    }
}
