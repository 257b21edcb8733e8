//! Fault injection on two machines: the run aborts in time on both, names the failed rank, leaves no process, and
//! resumes from its last checkpoint. The machines are network namespaces, so these tests need root.
#![cfg(feature = "mpi")]

mod hosts;
mod job;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use embodied_r_tests::{binary, skipped, tiny_run};
use hosts::Hosts;
use job::{Ended, Job, assert_resumes, endless, succeeds};
use tempfile::TempDir;

/// The heartbeat deadline in seconds.
const DEADLINE: &str = "4";
/// The time limit for a run to abort after a fault: ten seconds after the deadline.
const ABORT_LIMIT: Duration = Duration::from_secs(14);

/// A folder with inputs, and two machines. `None`, with the test reported as skipped, without network namespaces.
fn workspace() -> Option<(TempDir, Hosts)> {
    let dir = tempfile::tempdir().unwrap();
    tiny_run::write(dir.path());
    let hosts = Hosts::new(dir.path());
    if hosts.is_none() {
        skipped("this machine does not allow network namespaces");
    }
    hosts.map(|hosts| (dir, hosts))
}

/// Starts a run on both machines by the program's own launcher.
fn launch(hosts: &Hosts, dir: &Path, more: &[&str]) -> Job {
    let mut command = hosts.command(binary());
    command.args(endless(DEADLINE)).args(["--ranks", "2", "--hostfile", &hosts.hostfile()]);
    command.args(more);
    Job::start(command, dir)
}

/// Waits for a checkpoint to resume from.
fn wait_for_checkpoint(job: &mut Job, dir: &Path) {
    job.wait_for("checkpoint", |_| dir.join("run/checkpoint-2").exists().then_some(()));
}

/// Asserts that a run aborted in time with these messages, and resumes.
fn assert_aborted(ended: &Ended, dir: &Path, messages: &[&str]) {
    assert_eq!(ended.code, Some(1), "{}", ended.text);
    for message in messages {
        assert!(ended.text.contains(message), "no `{message}`: {}", ended.text);
    }
    assert!(ended.took < ABORT_LIMIT, "{:?}: {}", ended.took, ended.text);
    assert_resumes(dir);
}

/// Injects `fault` into rank 1 or the link in every phase, and checks the messages of rank 0.
fn in_every_phase(fault: impl Fn(&Job, &Hosts), messages: &[&str]) {
    for phase in ["rollout", "update", "checkpoint"] {
        let Some((dir, hosts)) = workspace() else { return };
        let mut job = launch(&hosts, dir.path(), &["--set", "save_steps=1"]);
        wait_for_checkpoint(&mut job, dir.path());
        job.stop_in(1, phase);
        fault(&job, &hosts);
        assert_aborted(&job.end(), dir.path(), messages);
    }
}

#[test]
fn a_rank_killed_in_any_phase_aborts_the_run() {
    let messages = ["[0] error: rank 1 on `hostb` lost its connection; phase `"];
    in_every_phase(|job, _| job.signal(1, "KILL"), &messages);
}

#[test]
fn a_rank_stopped_in_any_phase_is_named_after_the_deadline() {
    let messages = ["[0] error: rank 1 on `hostb` sent no heartbeat; phase `", ", waited 4."];
    in_every_phase(|_, _| (), &messages);
}

#[test]
fn a_link_cut_in_any_phase_aborts_the_run_on_both_sides() {
    let messages = ["[0] error: rank 1 on `hostb` sent no heartbeat; phase `", ", waited 4."];
    let fault = |job: &Job, hosts: &Hosts| {
        hosts.cut();
        job.signal(1, "CONT");
    };
    in_every_phase(fault, &messages);
}

#[test]
fn a_rank_killed_in_a_reduction_over_a_slow_link_aborts_the_run() {
    let Some((dir, hosts)) = workspace() else { return };
    let mut job = launch(&hosts, dir.path(), &[]);
    wait_for_checkpoint(&mut job, dir.path());
    hosts.slow(200);
    job.wait_for_phase(1, "update");
    // The gradient reduction of an update now takes more than a second.
    std::thread::sleep(Duration::from_millis(600));
    job.signal(1, "KILL");
    let messages = ["rank 1 on `hostb` lost its connection; phase `update`, last entered "];
    assert_aborted(&job.end(), dir.path(), &messages);
}

#[test]
fn a_stopped_rank_0_is_named_by_the_others() {
    let Some((dir, hosts)) = workspace() else { return };
    let mut job = launch(&hosts, dir.path(), &[]);
    wait_for_checkpoint(&mut job, dir.path());
    job.signal(0, "STOP");
    let messages =
        ["[1] error: rank 0 on `hosta` sent no heartbeat; phase `unknown`, waited 4.0 s"];
    assert_aborted(&job.end(), dir.path(), &messages);
}

#[test]
fn a_rank_killed_for_lack_of_memory_is_named() {
    let Some((dir, hosts)) = workspace() else { return };
    let Some(group) = MemoryLimit::new(dir.path()) else {
        skipped("this machine does not allow control groups");
        return;
    };
    let mut job = launch(&hosts, dir.path(), &[]);
    wait_for_checkpoint(&mut job, dir.path());
    group.add(&job.rank(1));
    let messages = ["error: rank 1 on `hostb` lost its connection; phase `"];
    assert_aborted(&job.end(), dir.path(), &messages);
}

#[test]
fn a_rank_that_cannot_write_its_shard_of_a_checkpoint_is_named() {
    let Some((dir, hosts)) = workspace() else { return };
    let mut job = launch(&hosts, dir.path(), &[]);
    wait_for_checkpoint(&mut job, dir.path());
    // Rank 1 writes no other files.
    assert!(succeeds("prlimit", &["--pid", &job.rank(1), "--fsize=1", "--core=0"]));
    let messages = ["rank 1 on `hostb` lost its connection; phase `checkpoint`"];
    assert_aborted(&job.end(), dir.path(), &messages);
}

#[test]
fn a_full_disk_aborts_the_run_and_is_reported() {
    let Some((dir, hosts)) = workspace() else { return };
    let run = dir.path().join("run");
    fs::create_dir(&run).unwrap();
    let disk = Disk::new(&run);
    let mut job = launch(&hosts, dir.path(), &[]);
    wait_for_checkpoint(&mut job, dir.path());
    disk.fill();
    let ended = job.end();
    disk.empty();
    assert_aborted(&ended, dir.path(), &["[0] error: ", "No space left on device"]);
}

#[test]
fn a_slow_link_and_a_slow_rank_cause_no_abort() {
    let Some((dir, hosts)) = workspace() else { return };
    hosts.slow(400);
    let mut job = launch(&hosts, dir.path(), &[]);
    wait_for_checkpoint(&mut job, dir.path());
    // For twice the deadline, the rank runs only 30 % of the time.
    for _ in 0..8 {
        job.signal(1, "STOP");
        std::thread::sleep(Duration::from_millis(700));
        job.signal(1, "CONT");
        std::thread::sleep(Duration::from_millis(300));
    }
    assert!(succeeds("kill", &["-s", "INT", &job.launcher()]));
    let ended = job.end();
    assert_eq!(ended.code, Some(1), "{}", ended.text);
    assert!(ended.text.contains("[0] stopped at run/checkpoint-"), "{}", ended.text);
    assert_resumes(dir.path());
}

#[test]
fn under_another_launcher_every_rank_exits_with_an_error() {
    let Some((dir, hosts)) = workspace() else { return };
    let script = "\"$0\" \"$@\"; code=$?; echo $code > exit-$OMPI_COMM_WORLD_RANK; exit $code";
    let mut command = hosts.command(Path::new("mpirun"));
    command.args(["--hostfile", &hosts.hostfile(), "-n", "2", "sh", "-c", script]);
    command.arg(binary()).args(endless(DEADLINE)).args(["--set", "save_steps=1"]);
    let mut job = Job::start(command, dir.path());
    wait_for_checkpoint(&mut job, dir.path());
    job.signal(1, "KILL");
    let ended = job.end();
    assert_ne!(ended.code, Some(0), "{}", ended.text);
    assert!(ended.text.contains("rank 1 on `hostb` lost its connection"), "{}", ended.text);
    let code = |rank: u32| fs::read_to_string(dir.path().join(format!("exit-{rank}")));
    assert_eq!(code(0).unwrap().trim(), "1", "{}", ended.text);
    assert_eq!(code(1).unwrap().trim(), "137", "{}", ended.text);
}

#[test]
fn an_interrupt_stops_all_ranks_after_a_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    tiny_run::write(dir.path());
    let mut command = Command::new(binary());
    command.args(endless("60")).args(["--ranks", "2", "--restarts", "3"]);
    let mut job = Job::start(command, dir.path());
    job.wait_for_phase(1, "rollout");
    job.wait_for_phase(1, "update");
    assert!(succeeds("kill", &["-s", "INT", &job.launcher()]));
    let ended = job.end();
    assert_eq!(ended.code, Some(1), "{}", ended.text);
    assert!(ended.text.contains("[0] stopped at run/checkpoint-"), "{}", ended.text);
    assert!(!ended.text.contains("restart"), "{}", ended.text);
    assert_resumes(dir.path());
}

#[test]
fn a_killed_launcher_leaves_no_ranks() {
    let dir = tempfile::tempdir().unwrap();
    tiny_run::write(dir.path());
    let mut command = Command::new(binary());
    command.args(endless("60")).args(["--ranks", "2"]);
    let mut job = Job::start(command, dir.path());
    job.wait_for_phase(1, "update");
    assert!(succeeds("kill", &["-s", "KILL", &job.launcher()]));
    assert_eq!(job.end().code, None);
}

/// Runs two ranks on this machine as two programs with their own arguments, which must fail. Returns standard error.
fn run_mismatched(dir: &Path, programs: [&Path; 2], more: [&[&str]; 2]) -> String {
    let mut command = Command::new("mpirun");
    command.args(["--oversubscribe", "--bind-to", "none"]).current_dir(dir);
    command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    for (rank, (program, more)) in programs.into_iter().zip(more).enumerate() {
        let separator: &[&str] = if rank == 0 { &[] } else { &[":"] };
        command.args(separator).args(["-n", "1"]).arg(program).args(endless("60")).args(more);
    }
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{text}");
    assert!(!dir.join("run").exists(), "work has started: {text}");
    text
}

#[test]
fn mismatched_ranks_are_refused_before_any_work() {
    let dir = tempfile::tempdir().unwrap();
    tiny_run::write(dir.path());
    let other = dir.path().join("embodied-r");
    let mut build = fs::read(binary()).unwrap();
    build.push(0);
    fs::write(&other, build).unwrap();
    assert!(succeeds("chmod", &["+x", &other.display().to_string()]));
    let same = [binary(), binary()];
    let seeds: [&[&str]; 2] = [&["--set", "seed=1"], &["--set", "seed=2"]];
    let cases = [
        (
            run_mismatched(dir.path(), same, [&["--ranks", "3"]; 2]),
            "`--ranks` is 3, but the launcher started 2",
        ),
        (run_mismatched(dir.path(), same, seeds), "`seed` differs between rank 0 and rank 1"),
        (
            run_mismatched(dir.path(), [binary(), &other], [&[]; 2]),
            "rendezvous failed: rank 1 on `",
        ),
    ];
    for (stderr, message) in cases {
        assert!(stderr.contains(message), "no `{message}`: {stderr}");
    }
}

/// A control group with a memory limit of 64 KiB.
struct MemoryLimit(std::path::PathBuf);

impl MemoryLimit {
    fn new(dir: &Path) -> Option<Self> {
        let name = dir.file_name()?;
        let versions = [("memory", "memory.limit_in_bytes"), (".", "memory.max")];
        versions.into_iter().find_map(|(folder, limit)| {
            let group = Path::new("/sys/fs/cgroup").join(folder).join(name);
            fs::create_dir(&group).ok()?;
            let group = Self(group);
            fs::write(group.0.join(limit), "65536").ok().map(|()| group)
        })
    }

    /// Adds a process. Its existing memory does not count.
    fn add(&self, id: &str) {
        fs::write(self.0.join("cgroup.procs"), id).unwrap();
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// A disk of 8 MiB.
struct Disk<'a>(&'a Path);

impl<'a> Disk<'a> {
    fn new(at: &'a Path) -> Self {
        let path = at.display().to_string();
        assert!(succeeds("mount", &["-t", "tmpfs", "-o", "size=8m", "disk", &path]));
        Self(at)
    }

    fn fill(&self) {
        use std::io::Write as _;
        let mut file = fs::File::create(self.0.join("filler")).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    fn empty(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        succeeds("umount", &["--lazy", &self.0.display().to_string()]);
    }
}
