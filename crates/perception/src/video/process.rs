//! A child process that ends by itself or is ended at its deadline.

use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::limits::MOST_BYTES;
use crate::error::{Error, Result};

/// Complaints kept of one process; a damaged file makes thousands.
const COMPLAINTS: usize = 8;

/// Bytes kept of a complaint, which may quote a whole file.
const COMPLAINT_BYTES: u64 = 1000;

/// A running program. It ends with the value.
pub(super) struct Process {
    program: &'static str,
    child: Arc<Mutex<Child>>,
    complaints: Option<JoinHandle<Vec<String>>>,
    is_late: Arc<AtomicBool>,
    /// Closed when the process need not be watched any more.
    watched: Option<Sender<()>>,
}

/// How a process ended.
pub(super) struct Ending {
    /// Whether it ended without a failure.
    pub(super) success: bool,
    /// Whether it was ended at its deadline.
    pub(super) is_late: bool,
    /// Its first error messages.
    pub(super) complaints: Vec<String>,
}

impl Process {
    /// Starts `command`, which runs `program`, for at most `limit`. Its input is piped where `input`
    /// says so.
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
        bound_memory(&child);
        let stdin = child.stdin.take();
        let pipes = child.stdout.take().zip(child.stderr.take());
        let child = Arc::new(Mutex::new(child));
        let is_late = Arc::new(AtomicBool::new(false));
        let watched = watch(child.clone(), is_late.clone(), limit);
        let mut process =
            Self { program, child, complaints: None, is_late, watched: Some(watched) };
        let missing = || Error::ffmpeg(program)(ErrorKind::BrokenPipe.into());
        let (stdout, stderr) = pipes.ok_or_else(missing)?;
        // The process would stop at a full pipe if nobody read its complaints.
        process.complaints = Some(std::thread::spawn(move || first_lines(stderr)));
        Ok((process, stdout, stdin))
    }

    /// Waits for the process that has nothing more to say.
    pub(super) fn finish(mut self) -> Result<Ending> {
        let success = self.wait()?.success();
        let complaints = self.complaints.take().and_then(|thread| thread.join().ok());
        let is_late = self.is_late.load(Ordering::SeqCst);
        Ok(Ending { success, is_late, complaints: complaints.unwrap_or_default() })
    }

    /// Waits without keeping the deadline from being enforced.
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
        self.watched.take();
        kill(&self.child);
        // Fails only where the process has been waited for already.
        let _ = self.child.lock().unwrap_or_else(PoisonError::into_inner).wait();
    }
}

/// Fails only where the process has ended already.
fn kill(child: &Mutex<Child>) {
    let _ = child.lock().unwrap_or_else(PoisonError::into_inner).kill();
}

/// Ends the child after `limit`, unless what is returned is dropped before.
fn watch(child: Arc<Mutex<Child>>, is_late: Arc<AtomicBool>, limit: Duration) -> Sender<()> {
    let (watched, dropped) = channel();
    std::thread::spawn(move || {
        if dropped.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
            is_late.store(true, Ordering::SeqCst);
            kill(&child);
        }
    });
    watched
}

/// The first lines of `source`, each cut short. All of it is read.
fn first_lines(source: impl Read) -> Vec<String> {
    let mut source = BufReader::new(source);
    let mut kept = Vec::new();
    loop {
        let mut line = Vec::new();
        match (&mut source).take(COMPLAINT_BYTES).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return kept,
            Ok(_) if kept.len() < COMPLAINTS => {
                kept.push(String::from_utf8_lossy(&line).trim().to_owned());
            }
            Ok(_) => {}
        }
    }
}

/// Bounds what the child may hold. Where that is not possible FFmpeg's own limits remain.
#[cfg(target_os = "linux")]
fn bound_memory(child: &Child) {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let limit = Rlimit { current: Some(MOST_BYTES), maximum: Some(MOST_BYTES) };
    let bounded = prlimit(Some(Pid::from_child(child)), Resource::Data, limit);
    if let Err(error) = bounded {
        tracing::debug!("the memory of a child process stays unbounded: {error}");
    }
}

#[cfg(not(target_os = "linux"))]
fn bound_memory(_: &Child) {
    let _ = MOST_BYTES;
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn shell(script: &str, limit: Duration) -> (Vec<u8>, Ending) {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let (process, mut stdout, _) =
            Process::start("sh", &mut command, Stdio::null(), limit).unwrap();
        let mut said = Vec::new();
        stdout.read_to_end(&mut said).unwrap();
        (said, process.finish().unwrap())
    }

    #[test]
    fn an_endless_process_ends_at_its_deadline() {
        let start = Instant::now();
        let (_, ending) = shell("exec sleep 600", Duration::from_millis(200));
        assert!(ending.is_late && !ending.success);
        assert!(start.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn the_first_complaints_are_kept_and_cut_short() {
        let script = "echo out; for i in 1 2 3 4 5 6 7 8 9 10; do echo line $i >&2; done; exit 3";
        let (said, ending) = shell(script, Duration::from_secs(60));
        assert_eq!(said, b"out\n");
        assert!(!ending.success && !ending.is_late);
        assert_eq!(ending.complaints.len(), COMPLAINTS);
        assert_eq!(ending.complaints[0], "line 1");
    }
}
