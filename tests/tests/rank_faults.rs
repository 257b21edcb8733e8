//! Ranks that come to harm, on two machines: the run ends in time on all of them, says who it was, leaves no process,
//! and goes on from its last checkpoint. The machines are network namespaces, so these tests need root.
#![cfg(feature = "mpi")]

mod rank_faults {
    pub(crate) mod hosts;
    pub(crate) mod job;
}
mod tiny_model;
mod tiny_run;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use embodied_r_tests::binary;
use rank_faults::hosts::Hosts;
use rank_faults::job::{Ended, Job, assert_resumes, does, endless};
use tempfile::TempDir;

/// How long a rank may be silent, in seconds.
const DEADLINE: &str = "4";
/// Within what a run ends after its ranks came to harm: ten seconds after the deadline.
const WITHIN: Duration = Duration::from_secs(14);

/// A folder with inputs, and two machines; `None`, and a word why, where they cannot be had.
fn place() -> Option<(TempDir, Hosts)> {
    let dir = tempfile::tempdir().unwrap();
    tiny_run::write(dir.path());
    let hosts = Hosts::new(dir.path());
    if hosts.is_none() {
        eprintln!("skipped: network namespaces may not be made here");
    }
    hosts.map(|hosts| (dir, hosts))
}

/// A run on both machines, by the program's own launcher.
fn launched(hosts: &Hosts, dir: &Path, more: &[&str]) -> Job {
    let mut command = hosts.command(binary());
    command.args(endless(DEADLINE)).args(["--ranks", "2", "--hostfile", &hosts.hostfile()]);
    command.args(more);
    Job::start(command, dir)
}

/// Waits until there is a checkpoint to go on from.
fn until_checkpoint(job: &mut Job, dir: &Path) {
    job.until("checkpoint", |_| dir.join("run/checkpoint-2").exists().then_some(()));
}

/// Asserts that a run ended in time, said so, and can go on.
fn assert_ended(ended: &Ended, dir: &Path, says: &[&str]) {
    assert_eq!(ended.code, Some(1), "{}", ended.text);
    for words in says {
        assert!(ended.text.contains(words), "no `{words}`: {}", ended.text);
    }
    assert!(ended.took < WITHIN, "{:?}: {}", ended.took, ended.text);
    assert_resumes(dir);
}

/// Does harm to the second of two ranks, or to the link, in every phase; what the first says then.
fn in_every_phase(harm: impl Fn(&Job, &Hosts), says: &[&str]) {
    for phase in ["rollout", "update", "checkpoint"] {
        let Some((dir, hosts)) = place() else { return };
        let mut job = launched(&hosts, dir.path(), &["--set", "save_steps=1"]);
        until_checkpoint(&mut job, dir.path());
        job.hold(1, phase);
        harm(&job, &hosts);
        assert_ended(&job.end(), dir.path(), says);
    }
}

#[test]
fn a_rank_that_is_killed_in_any_phase_ends_the_run() {
    let says = ["[0] error: rank 1 on `hostb` is lost: its connection broke; phase `"];
    in_every_phase(|job, _| job.signal(1, "KILL"), &says);
}

#[test]
fn a_rank_that_is_stopped_in_any_phase_is_named_after_the_deadline() {
    let says = ["[0] error: rank 1 on `hostb` is lost: it is silent; phase `", ", waited 4."];
    in_every_phase(|_, _| (), &says);
}

#[test]
fn a_link_that_is_cut_in_any_phase_ends_the_run_on_both_sides() {
    let says = ["[0] error: rank 1 on `hostb` is lost: it is silent; phase `", ", waited 4."];
    let harm = |job: &Job, hosts: &Hosts| {
        hosts.cut();
        job.signal(1, "CONT");
    };
    in_every_phase(harm, &says);
}

#[test]
fn a_rank_that_is_killed_in_a_reduction_over_a_slow_link_ends_the_run() {
    let Some((dir, hosts)) = place() else { return };
    let mut job = launched(&hosts, dir.path(), &[]);
    until_checkpoint(&mut job, dir.path());
    hosts.slow(200);
    job.until_phase(1, "update");
    // The sums of an update take more than a second now.
    std::thread::sleep(Duration::from_millis(600));
    job.signal(1, "KILL");
    let says = ["rank 1 on `hostb` is lost: its connection broke; phase `update`, last entered "];
    assert_ended(&job.end(), dir.path(), &says);
}

#[test]
fn a_first_rank_that_is_stopped_is_named_by_the_others() {
    let Some((dir, hosts)) = place() else { return };
    let mut job = launched(&hosts, dir.path(), &[]);
    until_checkpoint(&mut job, dir.path());
    job.signal(0, "STOP");
    let says =
        ["[1] error: rank 0 on `hosta` is lost: it is silent; phase `unknown`, waited 4.0 s"];
    assert_ended(&job.end(), dir.path(), &says);
}

#[test]
fn a_rank_that_gets_no_memory_is_named() {
    let Some((dir, hosts)) = place() else { return };
    let Some(group) = Memory::new(dir.path()) else {
        eprintln!("skipped: control groups may not be made here");
        return;
    };
    let mut job = launched(&hosts, dir.path(), &[]);
    until_checkpoint(&mut job, dir.path());
    group.take(&job.rank(1));
    let says = ["error: rank 1 on `hostb` is lost: its connection broke; phase `"];
    assert_ended(&job.end(), dir.path(), &says);
}

#[test]
fn a_rank_that_may_not_write_its_part_of_a_checkpoint_is_named() {
    let Some((dir, hosts)) = place() else { return };
    let mut job = launched(&hosts, dir.path(), &[]);
    until_checkpoint(&mut job, dir.path());
    // The second rank writes nothing else.
    assert!(does("prlimit", &["--pid", &job.rank(1), "--fsize=1", "--core=0"]));
    let says = ["rank 1 on `hostb` is lost: its connection broke; phase `checkpoint`"];
    assert_ended(&job.end(), dir.path(), &says);
}

#[test]
fn a_disk_that_is_full_ends_the_run_and_says_so() {
    let Some((dir, hosts)) = place() else { return };
    let run = dir.path().join("run");
    fs::create_dir(&run).unwrap();
    let disk = Disk::new(&run);
    let mut job = launched(&hosts, dir.path(), &[]);
    until_checkpoint(&mut job, dir.path());
    disk.fill();
    let ended = job.end();
    disk.empty();
    assert_ended(&ended, dir.path(), &["[0] error: ", "No space left on device"]);
}

#[test]
fn a_slow_link_and_a_slow_rank_are_no_faults() {
    let Some((dir, hosts)) = place() else { return };
    hosts.slow(400);
    let mut job = launched(&hosts, dir.path(), &[]);
    until_checkpoint(&mut job, dir.path());
    // For twice the deadline it computes in a third of the time.
    for _ in 0..8 {
        job.signal(1, "STOP");
        std::thread::sleep(Duration::from_millis(700));
        job.signal(1, "CONT");
        std::thread::sleep(Duration::from_millis(300));
    }
    assert!(does("kill", &["-s", "INT", &job.launcher()]));
    let ended = job.end();
    assert_eq!(ended.code, Some(1), "{}", ended.text);
    assert!(ended.text.contains("[0] stopped at run/checkpoint-"), "{}", ended.text);
    assert_resumes(dir.path());
}

#[test]
fn every_rank_ends_with_an_error_whoever_started_it() {
    let Some((dir, hosts)) = place() else { return };
    let script = "\"$0\" \"$@\"; code=$?; echo $code > exit-$OMPI_COMM_WORLD_RANK; exit $code";
    let mut command = hosts.command(Path::new("mpirun"));
    command.args(["--hostfile", &hosts.hostfile(), "-n", "2", "sh", "-c", script]);
    command.arg(binary()).args(endless(DEADLINE)).args(["--set", "save_steps=1"]);
    let mut job = Job::start(command, dir.path());
    until_checkpoint(&mut job, dir.path());
    job.signal(1, "KILL");
    let ended = job.end();
    assert_ne!(ended.code, Some(0), "{}", ended.text);
    assert!(ended.text.contains("rank 1 on `hostb` is lost"), "{}", ended.text);
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
    job.until_phase(1, "rollout");
    job.until_phase(1, "update");
    assert!(does("kill", &["-s", "INT", &job.launcher()]));
    let ended = job.end();
    assert_eq!(ended.code, Some(1), "{}", ended.text);
    assert!(ended.text.contains("[0] stopped at run/checkpoint-"), "{}", ended.text);
    assert!(!ended.text.contains("restart"), "{}", ended.text);
    assert_resumes(dir.path());
}

#[test]
fn a_launcher_that_is_killed_leaves_nobody() {
    let dir = tempfile::tempdir().unwrap();
    tiny_run::write(dir.path());
    let mut command = Command::new(binary());
    command.args(endless("60")).args(["--ranks", "2"]);
    let mut job = Job::start(command, dir.path());
    job.until_phase(1, "update");
    assert!(does("kill", &["-s", "KILL", &job.launcher()]));
    assert_eq!(job.end().code, None);
}

/// Runs two ranks on this machine as two programs with arguments of their own; what they say.
fn side_by_side(dir: &Path, programs: [&Path; 2], more: [&[&str]; 2]) -> String {
    let mut command = Command::new("mpirun");
    command.args(["--oversubscribe", "--bind-to", "none"]).current_dir(dir);
    command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    for (rank, (program, more)) in programs.into_iter().zip(more).enumerate() {
        let between: &[&str] = if rank == 0 { &[] } else { &[":"] };
        command.args(between).args(["-n", "1"]).arg(program).args(endless("60")).args(more);
    }
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{text}");
    assert!(!dir.join("run").exists(), "work has begun: {text}");
    text
}

#[test]
fn ranks_that_do_not_fit_together_are_refused_before_any_work() {
    let dir = tempfile::tempdir().unwrap();
    tiny_run::write(dir.path());
    let other = dir.path().join("embodied-r");
    let mut build = fs::read(binary()).unwrap();
    build.push(0);
    fs::write(&other, build).unwrap();
    assert!(does("chmod", &["+x", &other.display().to_string()]));
    let own = [binary(), binary()];
    let seeds: [&[&str]; 2] = [&["--set", "seed=1"], &["--set", "seed=2"]];
    let cases = [
        (
            side_by_side(dir.path(), own, [&["--ranks", "3"]; 2]),
            "`--ranks` is 3, but the launcher started 2",
        ),
        (side_by_side(dir.path(), own, seeds), "rank 1 has another `seed` than rank 0"),
        (
            side_by_side(dir.path(), [binary(), &other], [&[]; 2]),
            "the ranks do not fit together: rank 1 on `",
        ),
    ];
    for (told, says) in cases {
        assert!(told.contains(says), "no `{says}`: {told}");
    }
}

/// A control group with next to no memory.
struct Memory(std::path::PathBuf);

impl Memory {
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

    /// Takes a process in; what it has already does not count.
    fn take(&self, id: &str) {
        fs::write(self.0.join("cgroup.procs"), id).unwrap();
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// A small disk.
struct Disk<'a>(&'a Path);

impl<'a> Disk<'a> {
    fn new(at: &'a Path) -> Self {
        let path = at.display().to_string();
        assert!(does("mount", &["-t", "tmpfs", "-o", "size=8m", "disk", &path]));
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
        does("umount", &["--lazy", &self.0.display().to_string()]);
    }
}
