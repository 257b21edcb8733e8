//! Run folders with odd names, files in the way, and lock files that are deleted.

#![cfg(unix)]

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

use assert_cmd::assert::OutputAssertExt as _;
use embodied_r_tests::{binary, small_run, stderr_of};

/// The inputs of a run with a checkpoint in its middle.
fn inputs(dir: &Path) {
    small_run::write(
        dir,
        "learning_rate = 1e-3
num_train_epochs = 1
reward_weights = { accuracy = 0.5, format = 0.5 }
save_steps = 2
save_total_limit = 1
",
    );
}

fn train(dir: &Path) -> Command {
    let mut command = Command::new(binary());
    command.current_dir(dir).args(["train", "--config", "run.toml", "--model", "model"]);
    command.args(["--data", "train.json"]);
    command
}

fn names(folder: &Path) -> BTreeSet<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    names.map(|name| name.into_string().unwrap()).collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for name in names(from) {
        fs::copy(from.join(&name), to.join(&name)).unwrap();
    }
}

#[test]
fn checkpoints_under_odd_names_do_not_prevent_a_resume() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    let run = dir.path().join("run");
    train(dir.path()).args(["--output", "run", "--set", "save_total_limit=9"]).assert().code(0);
    let whole = fs::read(run.join("final/model.safetensors")).unwrap();
    // As after a kill at step 2.
    fs::remove_dir_all(run.join("final")).unwrap();
    fs::remove_dir_all(run.join("checkpoint-4")).unwrap();
    let odd =
        ["checkpoint-007", "checkpoint-+7", "checkpoint-1", "checkpoint-9", "checkpoint-2.bak"];
    for name in odd {
        copy(&run.join("checkpoint-2"), &run.join(name));
    }
    let named = stderr_of(train(dir.path()).args(["--resume", "run/checkpoint-9"]), 1);
    assert!(
        named.contains(
            "error: the checkpoint `run/checkpoint-9` cannot be used: it is a copy of the checkpoint of step 2"
        ),
        "{named}"
    );
    let stderr = stderr_of(train(dir.path()).args(["--resume", "run"]), 0);
    for line in [
        "warning: skipped a copied later checkpoint: `run/checkpoint-9`: it is a copy of the checkpoint of step 2",
        "resuming from run/checkpoint-2",
        "renamed a copied checkpoint to `run/checkpoint-9.damaged`",
    ] {
        assert!(stderr.lines().any(|found| found == line), "{line} in {stderr}");
    }
    assert!(fs::read(run.join("final/model.safetensors")).unwrap() == whole);
    let left = names(&run);
    for name in [
        "checkpoint-007",
        "checkpoint-+7",
        "checkpoint-1",
        "checkpoint-9.damaged",
        "checkpoint-2.bak",
    ] {
        assert!(left.contains(name), "{name} was deleted");
    }
    assert!(left.contains("checkpoint-4") && !left.contains("checkpoint-2"), "{left:?}");
}

#[test]
fn what_is_in_the_way_of_a_runs_files_is_reported_before_the_run() {
    for (name, is_file) in [
        ("final", true),
        ("completions", true),
        ("skipped", true),
        ("runs", true),
        ("events.jsonl", false),
        ("settings.toml", false),
    ] {
        let dir = tempfile::tempdir().unwrap();
        inputs(dir.path());
        let path = dir.path().join("run").join(name);
        fs::create_dir(dir.path().join("run")).unwrap();
        match is_file {
            true => fs::write(&path, "notes").unwrap(),
            false => fs::create_dir(&path).unwrap(),
        }
        let stderr = stderr_of(train(dir.path()).args(["--output", "run"]), 1);
        let kind = if is_file { "directory" } else { "file" };
        let error = format!("error: `run/{name}` is in the way: it must be a {kind}; move it");
        assert!(stderr.contains(&error), "{stderr}");
        assert!(!stderr.contains("step 1/"), "{stderr}");
        assert!(path.exists(), "{name}");
    }
}

#[test]
fn a_path_that_is_not_text_is_refused_and_nothing_is_written_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    let odd = OsStr::from_bytes(b"run\xff");
    let before = names(dir.path());
    let stderr = stderr_of(train(dir.path()).arg("--output").arg(odd), 2);
    assert!(
        stderr.starts_with("error: `--output`: the path `run\u{fffd}` is not UTF-8"),
        "{stderr}"
    );
    assert_eq!(names(dir.path()), before);
}

/// A run that is killed when dropped.
struct Run(Child);

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A run that goes on for long, after its second step.
fn running(dir: &Path) -> (Run, BufReader<ChildStderr>) {
    let mut command = train(dir);
    command.args(["--output", "run", "--set", "num_train_epochs=100000"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let run = Run(child);
    let mut line = String::new();
    while !line.starts_with("step 2/") {
        line.clear();
        assert!(stderr.read_line(&mut line).unwrap() > 0, "the run ended");
    }
    (run, stderr)
}

#[test]
fn a_deleted_lock_file_lets_no_second_run_in() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    let (mut run, _stderr) = running(dir.path());
    fs::remove_file(dir.path().join("run/.lock")).unwrap();
    let second = stderr_of(train(dir.path()).args(["--resume", "run"]), 1);
    assert!(second.contains("another process is training in `run`"), "{second}");
    assert!(run.0.try_wait().unwrap().is_none(), "the first run goes on");
}

#[test]
fn a_run_ends_when_its_folder_is_moved_and_writes_no_other() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    let (mut run, mut stderr) = running(dir.path());
    fs::rename(dir.path().join("run"), dir.path().join("moved")).unwrap();
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    assert_eq!(run.0.wait().unwrap().code(), Some(1));
    assert!(rest.contains("error: `run` was removed or replaced during the run"), "{rest}");
    let run = dir.path().join("run");
    assert!(!run.exists(), "{:?}", fs::read_dir(&run).map(|all| all.flatten().collect::<Vec<_>>()));
    assert!(dir.path().join("moved/events.jsonl").exists());
}
