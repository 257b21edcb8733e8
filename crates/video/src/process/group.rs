//! The process group of a child process, which ends at a deadline or when it is stopped.

use std::process::{Child, ChildStdout};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use embodied_r_process::Guard;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process_group};

/// Polling interval of the stop flag while the process writes nothing.
const STOP_INTERVAL: Duration = Duration::from_millis(100);

/// When a process must end.
#[derive(Debug, Clone)]
pub(crate) struct Deadline {
    /// The moment.
    pub(crate) at: Instant,
    /// Ends it before, once set.
    pub(crate) stop: Arc<AtomicBool>,
}

/// Why a process was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Killed {
    /// It exceeded its deadline.
    TimedOut,
    /// It was stopped.
    Stopped,
}

/// The process that gives a group its id.
enum Leader {
    Guard(Guard),
    Child(Pid),
}

/// The processes of one program.
pub(super) struct Group {
    deadline: Deadline,
    /// `None` once the group has ended, after which its id may be another group's.
    leader: Mutex<Option<Leader>>,
    killed: Mutex<Option<Killed>>,
}

impl Group {
    /// The group of `child`, which `guard` has admitted. Without a guard the child leads its group.
    pub(super) fn of(child: &Child, guard: Option<Guard>, deadline: Deadline) -> Self {
        let leader = guard.map_or_else(|| Leader::Child(Pid::from_child(child)), Leader::Guard);
        Self { deadline, leader: Mutex::new(Some(leader)), killed: Mutex::default() }
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
        match self.leader.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(Leader::Guard(guard)) => drop(guard),
            Some(Leader::Child(id)) => {
                // Fails only if all have ended.
                let _ = kill_process_group(id, Signal::KILL);
            }
            None => {}
        }
    }
}
