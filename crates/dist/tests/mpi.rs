//! Real ranks over MPI: each test runs this very binary again under `mpirun`, where [`PLAYER`] plays its scene.
#![cfg(feature = "mpi")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

mod ranks;

/// The test as which ranks are started.
const PLAYER: &str = "one_rank_gets_back_what_it_gives";

/// Runs `scene` on `world_size` ranks; what `mpirun` and the ranks printed.
fn run(scene: &str, world_size: usize) -> Output {
    let file = tempfile(scene);
    let log = std::fs::File::create(&file).unwrap();
    let mut child = mpirun(scene, world_size)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let until = Instant::now() + Duration::from_secs(240);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > until {
            child.kill().unwrap();
            panic!("{scene} does not end: {}", std::fs::read_to_string(&file).unwrap());
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let stdout = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    Output { status, stdout, stderr: Vec::new() }
}

fn tempfile(scene: &str) -> std::path::PathBuf {
    std::env::temp_dir().join(format!("dist-{}-{scene}", std::process::id()))
}

fn mpirun(scene: &str, world_size: usize) -> Command {
    let mut command = Command::new("mpirun");
    command
        .args(["--oversubscribe", "--tag-output", "-n", &world_size.to_string()])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", PLAYER, "--nocapture", "--test-threads=1"])
        .env(ranks::SCENE, scene)
        .env("EMBODIED_R_DIST_MARK", mark(scene))
        // Tests may run as root, and side by side on few cores.
        .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
        .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
        .env("OMPI_MCA_hwloc_base_binding_policy", "none");
    command
}

/// A name by which the processes of a scene are found.
fn mark(scene: &str) -> String {
    format!("dist-{}-{scene}", std::process::id())
}

/// The processes that are left of a scene.
fn left_over(scene: &str) -> Vec<String> {
    let mark = format!("EMBODIED_R_DIST_MARK={}", mark(scene));
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let of_scene = processes.filter(|process| {
        let variables = std::fs::read(process.path().join("environ")).unwrap_or_default();
        variables.split(|&byte| byte == 0).any(|variable| variable == mark.as_bytes())
    });
    of_scene.map(|process| process.file_name().to_string_lossy().into_owned()).collect()
}

fn succeeds(scene: &str, world_size: usize) {
    let output = run(scene, world_size);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert_eq!(text.matches("scene is done").count(), world_size, "{text}");
}

/// A scene in which rank 1 of three comes to harm: the others say so in time, and nobody is left.
fn names_the_culprit(scene: &str, says: &str) {
    let began = Instant::now();
    let output = run(scene, 3);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success(), "{text}");
    for rank in [0, 2] {
        let line = format!("rank {rank} ends: rank 1 on ");
        let told = text.lines().any(|text| text.contains(&line) && text.contains(says));
        assert!(told, "rank {rank} does not tell: {text}");
    }
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    nobody_is_left_of(scene);
}

fn nobody_is_left_of(scene: &str) {
    let until = Instant::now() + Duration::from_secs(10);
    while !left_over(scene).is_empty() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(left_over(scene), Vec::<String>::new());
}

#[test]
fn one_rank_gets_back_what_it_gives() {
    match std::env::var(ranks::SCENE) {
        Ok(scene) => ranks::play(&scene),
        Err(_) => succeeds("collectives", 1),
    }
}

#[test]
fn two_ranks_give_what_a_plain_computation_gives() {
    succeeds("collectives", 2);
}

#[test]
fn four_ranks_give_what_a_plain_computation_gives() {
    succeeds("collectives", 4);
}

#[test]
fn buffers_beyond_64_mib_arrive() {
    succeeds("large", 2);
}

#[test]
fn operations_go_on_while_their_rank_computes() {
    succeeds("overlap", 2);
}

#[test]
fn parts_of_four_ranks_work_without_each_other_and_with_all() {
    succeeds("parts", 4);
}

#[test]
fn waiting_for_a_rank_takes_little_processor_time() {
    succeeds("patience", 2);
}

#[test]
fn other_settings_are_refused_by_all() {
    let output = run("settings", 2);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success(), "{text}");
    for rank in [0, 1] {
        let line = format!("rank {rank} ends: the ranks do not fit together: rank 1 on ");
        assert!(text.contains(&line), "{text}");
    }
}

#[test]
fn a_rank_that_calls_something_else_is_named() {
    names_the_culprit("mismatch", "calls something else than rank 0");
}

#[test]
fn a_rank_that_is_killed_is_named() {
    names_the_culprit("kill", "its connection broke; phase `rollout`");
}

#[test]
fn a_rank_that_is_killed_amidst_a_collective_is_named() {
    names_the_culprit("kill-amidst", "its connection broke; phase `update`");
}

#[test]
fn a_rank_that_is_stopped_is_named() {
    // As silent, or as hanging where its last word comes after others have begun to wait.
    names_the_culprit("stop", "phase `rollout`");
}

#[test]
fn a_rank_that_hangs_is_named() {
    names_the_culprit("hang", "hangs: others wait for it in all-reduce (sum) of length 1000");
}

#[test]
fn the_words_of_a_rank_that_fails_reach_all() {
    names_the_culprit("fail", "failed: no space left on device; phase `checkpoint`");
}

#[test]
fn a_rank_0_that_is_killed_is_named_by_the_others() {
    let output = run("kill-0", 3);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success(), "{text}");
    for rank in [1, 2] {
        assert!(text.contains(&format!("rank {rank} ends: rank 0 on ")), "{text}");
    }
}

#[test]
fn an_abort_ends_all_ranks_whatever_they_do() {
    for scene in ["abort", "abort-amidst"] {
        let output = run(scene, 3);
        assert_eq!(output.status.code(), Some(5), "{}", String::from_utf8_lossy(&output.stdout));
        nobody_is_left_of(scene);
    }
}
