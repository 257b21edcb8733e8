//! How ranks are started, and started again.
#![cfg(feature = "mpi")]

mod tiny_model;
mod tiny_run;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use embodied_r_tests::binary;
use tempfile::TempDir;

/// A folder with inputs. Before a completion is scored, `first` is done.
fn place(first: &str) -> TempDir {
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

/// The exit code, and what was printed to both streams.
fn told(mut command: Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

/// Kills the rank that asks for scores, once there is a checkpoint, and only once.
const DIES_ONCE: &str = "if test -e run/checkpoint-2 && mkdir died; then kill -9 $PPID; fi";

#[test]
fn a_run_whose_rank_dies_goes_on_from_its_last_checkpoint() {
    for ranks in ["1", "2"] {
        let dir = place(DIES_ONCE);
        let (code, out, error) = told(train(dir.path(), &["--ranks", ranks, "--restarts", "2"]));
        assert_eq!(code, Some(0), "{error}");
        let says = "the run failed and goes on from checkpoint-2: restart 1 of 2";
        assert!(
            error.contains(says) && error.contains("going on from run/checkpoint-2"),
            "{error}"
        );
        let prefix = if ranks == "1" { "" } else { "[0] " };
        assert_eq!(out, format!("{prefix}the model is in run/final\n"), "{error}");
    }
}

#[test]
fn a_run_that_gets_no_further_is_not_started_again() {
    let dir = place("kill -9 $PPID");
    let (code, _, error) = told(train(dir.path(), &["--ranks", "2", "--restarts", "5"]));
    assert_eq!(code, Some(1), "{error}");
    assert_eq!(error.matches("restart 1 of 5").count(), 1, "{error}");
    assert!(
        error.contains("the run failed again and got no further than the beginning"),
        "{error}"
    );
    assert!(!error.contains("restart 2"), "{error}");
}

#[test]
fn wrong_settings_are_not_tried_again() {
    let dir = place("");
    let more = ["--ranks", "2", "--restarts", "5", "--set", "num_generations=1"];
    let (code, _, error) = told(train(dir.path(), &more));
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("num_generations") && !error.contains("restart"), "{error}");
}

#[test]
fn what_this_build_cannot_start_is_refused_with_a_hint() {
    let dir = place("");
    let (code, _, error) = told(train(dir.path(), &["--gpus", "2"]));
    assert_eq!(code, Some(1), "{error}");
    assert!(
        error.contains("hint: `cargo build --release --package embodied-r-cli --features cuda`"),
        "{error}"
    );
    let mut torchrun = train(dir.path(), &[]);
    torchrun.env("RANK", "0").env("WORLD_SIZE", "2").env("MASTER_ADDR", "localhost");
    let (code, _, error) = told(torchrun);
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("start them with `mpirun -n N embodied-r …`"), "{error}");
    assert!(!dir.path().join("run").exists());
}

#[test]
fn a_launcher_of_others_starts_its_ranks_again_itself() {
    let dir = place("");
    let mut command = train(dir.path(), &["--restarts", "1"]);
    command.env("OMPI_COMM_WORLD_RANK", "0").env("OMPI_COMM_WORLD_SIZE", "1");
    let (code, _, error) = told(command);
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("`--restarts` is for processes that this program starts"), "{error}");
}
