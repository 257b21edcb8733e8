//! The processes of a job: spawned, signaled and killed.

use std::io::{self, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::error::{Error, Result};
use crate::launcher::MPIRUN;
use crate::lines::{self, LineSink, Source};

/// Interval at which processes are polled.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Time for the other processes to exit by themselves after a rank has aborted the job; then they get SIGTERM.
const EXIT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time from SIGTERM to SIGKILL.
const KILL_TIMEOUT: Duration = Duration::from_secs(3);

/// A process to spawn, and the source of the lines that it prints; `None` inherits standard output and error.
pub(crate) struct ProcessSpec {
    pub(crate) command: Command,
    pub(crate) source: Option<Source>,
    /// A folder of its own, which is deleted when the job has ended.
    pub(crate) folder: Option<TempDir>,
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobOutcome {
    /// All processes succeeded.
    Done,
    /// A process reported a usage error.
    UsageError,
    /// A process failed, or was killed.
    Failed,
}

/// Signals that a launcher reacts to while its processes run.
#[derive(Debug, Clone)]
pub(crate) struct LaunchSignals {
    /// The user requested a stop.
    pub(crate) stop: Arc<AtomicBool>,
    /// A rank has aborted the job, which `mpirun` may not notice.
    pub(crate) failed: Arc<AtomicBool>,
}

/// Where the lines go that processes print.
#[derive(Clone, Copy)]
pub(crate) struct Output {
    pub(crate) stdout: fn() -> Box<dyn LineSink>,
    pub(crate) stderr: fn() -> Box<dyn LineSink>,
}

/// The processes, and the threads that copy what they print.
struct Processes {
    children: Vec<(Child, Option<ExitStatus>)>,
    copying: Vec<JoinHandle<io::Result<()>>>,
    folders: Vec<TempDir>,
}

/// Runs processes until all have exited. If one fails, the others are terminated.
///
/// # Errors
/// A process cannot be spawned or waited for.
pub(crate) fn run(
    process_specs: Vec<ProcessSpec>,
    output: Output,
    signals: &LaunchSignals,
) -> Result<JobOutcome> {
    signals.failed.store(false, Ordering::Relaxed);
    let mut processes =
        Processes { children: Vec::new(), copying: Vec::new(), folders: Vec::new() };
    for start in process_specs {
        let is_mpirun = start.command.get_program() == MPIRUN;
        if let Err(error) = processes.start(start, output) {
            processes.kill();
            return Err(match error.kind() {
                io::ErrorKind::NotFound if is_mpirun => Error::NoMpirun,
                _ => Error::Io { what: "start the ranks", source: error },
            });
        }
    }
    let (mut stop_sent, mut failed, mut term_sent) = (false, None, false);
    while processes.any_running()? {
        if signals.stop.load(Ordering::Relaxed) && !stop_sent {
            stop_sent = true;
            processes.signal(Signal::USR1);
        }
        if signals.failed.load(Ordering::Relaxed) || processes.outcome() == Some(JobOutcome::Failed)
        {
            failed.get_or_insert_with(Instant::now);
        }
        let since = failed.map_or(Duration::ZERO, |failed: Instant| failed.elapsed());
        if since > EXIT_TIMEOUT && !term_sent {
            term_sent = true;
            processes.signal(Signal::TERM);
        }
        if since > EXIT_TIMEOUT + KILL_TIMEOUT {
            processes.kill();
        }
        thread::sleep(POLL_INTERVAL);
    }
    processes.drain_output();
    let ended = processes.outcome().unwrap_or(JobOutcome::Done);
    Ok(if failed.is_some() && ended == JobOutcome::Done { JobOutcome::Failed } else { ended })
}

impl Processes {
    fn start(&mut self, spec: ProcessSpec, output: Output) -> io::Result<()> {
        let ProcessSpec { mut command, source, folder } = spec;
        self.folders.extend(folder);
        // Ctrl-C reaches this process alone, which forwards it.
        command.process_group(0);
        if source.is_some() {
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        let mut child = command.spawn()?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        self.children.push((child, None));
        let Some(source) = source else { return Ok(()) };
        let other = source.clone();
        self.copying.extend(out.map(|from| {
            let mut sink = (output.stdout)();
            thread::spawn(move || lines::copy(BufReader::new(from), &mut *sink, &source))
        }));
        self.copying.extend(err.map(|from| {
            let mut sink = (output.stderr)();
            thread::spawn(move || lines::copy(BufReader::new(from), &mut *sink, &other))
        }));
        Ok(())
    }

    /// Whether any process is still running.
    fn any_running(&mut self) -> Result<bool> {
        for (child, status) in &mut self.children {
            if status.is_none() {
                *status = child.try_wait().map_err(Error::io("wait for the ranks"))?;
            }
        }
        Ok(self.children.iter().any(|(_, status)| status.is_none()))
    }

    /// The worst outcome so far. A usage error counts above all: it is the cause of the other failures.
    fn outcome(&self) -> Option<JobOutcome> {
        let codes = || self.children.iter().filter_map(|(_, status)| *status).map(|it| it.code());
        if codes().any(|code| code == Some(2)) {
            return Some(JobOutcome::UsageError);
        }
        if codes().any(|code| code != Some(0)) {
            return Some(JobOutcome::Failed);
        }
        codes().next().map(|_| JobOutcome::Done)
    }

    fn running(&self) -> impl Iterator<Item = Pid> {
        let left = self.children.iter().filter(|(_, status)| status.is_none());
        left.map(|(child, _)| Pid::from_child(child))
    }

    fn signal(&self, signal: Signal) {
        for id in self.running() {
            // Fails only for a process that has just exited.
            let _ = kill_process(id, signal);
        }
    }

    /// Kills the running processes with all their descendants.
    fn kill(&self) {
        for id in self.running() {
            for id in descendants(id) {
                let _ = kill_process(id, Signal::KILL);
            }
            let _ = kill_process(id, Signal::KILL);
        }
    }

    /// Waits for the last lines, but not forever: a descendant may hold a pipe open.
    fn drain_output(&self) {
        let until = Instant::now() + KILL_TIMEOUT;
        while self.copying.iter().any(|copy| !copy.is_finished()) && Instant::now() < until {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// All descendants of `root`.
fn descendants(root: Pid) -> Vec<Pid> {
    let parents: Vec<(i32, i32)> = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let id = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            // The name in parentheses may hold anything.
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
            Some((id, parent))
        })
        .collect();
    let mut found = vec![root.as_raw_nonzero().get()];
    let mut at = 0;
    while let Some(&parent) = found.get(at) {
        found.extend(parents.iter().filter(|(_, its)| *its == parent).map(|(id, _)| *id));
        at += 1;
    }
    found.into_iter().skip(1).filter_map(Pid::from_raw).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// These processes inherit standard output and error.
    const NONE: Output = Output { stdout: || unreachable!(), stderr: || unreachable!() };

    fn shell(script: &str) -> ProcessSpec {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        ProcessSpec { command, source: None, folder: None }
    }

    fn signals() -> LaunchSignals {
        LaunchSignals { stop: Arc::default(), failed: Arc::default() }
    }

    #[test]
    fn the_worst_outcome_counts_and_a_usage_error_above_all() {
        let outcome =
            |scripts: &[&str]| run(scripts.iter().map(|it| shell(it)).collect(), NONE, &signals());
        assert_eq!(outcome(&["exit 0", "exit 0"]).unwrap(), JobOutcome::Done);
        assert_eq!(outcome(&["exit 0", "exit 1"]).unwrap(), JobOutcome::Failed);
        assert_eq!(outcome(&["exit 2", "exit 1"]).unwrap(), JobOutcome::UsageError);
        assert_eq!(outcome(&["kill -9 $$"]).unwrap(), JobOutcome::Failed);
    }

    #[test]
    fn a_failure_kills_processes_that_ignore_signals_and_their_descendants() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("id");
        let ignoring = format!(
            "trap '' TERM; sh -c 'trap \"\" TERM; echo $$ > {}; sleep 600; true'; true",
            file.display()
        );
        assert_eq!(
            run(vec![shell(&ignoring), shell("sleep 1; exit 1")], NONE, &signals()).unwrap(),
            JobOutcome::Failed
        );
        let id: i32 = std::fs::read_to_string(file).unwrap().trim().parse().unwrap();
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
    }

    #[test]
    fn a_hanging_launcher_is_terminated_after_a_rank_has_aborted() {
        let signals = signals();
        let failed = Arc::clone(&signals.failed);
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(300));
            failed.store(true, Ordering::Relaxed);
        });
        assert_eq!(
            run(vec![shell("trap 'exit 0' TERM; while :; do sleep 1; done")], NONE, &signals)
                .unwrap(),
            JobOutcome::Failed
        );
    }

    #[test]
    fn a_stop_request_is_forwarded() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("listens");
        let signals = signals();
        let (stop, ready) = (Arc::clone(&signals.stop), file.clone());
        thread::spawn(move || {
            while !ready.exists() {
                thread::sleep(Duration::from_millis(10));
            }
            stop.store(true, Ordering::Relaxed);
        });
        let script =
            format!("trap 'exit 0' USR1; touch {}; while :; do sleep 0.1; done", file.display());
        assert_eq!(run(vec![shell(&script)], NONE, &signals).unwrap(), JobOutcome::Done);
    }
}
