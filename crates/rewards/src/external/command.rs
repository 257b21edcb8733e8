//! Runs a command on one batch.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use embodied_r_process::{Guard, reap};

use super::error::ExternalError;
use crate::service::{MAX_REPLY_BYTES, POLL};

/// Longer timeouts are capped, so that the deadline cannot overflow.
const MAX_TIMEOUT: Duration = Duration::from_secs(366 * 24 * 3600);
/// Bytes kept from the end of standard error.
const STDERR_TAIL_BYTES: usize = 4096;
/// Characters shown of the last line.
const MAX_LINE_CHARS: usize = 300;
/// How long to wait for the rest of standard error after the command exits.
const STDERR_GRACE: Duration = Duration::from_millis(200);

/// Checks that the program of `argv` exists.
pub(super) fn check_program(argv: &[String]) -> Result<(), ExternalError> {
    let program = argv.first().map_or("", String::as_str);
    let found = match program.contains('/') {
        true => Path::new(program).is_file(),
        false => std::env::var_os("PATH").is_some_and(|path| {
            std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
        }),
    };
    let missing = || ExternalError::NoProgram { program: program.to_owned() };
    (found && !program.is_empty()).then_some(()).ok_or_else(missing)
}

/// The command as a shell command line.
pub(super) fn display_command(argv: &[String]) -> String {
    let word = |word: &String| match word.is_empty() || word.contains([' ', '\t', '\n', '"', '\''])
    {
        true => format!("{word:?}"),
        false => word.clone(),
    };
    argv.iter().map(word).collect::<Vec<_>>().join(" ")
}

/// Runs the command with `input` on standard input and returns its standard output.
///
/// The command runs in its own process group, which is killed on a timeout, on any other error, soon after `stop` is
/// set, and when this process ends.
pub(super) fn run(
    argv: &[String],
    input: Vec<u8>,
    timeout: Duration,
    stop: &AtomicBool,
) -> Result<Vec<u8>, ExternalError> {
    let command = display_command(argv);
    let io = |reason| ExternalError::Io { command: command.clone(), reason };
    let wait = Wait { deadline: Instant::now() + timeout.min(MAX_TIMEOUT), stop };
    let mut running = Running::start(argv)
        .map_err(|reason| ExternalError::Start { command: command.clone(), reason })?;

    let stdin = running.child.stdin.take();
    // Not reading all of its input does not make a command fail.
    in_background(move || stdin.map(|mut stdin| stdin.write_all(&input))).map_err(io)?;
    let stdout = running.child.stdout.take();
    let reader = in_background(move || read_all(stdout)).map_err(io)?;
    let (tail, stderr) = (StderrTail::default(), running.child.stderr.take());
    let filler = tail.clone();
    let stderr_reader = in_background(move || filler.fill(stderr)).map_err(io)?;

    let timed_out = || ExternalError::Timeout {
        command: command.clone(),
        timeout_s: timeout.as_secs_f64(),
        last_line: tail.last_line(),
    };
    let ended = |end: WaitEnd| match end {
        WaitEnd::Deadline => timed_out(),
        WaitEnd::Stop => ExternalError::Interrupted,
    };
    let reply = match wait.receive(&reader).map_err(ended)? {
        Some(reply) => reply.map_err(io)?,
        None => Vec::new(),
    };
    if reply.len() > MAX_REPLY_BYTES {
        let reason = format!("the reply is longer than {} MiB", MAX_REPLY_BYTES >> 20);
        return Err(ExternalError::Reply { from: command, reason });
    }
    let status = running.exit(&wait).map_err(io)?.map_err(ended)?;
    if status.success() {
        return Ok(reply);
    }
    // A child process of the command may keep standard error open indefinitely.
    let _ = stderr_reader.recv_timeout(STDERR_GRACE);
    Err(ExternalError::Exit { command, status: status.to_string(), last_line: tail.last_line() })
}

/// How long a command is waited for.
struct Wait<'a> {
    deadline: Instant,
    stop: &'a AtomicBool,
}

/// Why a wait ended without a result.
enum WaitEnd {
    Deadline,
    Stop,
}

impl Wait<'_> {
    /// Why the wait is over, if it is.
    fn end(&self) -> Option<WaitEnd> {
        match self.stop.load(Ordering::Relaxed) {
            true => Some(WaitEnd::Stop),
            false => (Instant::now() >= self.deadline).then_some(WaitEnd::Deadline),
        }
    }

    /// The value sent to `receiver`; `None` if its sender is gone.
    fn receive<T>(&self, receiver: &Receiver<T>) -> Result<Option<T>, WaitEnd> {
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            match receiver.recv_timeout(left.min(POLL)) {
                Ok(value) => return Ok(Some(value)),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => match self.end() {
                    Some(end) => return Err(end),
                    None => continue,
                },
            }
        }
    }
}

/// Runs `work` on a detached thread and sends its result.
fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<Receiver<T>> {
    let (sender, receiver) = mpsc::channel();
    // The receiver is gone if the command has already failed.
    thread::Builder::new().spawn(move || drop(sender.send(work())))?;
    Ok(receiver)
}

fn read_all(stdout: Option<ChildStdout>) -> std::io::Result<Vec<u8>> {
    let mut reply = Vec::new();
    if let Some(stdout) = stdout {
        stdout.take(MAX_REPLY_BYTES as u64 + 1).read_to_end(&mut reply)?;
    }
    Ok(reply)
}

/// A running command. Dropping it before it exits kills its process group.
struct Running {
    child: Child,
    /// `None` once the command has exited.
    guard: Option<Guard>,
}

impl Running {
    fn start(argv: &[String]) -> std::io::Result<Self> {
        let (program, arguments) = argv.split_first().ok_or(std::io::ErrorKind::InvalidInput)?;
        let guard = Guard::start()?;
        let mut command = Command::new(program);
        command.args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = guard.admit(&mut command).spawn()?;
        Ok(Self { child, guard: Some(guard) })
    }

    /// Waits for the command to exit.
    fn exit(&mut self, wait: &Wait<'_>) -> std::io::Result<Result<ExitStatus, WaitEnd>> {
        let mut pause = Duration::from_micros(200);
        loop {
            if let Some(status) = self.child.try_wait()? {
                if let Some(guard) = self.guard.take() {
                    guard.release();
                }
                return Ok(Ok(status));
            }
            if let Some(end) = wait.end() {
                return Ok(Err(end));
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(guard) = self.guard.take() {
            drop(guard);
            reap(&mut self.child);
        }
    }
}

/// The last bytes of a command's standard error.
#[derive(Clone, Default)]
struct StderrTail(Arc<Mutex<Vec<u8>>>);

impl StderrTail {
    fn fill(&self, stderr: Option<ChildStderr>) {
        let Some(mut stderr) = stderr else { return };
        let mut bytes = [0; 1024];
        while let Ok(read @ 1..) = stderr.read(&mut bytes) {
            let mut tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            tail.extend_from_slice(&bytes[..read]);
            let too_many = tail.len().saturating_sub(STDERR_TAIL_BYTES);
            tail.drain(..too_many);
        }
    }

    fn last_line(&self) -> String {
        let tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&tail);
        let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty());
        line.unwrap_or_default().chars().take(MAX_LINE_CHARS).collect()
    }
}
