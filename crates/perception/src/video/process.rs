//! A child process with a time limit.

use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::limits::MAX_MEMORY_BYTES;
use crate::error::{Error, Result};

/// Error lines kept of a process; a damaged file can cause thousands.
const MAX_ERRORS: usize = 8;

/// Bytes kept of an error line, which may quote a whole file.
const MAX_ERROR_BYTES: u64 = 1000;

/// A running program, killed on drop.
pub(super) struct Process {
    program: &'static str,
    child: Arc<Mutex<Child>>,
    errors: Option<JoinHandle<Vec<String>>>,
    timed_out: Arc<AtomicBool>,
    /// Dropping it stops the watchdog.
    watchdog: Option<Sender<()>>,
}

/// The exit of a process.
pub(super) struct ExitReport {
    /// Whether its exit status was 0.
    pub(super) success: bool,
    /// Whether it was killed at its time limit.
    pub(super) timed_out: bool,
    /// Its first error messages.
    pub(super) errors: Vec<String>,
}

impl Process {
    /// Starts `command`, which runs `program`, with the time limit `limit` and `input` as its stdin.
    pub(super) fn start(
        program: &'static str,
        command: &mut Command,
        input: Stdio,
        limit: Duration,
    ) -> Result<(Self, ChildStdout, Option<ChildStdin>)> {
        let mut child = command
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(Error::ffmpeg(program))?;
        limit_memory(&child);
        let stdin = child.stdin.take();
        let pipes = child.stdout.take().zip(child.stderr.take());
        let child = Arc::new(Mutex::new(child));
        let timed_out = Arc::new(AtomicBool::new(false));
        let watchdog = watch(child.clone(), timed_out.clone(), limit);
        let mut process =
            Self { program, child, errors: None, timed_out, watchdog: Some(watchdog) };
        let missing = || Error::ffmpeg(program)(ErrorKind::BrokenPipe.into());
        let (stdout, stderr) = pipes.ok_or_else(missing)?;
        // An unread stderr pipe would block the process.
        process.errors = Some(std::thread::spawn(move || first_lines(stderr)));
        Ok((process, stdout, stdin))
    }

    /// Waits for the process after its output has ended.
    pub(super) fn finish(mut self) -> Result<ExitReport> {
        let success = self.wait()?.success();
        let errors = self.errors.take().and_then(|thread| thread.join().ok());
        let timed_out = self.timed_out.load(Ordering::SeqCst);
        Ok(ExitReport { success, timed_out, errors: errors.unwrap_or_default() })
    }

    /// Waits by polling, so that the watchdog can lock the child.
    fn wait(&self) -> Result<ExitStatus> {
        let mut pause = Duration::from_micros(100);
        loop {
            let ended = self.child.lock().unwrap_or_else(PoisonError::into_inner).try_wait();
            if let Some(status) = ended.map_err(Error::ffmpeg(self.program))? {
                return Ok(status);
            }
            std::thread::sleep(pause);
            pause = (2 * pause).min(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.watchdog.take();
        kill(&self.child);
        // Fails only if the process was waited for already.
        let _ = self.child.lock().unwrap_or_else(PoisonError::into_inner).wait();
    }
}

/// Kills the child; fails only if it has ended already.
fn kill(child: &Mutex<Child>) {
    let _ = child.lock().unwrap_or_else(PoisonError::into_inner).kill();
}

/// Kills the child after `limit`, unless the returned sender is dropped before.
fn watch(child: Arc<Mutex<Child>>, timed_out: Arc<AtomicBool>, limit: Duration) -> Sender<()> {
    let (watchdog, dropped) = channel();
    std::thread::spawn(move || {
        if dropped.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
            timed_out.store(true, Ordering::SeqCst);
            kill(&child);
        }
    });
    watchdog
}

/// The first lines of `source`, truncated; `source` is read to its end.
fn first_lines(source: impl Read) -> Vec<String> {
    let mut source = BufReader::new(source);
    let mut lines = Vec::new();
    loop {
        let mut line = Vec::new();
        match (&mut source).take(MAX_ERROR_BYTES).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return lines,
            Ok(_) if lines.len() < MAX_ERRORS => {
                lines.push(String::from_utf8_lossy(&line).trim().to_owned());
            }
            Ok(_) => {}
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
    use std::time::Instant;

    use super::*;

    fn shell(script: &str, limit: Duration) -> (Vec<u8>, ExitReport) {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let (process, mut stdout, _) =
            Process::start("sh", &mut command, Stdio::null(), limit).unwrap();
        let mut output = Vec::new();
        stdout.read_to_end(&mut output).unwrap();
        (output, process.finish().unwrap())
    }

    #[test]
    fn an_endless_process_is_killed_at_its_time_limit() {
        let start = Instant::now();
        let (_, exit) = shell("exec sleep 600", Duration::from_millis(200));
        assert!(exit.timed_out && !exit.success);
        assert!(start.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn the_first_error_lines_are_kept() {
        let script = "echo out; for i in 1 2 3 4 5 6 7 8 9 10; do echo line $i >&2; done; exit 3";
        let (output, exit) = shell(script, Duration::from_secs(60));
        assert_eq!(output, b"out\n");
        assert!(!exit.success && !exit.timed_out);
        assert_eq!(exit.errors.len(), MAX_ERRORS);
        assert_eq!(exit.errors[0], "line 1");
    }
}
