//! Configuration faults of `train` and `sft`: found before any work, with exit code 2.

use std::fs;
use std::path::Path;
use std::process::Command;

use assert_cmd::assert::OutputAssertExt as _;
use embodied_r_tests::small_run::{sft, train};
use embodied_r_tests::{binary, small_run, stderr_of, stdout_of};

/// The inputs of a run.
fn inputs(dir: &Path) {
    small_run::write(
        dir,
        "learning_rate = 1e-3
",
    );
}

const WEIGHTS: [&str; 2] = ["--set", "reward_weights={accuracy = 0.5, format = 0.5}"];

/// The error of a configuration fault, which a dry run finds too.
fn fault(command: impl Fn() -> Command) -> String {
    let found = stderr_of(&mut command(), 2);
    assert_eq!(stderr_of(command().arg("--dry-run"), 2), found);
    found
}

#[test]
fn an_unknown_evaluation_metric_is_a_usage_error_before_the_run() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    let stderr = fault(|| {
        let mut command = train(dir.path());
        command.args(WEIGHTS).args(["--eval-data", "train.json"]);
        command.args(["--set", "metric_for_best_model=accuracy"]);
        command
    });
    assert!(
        stderr.starts_with(
            "error: unknown metric `accuracy` in `metric_for_best_model`; available: eval/accuracy, "
        ),
        "{stderr}"
    );
    assert!(!dir.path().join("run").exists());
}

#[test]
fn a_bad_judge_url_is_a_usage_error_before_the_run() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    let stderr = fault(|| {
        let mut command = train(dir.path());
        command.args(["--set", "judge=http", "--set", "judge_model=m"]);
        command.args(["--set", "judge_base_url=localhost:8000"]);
        command
    });
    assert!(stderr.contains("`judge_base_url`: `localhost:8000` is not a base URL"), "{stderr}");
}

#[test]
fn absurd_step_counts_are_usage_errors() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    for (key, value) in [
        ("num_train_epochs", "1e300"),
        ("max_steps", "9000000000000000000"),
        ("num_iterations", "9000000000000000000"),
    ] {
        let stderr = fault(|| {
            let mut command = train(dir.path());
            command.args(WEIGHTS).args(["--set", "num_train_epochs=1e300"]);
            command.args(["--set", &format!("{key}={value}")]);
            command
        });
        assert!(stderr.contains(&format!("`{key}`: ")), "{stderr}");
    }
    let stderr = fault(|| {
        let mut command = sft(dir.path());
        command.args(["--set", "num_train_epochs=9000000000000000000"]);
        command
    });
    assert!(stderr.contains("`num_train_epochs`: the run has more than "), "{stderr}");
}

#[test]
fn what_is_trained_cannot_change_on_resume() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    train(dir.path()).args(WEIGHTS).assert().code(0);
    for (arguments, key) in [
        (&["use_peft=true"][..], "use_peft"),
        (&["use_peft=true", "lora_r=4"], "lora_r"),
        (&["optim=muon"], "optim"),
        (&["freeze_parameters_regex=embed"], "freeze_parameters_regex"),
    ] {
        let stderr = fault(|| {
            let mut command = train(dir.path());
            command.args(WEIGHTS).arg("--resume");
            command.args(arguments.iter().flat_map(|pair| ["--set", *pair]));
            command
        });
        let line = stderr.lines().last().unwrap();
        assert!(line.starts_with("error: `") && line.contains(&format!("`{key}`")), "{stderr}");
        assert!(line.contains(" cannot change on resume, since the tensors of `run/checkpoint-"));
    }
}

#[test]
fn a_fault_of_a_stage_names_its_own_line() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    let stages = "
[[stage]]
epochs = 1
weights = { format = 1 }

[[stage]]
epochs = 1
weights = { acuracy = 1 }
";
    let file = dir.path().join("run.toml");
    fs::write(&file, fs::read_to_string(&file).unwrap() + stages).unwrap();
    let stderr = stderr_of(&mut train(dir.path()), 2);
    assert_eq!(
        stderr,
        "error: invalid settings: `stage[1].weights.acuracy`: unknown reward; did you mean `accuracy`? (line 12 of \
         `run.toml`)\n"
    );
}

#[test]
fn a_setting_is_a_flag_with_the_same_checks() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    let with = |words: &[&str]| {
        let mut command = train(dir.path());
        command.args(WEIGHTS).args(words);
        command
    };
    let wrong = fault(|| with(&["--learning_rate", "fast"]));
    assert!(
        wrong.contains("`learning_rate`") && wrong.contains("(in `--learning_rate fast`)"),
        "{wrong}"
    );
    let unknown = stderr_of(&mut with(&["--learning_rat", "1"]), 2);
    assert!(unknown.contains("'--learning_rate'"), "{unknown}");
    let theirs = fault(|| with(&["--per_device_train_batch_size", "8"]));
    assert!(theirs.contains("use `generation_batch_size`"), "{theirs}");
    with(&["--learning-rate", "2e-3", "--use_peft", "--lora_rank", "2", "--max_steps", "1"])
        .assert()
        .code(0);
    let saved = fs::read_to_string(dir.path().join("run/settings.toml")).unwrap();
    for line in ["learning_rate = 0.002", "use_peft = true", "lora_r = 2", "max_steps = 1"] {
        assert!(saved.lines().any(|found| found == line), "`{line}` is not in\n{saved}");
    }
}

#[test]
fn a_setting_is_explained_offline() {
    let text = stdout_of(Command::new(binary()).args(["settings", "beta"]));
    assert!(text.starts_with("beta (train)\n  default: 0.001\n"), "{text}");
    let unknown = stderr_of(Command::new(binary()).args(["settings", "bet"]), 2);
    assert_eq!(unknown, "error: unknown setting `bet`; did you mean `beta`?\n");
}
