//! Ranks over MPI: each test runs this binary again under `mpirun`, where [`RANK_TEST`] runs its scenario.
#![cfg(feature = "mpi")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

mod ranks;

/// The test that runs as a rank under `mpirun`.
const RANK_TEST: &str = "one_rank_gets_its_input_back";

/// Runs `scenario` on `world_size` ranks; returns the output of `mpirun` and the ranks.
fn run(scenario: &str, world_size: usize) -> Output {
    let file = tempfile(scenario);
    let log = std::fs::File::create(&file).unwrap();
    let mut child = mpirun(scenario, world_size)
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
            panic!("{scenario} does not end: {}", std::fs::read_to_string(&file).unwrap());
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let stdout = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    Output { status, stdout, stderr: Vec::new() }
}

fn tempfile(scenario: &str) -> std::path::PathBuf {
    std::env::temp_dir().join(format!("dist-{}-{scenario}", std::process::id()))
}

fn mpirun(scenario: &str, world_size: usize) -> Command {
    let mut command = Command::new("mpirun");
    command
        .args(["--oversubscribe", "--tag-output", "-n", &world_size.to_string()])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", RANK_TEST, "--nocapture", "--test-threads=1"])
        .env(ranks::SCENARIO, scenario)
        .env("EMBODIED_R_DIST_MARK", mark(scenario))
        // Tests may run as root, and in parallel on few cores.
        .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
        .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
        .env("OMPI_MCA_hwloc_base_binding_policy", "none");
    command
}

/// A name that identifies the processes of a scenario.
fn mark(scenario: &str) -> String {
    format!("dist-{}-{scenario}", std::process::id())
}

/// The surviving processes of a scenario.
fn survivors(scenario: &str) -> Vec<String> {
    let mark = format!("EMBODIED_R_DIST_MARK={}", mark(scenario));
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let of_scenario = processes.filter(|process| {
        let variables = std::fs::read(process.path().join("environ")).unwrap_or_default();
        variables.split(|&byte| byte == 0).any(|variable| variable == mark.as_bytes())
    });
    of_scenario.map(|process| process.file_name().to_string_lossy().into_owned()).collect()
}

fn succeeds(scenario: &str, world_size: usize) {
    let output = run(scenario, world_size);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert_eq!(text.matches("scenario is done").count(), world_size, "{text}");
}

/// A scenario in which rank 1 of three fails: the others report it in time, and no process survives.
fn names_the_failed_rank(scenario: &str, message: &str) {
    let began = Instant::now();
    let output = run(scenario, 3);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success(), "{text}");
    for rank in [0, 2] {
        let line = format!("rank {rank} ends: rank 1 on ");
        let reported = text.lines().any(|text| text.contains(&line) && text.contains(message));
        assert!(reported, "rank {rank} does not report the failure: {text}");
    }
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    no_process_survives(scenario);
}

fn no_process_survives(scenario: &str) {
    let until = Instant::now() + Duration::from_secs(10);
    while !survivors(scenario).is_empty() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(survivors(scenario), Vec::<String>::new());
}

#[test]
fn one_rank_gets_its_input_back() {
    match std::env::var(ranks::SCENARIO) {
        Ok(scenario) => ranks::run(&scenario),
        Err(_) => succeeds("collectives", 1),
    }
}

#[test]
fn collectives_of_two_ranks_match_a_serial_computation() {
    succeeds("collectives", 2);
}

#[test]
fn collectives_of_four_ranks_match_a_serial_computation() {
    succeeds("collectives", 4);
}

#[test]
fn buffers_beyond_64_mib_arrive() {
    succeeds("large", 2);
}

#[test]
fn operations_progress_while_the_rank_computes() {
    succeeds("overlap", 2);
}

#[test]
fn subgroups_of_four_ranks_and_the_world_communicate_independently() {
    succeeds("parts", 4);
}

#[test]
fn waiting_for_a_rank_takes_little_cpu_time() {
    succeeds("patience", 2);
}

#[test]
fn mismatched_settings_are_refused_on_all_ranks() {
    let output = run("settings", 2);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success(), "{text}");
    for rank in [0, 1] {
        let line = format!("rank {rank} ends: rendezvous failed: rank 1 on ");
        assert!(text.contains(&line), "{text}");
    }
}

#[test]
fn a_rank_with_a_mismatched_collective_is_named() {
    names_the_failed_rank("mismatch", "called a different collective than rank 0");
}

#[test]
fn a_rank_that_is_killed_is_named() {
    names_the_failed_rank("kill", "lost its connection; phase `rollout`");
}

#[test]
fn a_rank_that_is_killed_during_a_collective_is_named() {
    names_the_failed_rank("kill-amidst", "lost its connection; phase `update`");
}

#[test]
fn a_rank_that_is_stopped_is_named() {
    // Reported as silent, or as hung if its last heartbeat arrives after others have started to wait.
    names_the_failed_rank("stop", "phase `rollout`");
}

#[test]
fn a_rank_that_hangs_is_named() {
    let message = "hangs: other ranks wait for it in all-reduce (sum) of length 1000";
    names_the_failed_rank("hang", message);
}

#[test]
fn the_error_of_a_failed_rank_reaches_all() {
    names_the_failed_rank("fail", "failed: no space left on device; phase `checkpoint`");
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
fn an_abort_ends_all_ranks() {
    for scenario in ["abort", "abort-amidst"] {
        let output = run(scenario, 3);
        assert_eq!(output.status.code(), Some(5), "{}", String::from_utf8_lossy(&output.stdout));
        no_process_survives(scenario);
    }
}
