//! Running a command on one batch.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::Fault;

/// A longer reply is no list of scores.
const LONGEST_REPLY: u64 = 64 << 20;
/// A longer timeout is none.
const LONGEST_WAIT: Duration = Duration::from_secs(366 * 24 * 3600);
/// Bytes of standard error that are kept, the last ones.
const KEPT_BYTES: usize = 4096;
/// Characters of the last line that are shown.
const LINE_CHARS: usize = 300;
/// How long the last words of a command that has ended are waited for.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Looks whether there is the program that `words` begin with.
pub(super) fn find(words: &[String]) -> Result<(), Fault> {
    let program = words.first().map_or("", String::as_str);
    let found = match program.contains('/') {
        true => Path::new(program).is_file(),
        false => std::env::var_os("PATH").is_some_and(|path| {
            std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
        }),
    };
    let missing = || Fault::NoProgram { program: program.to_owned() };
    (found && !program.is_empty()).then_some(()).ok_or_else(missing)
}

/// The command as one would type it.
pub(super) fn shown(words: &[String]) -> String {
    let word = |word: &String| match word.is_empty() || word.contains([' ', '\t', '\n', '"', '\''])
    {
        true => format!("{word:?}"),
        false => word.clone(),
    };
    words.iter().map(word).collect::<Vec<_>>().join(" ")
}

/// Starts the command, hands it `input`, and gives what it wrote to standard output.
///
/// The command is the first of a process group of its own, which is killed as a whole where the
/// command does not end in time or anything else goes wrong.
pub(super) fn run(words: &[String], input: Vec<u8>, timeout: Duration) -> Result<Vec<u8>, Fault> {
    let command = shown(words);
    let io = |reason| Fault::Io { command: command.clone(), reason };
    let deadline = Instant::now() + timeout.min(LONGEST_WAIT);
    let mut running = Running::start(words)
        .map_err(|reason| Fault::Start { command: command.clone(), reason })?;

    let stdin = running.child.stdin.take();
    // A command that does not read all of its input may be right all the same.
    in_background(move || stdin.map(|mut stdin| stdin.write_all(&input))).map_err(io)?;
    let stdout = running.child.stdout.take();
    let replies = in_background(move || read_all(stdout)).map_err(io)?;
    let (tail, stderr) = (Tail::default(), running.child.stderr.take());
    let filled = tail.clone();
    let silent = in_background(move || filled.fill(stderr)).map_err(io)?;

    let late = || Fault::Timeout {
        command: command.clone(),
        timeout_s: timeout.as_secs_f64(),
        last_line: tail.last_line(),
    };
    let left = || deadline.saturating_duration_since(Instant::now());
    let reply = match replies.recv_timeout(left()) {
        Ok(reply) => reply.map_err(io)?,
        Err(RecvTimeoutError::Timeout) => return Err(late()),
        Err(RecvTimeoutError::Disconnected) => Vec::new(),
    };
    if reply.len() as u64 > LONGEST_REPLY {
        let why = format!("the reply is longer than {} MiB", LONGEST_REPLY >> 20);
        return Err(Fault::Reply { from: command, why });
    }
    let Some(status) = running.wait(deadline).map_err(io)? else { return Err(late()) };
    if status.success() {
        return Ok(reply);
    }
    // Another process of the command may hold its standard error open for ever.
    let _ = silent.recv_timeout(LAST_WORDS);
    Err(Fault::Ended { command, status: status.to_string(), last_line: tail.last_line() })
}

/// Does `work` on a thread of its own, which nobody has to wait for, and sends what comes of it.
fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<Receiver<T>> {
    let (sender, receiver) = mpsc::channel();
    // Nobody listens any more where the command has failed already.
    thread::Builder::new().spawn(move || drop(sender.send(work())))?;
    Ok(receiver)
}

fn read_all(stdout: Option<ChildStdout>) -> std::io::Result<Vec<u8>> {
    let mut reply = Vec::new();
    if let Some(stdout) = stdout {
        stdout.take(LONGEST_REPLY + 1).read_to_end(&mut reply)?;
    }
    Ok(reply)
}

/// A command under way. Whoever lets go of it before its end kills its whole process group.
struct Running {
    child: Child,
    /// `None` until its end has been seen.
    status: Option<ExitStatus>,
}

impl Running {
    fn start(words: &[String]) -> std::io::Result<Self> {
        let (program, arguments) = words.split_first().ok_or(std::io::ErrorKind::InvalidInput)?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        Ok(Self { child, status: None })
    }

    /// Waits for the end of the command; `None` if it does not come in time.
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

impl Drop for Running {
    fn drop(&mut self) {
        if self.status.is_none() {
            // There is nobody left to tell of a failure, and nothing else to try.
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// The last bytes that a command wrote to standard error.
#[derive(Clone, Default)]
struct Tail(Arc<Mutex<Vec<u8>>>);

impl Tail {
    fn fill(&self, stderr: Option<ChildStderr>) {
        let Some(mut stderr) = stderr else { return };
        let mut bytes = [0; 1024];
        while let Ok(read @ 1..) = stderr.read(&mut bytes) {
            let mut tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            tail.extend_from_slice(&bytes[..read]);
            let too_many = tail.len().saturating_sub(KEPT_BYTES);
            tail.drain(..too_many);
        }
    }

    fn last_line(&self) -> String {
        let tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&tail);
        let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty());
        line.unwrap_or_default().chars().take(LINE_CHARS).collect()
    }
}
