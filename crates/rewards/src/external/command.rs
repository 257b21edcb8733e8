//! Runs a command on one batch.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::ExternalError;

/// Maximum size of a reply.
const MAX_REPLY_BYTES: u64 = 64 << 20;
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
/// The command runs in its own process group. On a timeout or any other error, the whole group is
/// killed.
pub(super) fn run(
    argv: &[String],
    input: Vec<u8>,
    timeout: Duration,
) -> Result<Vec<u8>, ExternalError> {
    let command = display_command(argv);
    let io = |reason| ExternalError::Io { command: command.clone(), reason };
    let deadline = Instant::now() + timeout.min(MAX_TIMEOUT);
    let mut running = ProcessGuard::start(argv)
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
    let remaining = || deadline.saturating_duration_since(Instant::now());
    let reply = match reader.recv_timeout(remaining()) {
        Ok(reply) => reply.map_err(io)?,
        Err(RecvTimeoutError::Timeout) => return Err(timed_out()),
        Err(RecvTimeoutError::Disconnected) => Vec::new(),
    };
    if reply.len() as u64 > MAX_REPLY_BYTES {
        let reason = format!("the reply is longer than {} MiB", MAX_REPLY_BYTES >> 20);
        return Err(ExternalError::Reply { from: command, reason });
    }
    let Some(status) = running.wait(deadline).map_err(io)? else { return Err(timed_out()) };
    if status.success() {
        return Ok(reply);
    }
    // A child process of the command may keep standard error open indefinitely.
    let _ = stderr_reader.recv_timeout(STDERR_GRACE);
    Err(ExternalError::Exit { command, status: status.to_string(), last_line: tail.last_line() })
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
        stdout.take(MAX_REPLY_BYTES + 1).read_to_end(&mut reply)?;
    }
    Ok(reply)
}

/// A running command. Dropping it before it exits kills its process group.
struct ProcessGuard {
    child: Child,
    /// `None` until it has been reaped.
    status: Option<ExitStatus>,
}

impl ProcessGuard {
    fn start(argv: &[String]) -> std::io::Result<Self> {
        let (program, arguments) = argv.split_first().ok_or(std::io::ErrorKind::InvalidInput)?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        Ok(Self { child, status: None })
    }

    /// Waits for the command to exit; `None` at the deadline.
    fn wait(&mut self, deadline: Instant) -> std::io::Result<Option<ExitStatus>> {
        let mut pause = Duration::from_micros(200);
        loop {
            self.status = self.child.try_wait()?;
            if self.status.is_some() || Instant::now() >= deadline {
                return Ok(self.status);
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }
}

impl Drop for ProcessGuard {
    fn drop(&mut self) {
        if self.status.is_none() {
            // Nothing can be done if this fails.
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
            let _ = self.child.wait();
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
