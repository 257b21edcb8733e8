//! How ranks are launched and restarted.
#![cfg(feature = "mpi")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use embodied_r_tests::{binary, tiny_run};
use tempfile::TempDir;

/// A folder with inputs, whose reward command runs `first` before it scores.
fn workspace(first: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    tiny_run::write(dir.path());
    let script = fs::read_to_string(dir.path().join("score.sh")).unwrap();
    fs::write(dir.path().join("score.sh"), format!("{first}\n{script}")).unwrap();
    dir
}

fn train(dir: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command
        .current_dir(dir)
        .args(["train", "--config", "run.toml", "--model", "model", "--no-pin"]);
    command.args(["--data", "train.json", "--output", "run"]).args(more);
    command
}

/// The exit code, standard output and standard error.
fn run(mut command: Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

/// Kills the rank that requests scores once, after the first checkpoint.
const DIES_ONCE: &str = "if test -e run/checkpoint-2 && mkdir died; then kill -9 $PPID; fi";

#[test]
fn a_run_whose_rank_dies_resumes_from_its_last_checkpoint() {
    for ranks in ["1", "2"] {
        let dir = workspace(DIES_ONCE);
        let (code, out, error) = run(train(dir.path(), &["--ranks", ranks, "--restarts", "2"]));
        assert_eq!(code, Some(0), "{error}");
        let restart = "the run failed; restarting from checkpoint-2 (restart 1 of 2)";
        assert!(
            error.contains(restart) && error.contains("resuming from run/checkpoint-2"),
            "{error}"
        );
        let prefix = if ranks == "1" { "" } else { "[0] " };
        assert_eq!(out, format!("{prefix}saved the model to run/final\n"), "{error}");
    }
}

#[test]
fn a_run_without_progress_is_not_restarted() {
    let dir = workspace("kill -9 $PPID");
    let (code, _, error) = run(train(dir.path(), &["--ranks", "2", "--restarts", "5"]));
    assert_eq!(code, Some(1), "{error}");
    assert_eq!(error.matches("restart 1 of 5").count(), 1, "{error}");
    assert!(error.contains("the run failed again without progress since the beginning"), "{error}");
    assert!(!error.contains("restart 2"), "{error}");
}

#[test]
fn wrong_settings_cause_no_restart() {
    let dir = workspace("");
    let more = ["--ranks", "2", "--restarts", "5", "--set", "num_generations=1"];
    let (code, _, error) = run(train(dir.path(), &more));
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("num_generations") && !error.contains("restart"), "{error}");
}

#[test]
fn ranks_that_this_build_does_not_support_are_refused_with_a_hint() {
    let dir = workspace("");
    let (code, _, error) = run(train(dir.path(), &["--gpus", "2"]));
    assert_eq!(code, Some(2), "{error}");
    assert!(
        error.contains(
            "hint: rebuild with `cargo build --release --package embodied-r-cli --features cuda`"
        ),
        "{error}"
    );
    let mut torchrun = train(dir.path(), &[]);
    torchrun.env("RANK", "0").env("WORLD_SIZE", "2").env("MASTER_ADDR", "localhost");
    let (code, _, error) = run(torchrun);
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("start them with `mpirun -n N embodied-r …`"), "{error}");
    assert!(!dir.path().join("run").exists());
}

#[test]
fn restarts_are_refused_under_another_launcher() {
    let dir = workspace("");
    let mut command = train(dir.path(), &["--restarts", "1"]);
    command.env("OMPI_COMM_WORLD_RANK", "0").env("OMPI_COMM_WORLD_SIZE", "1");
    let (code, _, error) = run(command);
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("`--restarts` needs this program as the launcher"), "{error}");
}
