//! Runs that are killed, damaged or out of disk space.
//!
//! With `-- --nocapture`, the test of a hundred kills prints what each kill interrupted.

#![cfg(unix)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use assert_cmd::assert::OutputAssertExt as _;
use embodied_r_tests::small_run::train;
use embodied_r_tests::{
    binary, kills as least_kills, skipped, stderr_of, tiny_model, write_lamp_questions,
};
use serde_json::{Value, json};

/// Twelve steps in three epochs and two stages, with a checkpoint after each step. The settings use
/// all the state that a resume must restore.
const SETTINGS: &str = "num_generations = 4
generation_batch_size = 8
max_completion_length = 6
learning_rate = 1e-2
warmup_ratio = 0.2
num_iterations = 2
beta = 0.01
save_steps = 1
save_total_limit = 1
keep_every_epochs = 1
eval_steps = 2
eval_data = 'train.json'

[[stage]]
epochs = 1
weights = { accuracy = 0.5, format = 0.5 }

[[stage]]
epochs = 2
weights = { accuracy = 0.8, format = 0.2 }
restart_schedule = true
reset_reference = true
";

/// A run's inputs in a new folder.
fn inputs() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    tiny_model::write(&dir.path().join("model"));
    write_lamp_questions(dir.path(), 8);
    fs::write(dir.path().join("run.toml"), SETTINGS).unwrap();
    dir
}

fn resume(dir: &Path) -> Command {
    let mut command = train(dir);
    command.args(["--resume", "auto"]);
    command
}

/// All files of a folder, by name.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(inner) = folders.pop() {
        for entry in fs::read_dir(inner).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().display().to_string();
                files.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    files
}

/// A file without values that depend on the clock or the machine.
fn timeless(name: &str, bytes: &[u8]) -> Vec<u8> {
    let is_timing = |key: &str| {
        let exact =
            ["time_s", "step_time", "tokens_per_second", "time_left_s", "matmul_share", "mfu"];
        exact.contains(&key) || key.starts_with("time/") || key.starts_with("memory/")
    };
    let without = |text: &[u8], is_omitted: &dyn Fn(&str) -> bool| {
        let mut value: Value = serde_json::from_slice(text).unwrap();
        value.as_object_mut().unwrap().retain(|key, _| !is_omitted(key));
        value.to_string().into_bytes()
    };
    if name == "events.jsonl" {
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        return lines.flat_map(|line| without(line, &is_timing)).collect();
    }
    if name.ends_with("trainer_state.json") {
        return without(bytes, &|key| key == "events_bytes");
    }
    if name.contains("tfevents") {
        // The lengths of the records identify the steps and metrics.
        let (mut rest, mut lengths) = (bytes, Vec::new());
        while let Some((length, _)) = rest.split_first_chunk::<8>() {
            lengths.extend(length);
            rest = &rest[16 + u64::from_le_bytes(*length) as usize..];
        }
        return lengths;
    }
    // The manifest contains the hash of the state.
    if name.ends_with("manifest.json") { Vec::new() } else { bytes.to_vec() }
}

/// Names of the files that differ between two runs.
fn differences(a: &Path, b: &Path) -> Vec<String> {
    let (a, b) = (files(a), files(b));
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let of = |files: &BTreeMap<String, Vec<u8>>, name: &str| {
        files.get(name).map(|bytes| timeless(name, bytes))
    };
    names.into_iter().filter(|name| of(&a, name) != of(&b, name)).cloned().collect()
}

const SAME: [&str; 0] = [];

/// A run that was not interrupted.
fn uninterrupted() -> tempfile::TempDir {
    let dir = inputs();
    train(dir.path()).assert().code(0);
    dir
}

/// A run whose last checkpoint is that of step 8.
fn up_to_step_8() -> tempfile::TempDir {
    let dir = uninterrupted();
    for folder in ["final", "checkpoint-12"] {
        fs::remove_dir_all(dir.path().join("run").join(folder)).unwrap();
    }
    dir
}

fn kill(child: &mut Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_run_killed_several_times_is_bit_identical_to_an_uninterrupted_one() {
    let (whole, killed) = (uninterrupted(), inputs());
    // Within the first epoch, at its end, at the start of the second stage, and near the end.
    for step in [2, 4, 5, 11] {
        let mut child = resume(killed.path()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().starts_with(&format!("step {step}/12"))));
        kill(&mut child);
    }
    resume(killed.path()).assert().code(0);
    assert_eq!(differences(&whole.path().join("run"), &killed.path().join("run")), SAME);
}

/// What a kill interrupted: from the files it left, else the last phase in the log.
fn moment(run: &Path, log: &Path) -> String {
    let names: Vec<String> = fs::read_dir(run).map_or(Vec::new(), |entries| {
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
    });
    let ends = |end: &str| names.iter().any(|name| name.ends_with(end));
    match () {
        () if !names.iter().any(|name| name == "events.jsonl") => "before the first event".into(),
        () if ends(".removed.tmp") || ends(".old.tmp") => ROTATION.into(),
        () if ends(".tmp") => WRITING.into(),
        () => phase(log).unwrap_or_else(|| "before the first step".into()),
    }
}

/// The last phase in the log of a run.
fn phase(log: &Path) -> Option<String> {
    let log = fs::read_to_string(log).unwrap_or_default();
    let (_, last) = log.rsplit_once("phase=\"")?;
    last.split_once('"').map(|(phase, _)| phase.to_owned())
}

const WRITING: &str = "writing a checkpoint";
const ROTATION: &str = "rotation";

/// What some of the kills have to interrupt.
const MOMENTS: [&str; 4] = ["rollout", "update", WRITING, ROTATION];

#[test]
fn kills_change_nothing_whatever_they_interrupt() {
    let least = least_kills();
    /// Rotation takes a fraction of a millisecond, so that a kill can miss it.
    const MOST_KILLS: usize = 1000;
    let began = Instant::now();
    let whole = uninterrupted();
    let longest = began.elapsed();
    let mut random = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 | 1;
    let mut moments: BTreeMap<String, usize> = BTreeMap::new();
    let (mut kills, mut runs) = (0, 0);
    let are_left = |moments: &BTreeMap<String, usize>, kills: usize| {
        let missed = MOMENTS.iter().any(|moment| !moments.contains_key(*moment));
        kills < least || missed && kills < MOST_KILLS
    };
    while are_left(&moments, kills) {
        let killed = inputs();
        let (run, log) = (killed.path().join("run"), killed.path().join("log"));
        runs += 1;
        loop {
            let mut command = resume(killed.path());
            command.env("EMBODIED_R_LOG", "embodied_r_dist=debug");
            let mut child = command.stderr(fs::File::create(&log).unwrap()).spawn().unwrap();
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            // Every other kill comes at a random time, mostly early; the others wait for what has been interrupted
            // least.
            let share = (random >> 11) as f64 / (1u64 << 53) as f64;
            let deadline = Instant::now() + longest.mul_f64(share * 0.3);
            let rarest = MOMENTS.iter().min_by_key(|moment| moments.get(**moment)).unwrap();
            let is_time = || match kills % 2 {
                0 => Instant::now() >= deadline,
                _ => Instant::now() >= deadline && moment(&run, &log) == *rarest,
            };
            let status = loop {
                if let Some(status) = child.try_wait().unwrap() {
                    break Some(status);
                }
                if is_time() && are_left(&moments, kills) {
                    break None;
                }
                std::thread::sleep(Duration::from_micros(100));
            };
            if let Some(status) = status {
                assert!(status.success(), "after {kills} kills: {status}");
                break;
            }
            kill(&mut child);
            kills += 1;
            *moments.entry(moment(&run, &log)).or_default() += 1;
        }
        assert_eq!(differences(&whole.path().join("run"), &run), SAME);
    }
    println!("{kills} kills in {runs} runs: {moments:?}");
    for moment in MOMENTS {
        assert!(moments.contains_key(moment), "no kill interrupted {moment}: {moments:?}");
    }
}

#[test]
fn a_run_killed_before_its_first_checkpoint_starts_over() {
    let dir = inputs();
    fs::create_dir(dir.path().join("run")).unwrap();
    let stderr = stderr_of(&mut resume(dir.path()), 0);
    assert!(stderr.contains("no checkpoint to resume from yet, starting a new run"), "{stderr}");
}

/// Flips a bit of a file.
fn flip_a_bit(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.len() - 5;
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn the_last_intact_checkpoint_is_used_and_damaged_ones_are_renamed() {
    let (whole, damaged) = (uninterrupted(), uninterrupted());
    let run = damaged.path().join("run");
    fs::remove_dir_all(run.join("final")).unwrap();
    flip_a_bit(&run.join("checkpoint-12/optimizer.safetensors"));

    let named = stderr_of(train(damaged.path()).args(["--resume", "run/checkpoint-12"]), 1);
    assert_eq!(
        named,
        "error: the checkpoint `run/checkpoint-12` cannot be used: `optimizer.safetensors` has \
         changed since it was written: hash mismatch
hint: `--resume` with the run's directory resumes from its last intact checkpoint
"
    );
    let dry_run = stderr_of(resume(damaged.path()).arg("--dry-run"), 0);
    assert!(dry_run.contains("resuming from run/checkpoint-8"), "{dry_run}");
    assert!(run.join("checkpoint-12").exists(), "a dry run changes nothing");

    let stderr = stderr_of(&mut resume(damaged.path()), 0);
    let lines: Vec<&str> = stderr.lines().take(3).collect();
    assert_eq!(
        lines,
        [
            "warning: skipped a corrupt later checkpoint: `run/checkpoint-12`: `optimizer.safetensors` \
             has changed since it was written: hash mismatch",
            "resuming from run/checkpoint-8",
            "renamed a corrupt checkpoint to `run/checkpoint-12.damaged`",
        ]
    );
    fs::remove_dir_all(run.join("checkpoint-12.damaged")).unwrap();
    assert_eq!(differences(&whole.path().join("run"), &run), SAME);
}

#[test]
fn a_checkpoint_that_does_not_fit_on_disk_is_an_error_and_the_last_one_stays() {
    let (whole, short) = (uninterrupted(), up_to_step_8());
    let run = short.path().join("run");
    let size = fs::metadata(run.join("checkpoint-8/optimizer.safetensors")).unwrap().len();
    // The largest file, the optimizer state, exceeds the limit, which is in blocks of 512 bytes.
    let limit = format!("trap '' XFSZ; ulimit -f {}; exec \"$@\"", size / 512);
    let mut command = Command::new("sh");
    command.current_dir(short.path()).args(["-c", &limit, "sh"]).arg(binary());
    let stderr = stderr_of(command.args(["train", "--resume", "run"]), 1);
    let last = stderr.lines().last().unwrap();
    assert!(last.starts_with("error: cannot write `run/.checkpoint-9.tmp/"), "{stderr}");
    assert!(last.contains("optimizer.safetensors") && last.contains("File too large"), "{stderr}");
    let names: BTreeSet<String> = files(&run).into_keys().collect();
    assert!(!names.iter().any(|name| name.contains(".tmp")), "{names:?}");

    resume(short.path()).assert().code(0);
    assert_eq!(differences(&whole.path().join("run"), &run), SAME);
}

/// Runs a shell script in a folder, in a namespace of its own in which it may mount; `None` where that is not allowed.
fn with_mounts(dir: &Path, script: &str) -> Option<Output> {
    let unshared = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]);
        command.arg(binary()).current_dir(dir).output()
    };
    let allowed = unshared("mkdir -p mount && mount -t tmpfs none mount");
    if !allowed.is_ok_and(|output| output.status.success()) {
        skipped("this machine does not allow mounts in a user namespace");
        return None;
    }
    Some(unshared(script).unwrap())
}

/// The bytes of a folder on a disk with pages of 4 KiB.
fn disk_bytes(folder: &Path) -> usize {
    files(folder).values().map(|bytes| bytes.len().next_multiple_of(4096)).sum()
}

#[test]
fn a_full_disk_leaves_the_last_checkpoint_and_the_run_resumes_with_more_space() {
    let (whole, short) = (uninterrupted(), up_to_step_8());
    let run = short.path().join("run");
    // Half of the next checkpoint fits.
    let kib = (disk_bytes(&run) + disk_bytes(&run.join("checkpoint-8")) / 2) / 1024;
    let script = format!(
        "mkdir disk && mount -t tmpfs -o size={kib}k none disk && cp -a run/. disk && mount --bind disk run \
         && \"$1\" train --resume run; status=$?; cp -a run/. left; exit $status"
    );
    fs::create_dir(short.path().join("left")).unwrap();
    let Some(output) = with_mounts(short.path(), &script) else { return };
    let stderr = String::from_utf8_lossy(&output.stderr);
    let last = stderr.lines().last().unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(last.contains("No space left on device") && last.contains("run/"), "{stderr}");
    fs::remove_dir_all(&run).unwrap();
    fs::rename(short.path().join("left"), &run).unwrap();
    let names: BTreeSet<String> = files(&run).into_keys().collect();
    assert!(!names.iter().any(|name| name.contains(".tmp")), "{names:?}");

    resume(short.path()).assert().code(0);
    assert_eq!(differences(&whole.path().join("run"), &run), SAME);
}

#[test]
fn a_read_only_folder_is_reported_before_the_run_starts() {
    let dir = inputs();
    fs::create_dir(dir.path().join("run")).unwrap();
    let script = "mount --bind run run && mount -o remount,ro,bind run \
        && exec \"$1\" train --config run.toml --model model --data train.json --output run";
    let Some(output) = with_mounts(dir.path(), script) else { return };
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("`run") && stderr.contains("Read-only file system"), "{stderr}");
    assert!(!stderr.contains("step 1/"), "{stderr}");
}

#[test]
fn a_folder_that_cannot_be_written_is_reported_before_the_run_starts() {
    let dir = inputs();
    fs::write(dir.path().join("run"), "a file").unwrap();
    let stderr = stderr_of(&mut train(dir.path()), 1);
    assert_eq!(stderr, "error: cannot create `run`: File exists (os error 17)\n");
}

#[test]
fn a_folder_in_which_another_process_trains_is_left_alone() {
    let dir = inputs();
    train(dir.path()).assert().code(0);
    let run = dir.path().join("run");
    let before = files(&run);
    let other = fs::File::open(run.join(".lock")).unwrap();
    other.lock().unwrap();
    for command in [&mut train(dir.path()), &mut resume(dir.path())] {
        let stderr = stderr_of(command, 1);
        assert!(stderr.contains("another process is training in `run`"), "{stderr}");
    }
    assert!(files(&run) == before);
    // A dry run needs no lock.
    resume(dir.path()).arg("--dry-run").assert().code(0);
    drop(other);
    resume(dir.path()).assert().code(0);
}

#[test]
fn a_killed_fine_tuning_is_bit_identical_to_an_uninterrupted_one() {
    let conversation = json!({"messages": [
        {"role": "user", "content": "Question: where is the lamp?"},
        {"role": "assistant", "content": "<think>left</think><answer>A</answer>"},
    ]});
    let (whole, killed) = (inputs(), inputs());
    let sft = |dir: &Path| {
        fs::write(dir.join("train.jsonl"), vec![conversation.to_string(); 12].join("\n")).unwrap();
        let mut command = Command::new(binary());
        command.current_dir(dir).args(["sft", "--model", "model", "--data", "train.jsonl"]);
        command.args(["--eval-data", "train.jsonl", "--output", "run", "--resume", "auto"]);
        command.args(["--set", "train_batch_size=4", "--set", "save_steps=2"]);
        command.args(["--set", "learning_rate=0.01", "--set", "num_train_epochs=4"]);
        command
    };
    sft(whole.path()).assert().code(0);
    for step in [3, 6, 11] {
        let mut child = sft(killed.path()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().starts_with(&format!("step {step}/12"))));
        kill(&mut child);
    }
    sft(killed.path()).assert().code(0);
    assert_eq!(differences(&whole.path().join("run"), &killed.path().join("run")), SAME);
}
