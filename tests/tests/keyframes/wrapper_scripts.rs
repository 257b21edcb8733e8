//! `ffmpeg` and `ffprobe` as wrapper scripts whose children hold the pipes.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use embodied_r_tests::{binary, stderr};

use super::{ffmpeg, pan};

/// A folder with a program `name` that runs `script`, to be first on the PATH.
fn wrapper(folder: &Path, name: &str, script: &str) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    let bin = folder.join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    let program = bin.join(name);
    std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:{}", bin.display(), std::env::var("PATH").unwrap())
}

/// Starts a child that outlives every test, and waits for it.
const HANGS: &str = "sleep 900 & echo $! > child; wait";

/// Longer than anything here takes, shorter than what hangs.
const SOON: Duration = Duration::from_secs(300);

fn hanging_child(folder: &Path) -> String {
    let start = Instant::now();
    loop {
        match std::fs::read_to_string(folder.join("child")) {
            Ok(id) if id.ends_with('\n') => return id.trim().to_owned(),
            _ => assert!(start.elapsed() < SOON, "the program was not started"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn assert_ends(id: &str) {
    let start = Instant::now();
    let is_running = || {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with(['Z', 'X']))
    };
    while is_running() {
        assert!(start.elapsed() < SOON, "process {id} is still running");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A video whose index is parsed without `ffprobe`, and one whose is not.
fn indexed_and_not(folder: &Path) -> [&'static str; 2] {
    pan(folder);
    ffmpeg("-f lavfi -i testsrc=size=64x48:rate=4:duration=3 -c:v mpeg4", &folder.join("a.avi"));
    ["pan.mp4", "a.avi"]
}

#[test]
fn the_time_limit_ends_a_wrapper_scripts_children_of_ffmpeg_and_ffprobe() {
    for (video, program) in [(0, "ffmpeg"), (1, "ffprobe")] {
        let folder = tempfile::tempdir().unwrap();
        let video = indexed_and_not(folder.path())[video];
        let path = wrapper(folder.path(), program, HANGS);
        let start = Instant::now();
        let output = Command::new(binary())
            .args(["keyframes", video, "--time-limit", "1"])
            .env("PATH", path)
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(start.elapsed() < SOON, "{program}");
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        assert!(stderr(&output).contains("exceeded its time limit"), "{}", stderr(&output));
        assert_ends(&hanging_child(folder.path()));
    }
}

#[test]
fn the_children_of_ffmpeg_end_with_the_program() {
    for signal in ["-TERM", "-KILL"] {
        let folder = tempfile::tempdir().unwrap();
        pan(folder.path());
        let path = wrapper(folder.path(), "ffmpeg", HANGS);
        let mut program = Command::new(binary())
            .args(["keyframes", "pan.mp4"])
            .env("PATH", path)
            .current_dir(folder.path())
            .spawn()
            .unwrap();
        let child = hanging_child(folder.path());
        Command::new("kill").args([signal, &program.id().to_string()]).status().unwrap();
        program.wait().unwrap();
        assert_ends(&child);
    }
}
