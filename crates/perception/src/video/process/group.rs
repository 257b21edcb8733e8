//! The process group of a child process, with a guard that ends it when this program dies.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process_group};

/// Interval between two looks at the stop flag while the process writes nothing.
const STOP_INTERVAL: Duration = Duration::from_millis(100);

/// How long to wait for the end of a killed process, and for its last error message.
pub(super) const GRACE: Duration = Duration::from_secs(2);

/// A guard in the process group. Its standard input ends when this program dies, even if it is killed; it then
/// kills the group, itself included.
const GUARD: &str = "read line; kill -KILL 0";

/// When a process must end.
#[derive(Debug, Clone)]
pub(in crate::video) struct Deadline {
    /// The moment.
    pub(in crate::video) at: Instant,
    /// Ends it before, once set.
    pub(in crate::video) stop: Arc<AtomicBool>,
}

/// Why a process was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::video) enum Killed {
    /// Its time was up.
    TimedOut,
    /// It was stopped.
    Stopped,
}

/// The processes of one program.
pub(super) struct Group {
    deadline: Deadline,
    /// The group's id and its guard; `None` once it has ended, after which the id may be another group's.
    members: Mutex<Option<(Pid, Option<Guard>)>>,
    killed: Mutex<Option<Killed>>,
}

impl Group {
    /// The group of `child`, led by `guard` if there is one.
    pub(super) fn of(child: &Child, guard: Option<Guard>, deadline: Deadline) -> Self {
        let id = guard.as_ref().map_or_else(|| Pid::from_child(child), Guard::id);
        Self { deadline, members: Mutex::new(Some((id, guard))), killed: Mutex::default() }
    }

    /// Waits until `pipe` has data or has ended; `false` if the group was killed.
    pub(super) fn wait_for(&self, pipe: &ChildStdout) -> bool {
        loop {
            if self.is_over() {
                return false;
            }
            let left = self.deadline.at.saturating_duration_since(Instant::now());
            let pause = Timespec::try_from(left.min(STOP_INTERVAL)).ok();
            match poll(&mut [PollFd::new(pipe, PollFlags::IN)], pause.as_ref()) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                // An error is that of the read, too.
                Ok(_) | Err(_) => return true,
            }
        }
    }

    /// Whether the group was killed; kills it if its time is up or it is stopped.
    pub(super) fn is_over(&self) -> bool {
        let mut killed = self.killed.lock().unwrap_or_else(PoisonError::into_inner);
        if killed.is_none() {
            *killed = match self.deadline.stop.load(Ordering::Relaxed) {
                true => Some(Killed::Stopped),
                false if Instant::now() >= self.deadline.at => Some(Killed::TimedOut),
                false => return false,
            };
            self.end();
        }
        true
    }

    pub(super) fn killed(&self) -> Option<Killed> {
        *self.killed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Kills all processes of the group.
    pub(super) fn end(&self) {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((id, guard)) = members.take() {
            // Fails only if all have ended.
            let _ = kill_process_group(id, Signal::KILL);
            drop(guard);
        }
    }
}

/// The process that runs [`GUARD`] and leads the group.
pub(super) struct Guard(Child);

impl Guard {
    /// Starts the guard; `None` where there is no shell. The program's own process then leads the group.
    pub(super) fn start() -> Option<Self> {
        let guard = Command::new("/bin/sh")
            .args(["-c", GUARD])
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        guard
            .map(Self)
            .map_err(|error| tracing::debug!("cannot guard a child process: {error}"))
            .ok()
    }

    pub(super) fn id(&self) -> Pid {
        Pid::from_child(&self.0)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // It ends when its input does, if it was not killed.
        drop(self.0.stdin.take());
        reap(&mut self.0);
    }
}

/// Waits for a process that was killed, but not forever: it may hang in a file system.
pub(super) fn reap(child: &mut Child) {
    let start = Instant::now();
    while matches!(child.try_wait(), Ok(None)) && start.elapsed() < GRACE {
        std::thread::sleep(Duration::from_micros(200));
    }
}
