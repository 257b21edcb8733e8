//! A child process that ends at its deadline, when it is stopped, and when this program dies, with all
//! processes that it started.
//!
//! `ffmpeg` on the PATH may be a wrapper script whose own children hold the pipes. Every program therefore
//! runs in a process group of its own, which is killed as a whole, and its pipes are never waited for after
//! that.

mod group;

use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use embodied_r_process::{GRACE, Guard, reap};
use group::Group;
pub(crate) use group::{Deadline, Killed};

use crate::error::{Error, Result};
use crate::limits::MAX_MEMORY_BYTES;

/// Error lines kept of a process; a damaged file can cause thousands.
const MAX_ERRORS: usize = 8;

/// Bytes kept of an error line, which may quote a whole file.
const MAX_ERROR_BYTES: u64 = 1000;

/// A running program, killed on drop.
pub(crate) struct Process {
    program: &'static str,
    child: Child,
    group: Arc<Group>,
    errors: Arc<Mutex<Vec<String>>>,
    /// Disconnected when standard error has ended.
    errors_ended: Receiver<()>,
}

/// The exit of a process.
pub(crate) struct ExitReport {
    /// Whether its exit status was 0.
    pub(crate) success: bool,
    /// Why it was killed, if it was.
    pub(crate) killed: Option<Killed>,
    /// Its first error messages.
    pub(crate) errors: Vec<String>,
}

/// The standard output of a process. It ends when the process is killed, even while another process holds the pipe open.
pub(crate) struct Output {
    pipe: ChildStdout,
    group: Arc<Group>,
}

impl Process {
    /// Starts `command`, which runs `program`, until `deadline`, with `input` as its stdin.
    pub(crate) fn start(
        program: &'static str,
        command: &mut Command,
        input: Stdio,
        deadline: Deadline,
    ) -> Result<(Self, Output, Option<ChildStdin>)> {
        let guard = Guard::start()
            .map_err(|error| tracing::debug!("cannot guard a child process: {error}"))
            .ok();
        match &guard {
            Some(guard) => guard.admit(command),
            None => command.process_group(0),
        };
        let mut child = command
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(Error::ffmpeg(program))?;
        limit_memory(&child);
        let stdin = child.stdin.take();
        let pipes = child.stdout.take().zip(child.stderr.take());
        let group = Arc::new(Group::of(&child, guard, deadline));
        let errors = Arc::default();
        let (reading, errors_ended) = channel();
        let process = Self {
            program,
            child,
            group: Arc::clone(&group),
            errors: Arc::clone(&errors),
            errors_ended,
        };
        let missing = || Error::ffmpeg(program)(ErrorKind::BrokenPipe.into());
        let (pipe, stderr) = pipes.ok_or_else(missing)?;
        // An unread stderr pipe would block the process. The thread is not joined: another process may hold the pipe.
        std::thread::spawn(move || {
            keep_first_lines(stderr, &errors);
            drop(reading);
        });
        Ok((process, Output { pipe, group }, stdin))
    }

    /// Waits for the process after its output has ended.
    pub(crate) fn finish(mut self) -> Result<ExitReport> {
        let success = self.wait()?.is_some_and(|status| status.success());
        // What it left running in the background.
        self.group.end();
        let _ = self.errors_ended.recv_timeout(GRACE);
        let errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(ExitReport { success, killed: self.group.killed(), errors })
    }

    /// The exit status; `None` if the process was killed and does not end.
    fn wait(&mut self) -> Result<Option<ExitStatus>> {
        let mut pause = Duration::from_micros(100);
        let mut killed_at = None;
        loop {
            if let Some(status) = self.child.try_wait().map_err(Error::ffmpeg(self.program))? {
                return Ok(Some(status));
            }
            if self.group.is_over() && killed_at.get_or_insert_with(Instant::now).elapsed() > GRACE
            {
                return Ok(None);
            }
            std::thread::sleep(pause);
            pause = (2 * pause).min(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.group.end();
        reap(&mut self.child);
    }
}

impl Read for Output {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.group.wait_for(&self.pipe) {
            true => self.pipe.read(buffer),
            false => Ok(0),
        }
    }
}

/// Keeps the first lines of `source`, truncated; `source` is read to its end.
fn keep_first_lines(source: impl Read, lines: &Mutex<Vec<String>>) {
    let mut source = BufReader::new(source);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut source).take(MAX_ERROR_BYTES).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
                if lines.len() < MAX_ERRORS {
                    lines.push(String::from_utf8_lossy(&line).trim().to_owned());
                }
            }
        }
    }
}

/// Limits the child's memory; otherwise only FFmpeg's own limits apply.
#[cfg(target_os = "linux")]
fn limit_memory(child: &Child) {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let limit = Rlimit { current: Some(MAX_MEMORY_BYTES), maximum: Some(MAX_MEMORY_BYTES) };
    let bounded = prlimit(Some(Pid::from_child(child)), Resource::Data, limit);
    if let Err(error) = bounded {
        tracing::debug!("cannot limit the memory of a child process: {error}");
    }
}

#[cfg(not(target_os = "linux"))]
fn limit_memory(_: &Child) {
    let _ = MAX_MEMORY_BYTES;
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    /// Longer than any test waits, shorter than the sleeping processes of the scripts.
    const SOON: Duration = Duration::from_secs(120);

    fn start(script: &str, deadline: Deadline) -> (Process, Output) {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let (process, output, _) =
            Process::start("sh", &mut command, Stdio::null(), deadline).unwrap();
        (process, output)
    }

    fn within(limit: Duration) -> Deadline {
        Deadline { at: Instant::now() + limit, stop: Arc::default() }
    }

    fn run(script: &str, deadline: Deadline) -> (String, ExitReport) {
        let (process, mut output) = start(script, deadline);
        let mut text = String::new();
        output.read_to_string(&mut text).unwrap();
        drop(output);
        (text, process.finish().unwrap())
    }

    fn is_running(id: &str) -> bool {
        let state =
            std::fs::read_to_string(format!("/proc/{}/stat", id.trim())).unwrap_or_default();
        state.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with(['Z', 'X']))
    }

    fn ends(id: &str) -> bool {
        let start = Instant::now();
        while is_running(id) && start.elapsed() < SOON {
            std::thread::sleep(Duration::from_millis(10));
        }
        !is_running(id)
    }

    #[test]
    fn an_endless_process_is_killed_at_its_time_limit() {
        let start = Instant::now();
        let (_, exit) = run("exec sleep 600", within(Duration::from_millis(200)));
        assert_eq!((exit.killed, exit.success), (Some(Killed::TimedOut), false));
        assert!(start.elapsed() < SOON);
    }

    #[test]
    fn the_children_of_a_wrapper_script_are_killed_with_it() {
        let start = Instant::now();
        let (child, exit) = run("sleep 600 & echo $!; wait", within(Duration::from_millis(500)));
        assert_eq!(exit.killed, Some(Killed::TimedOut));
        assert!(ends(&child), "{child}");
        assert!(start.elapsed() < SOON);
    }

    #[test]
    fn a_pipe_that_another_session_holds_is_not_waited_for() {
        let start = Instant::now();
        let script = "setsid sh -c 'echo $$; exec sleep 600' & wait";
        let (escaped, exit) = run(script, within(Duration::from_millis(500)));
        assert!(start.elapsed() < SOON);
        assert_eq!(exit.killed, Some(Killed::TimedOut));
        assert!(is_running(&escaped), "{escaped}");
        Command::new("kill").arg(escaped.trim()).status().unwrap();
    }

    #[test]
    fn a_stopped_process_is_killed_before_its_time_limit() {
        let deadline = within(Duration::from_secs(600));
        let stop = Arc::clone(&deadline.stop);
        let (process, mut output) = start("sleep 600 & echo $!; wait", deadline);
        let mut child = [0; 64];
        let length = output.read(&mut child).unwrap();
        let begin = Instant::now();
        stop.store(true, Ordering::Relaxed);
        assert_eq!(output.read(&mut [0]).unwrap(), 0);
        assert_eq!(process.finish().unwrap().killed, Some(Killed::Stopped));
        assert!(ends(std::str::from_utf8(&child[..length]).unwrap()));
        assert!(begin.elapsed() < SOON);
    }

    #[test]
    fn what_a_script_leaves_in_the_background_is_killed_when_it_ends() {
        let script = "sleep 600 >/dev/null 2>&1 & echo $!";
        let (child, exit) = run(script, within(Duration::from_secs(600)));
        assert_eq!((exit.killed, exit.success), (None, true));
        assert!(ends(&child), "{child}");
    }

    #[test]
    fn the_first_error_lines_are_kept() {
        let script = "echo out; for i in 1 2 3 4 5 6 7 8 9 10; do echo line $i >&2; done; exit 3";
        let (output, exit) = run(script, within(Duration::from_secs(60)));
        assert_eq!(output, "out\n");
        assert_eq!((exit.killed, exit.success), (None, false));
        assert_eq!(exit.errors.len(), MAX_ERRORS);
        assert_eq!(exit.errors[0], "line 1");
    }
}
