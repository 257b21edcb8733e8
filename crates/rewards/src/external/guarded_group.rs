//! A process group that ends with this process.

use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};

/// Waits for a line on a pipe that only this process holds. If the pipe closes without one, this process is gone,
/// whatever ended it, and the shell kills its own process group.
const GUARD: &str = "read -r _ || kill -s KILL 0";

/// A process group led by a guard, which kills it when this process ends. Dropping it kills the group too.
pub(super) struct GuardedGroup {
    guard: Child,
    /// Whether its processes may go on.
    is_released: bool,
}

impl GuardedGroup {
    /// Starts the guard.
    ///
    /// # Errors
    /// There is no shell, or no process can be started.
    pub(super) fn start() -> io::Result<Self> {
        let guard = Command::new("/bin/sh")
            .args(["-c", GUARD])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        Ok(Self { guard, is_released: false })
    }

    /// Starts `command` in the group.
    ///
    /// # Errors
    /// The command cannot be started.
    pub(super) fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        let group = i32::try_from(self.guard.id()).map_err(io::Error::other)?;
        command.process_group(group).spawn()
    }

    /// Ends the guard alone; what the command has left running in the background goes on.
    pub(super) fn release(mut self) {
        self.is_released =
            self.guard.stdin.take().is_some_and(|mut pipe| pipe.write_all(b"\n").is_ok());
    }
}

impl Drop for GuardedGroup {
    fn drop(&mut self) {
        if !self.is_released {
            // Nothing can be done if this fails.
            let _ = kill_process_group(Pid::from_child(&self.guard), Signal::KILL);
        }
        let _ = self.guard.wait();
    }
}
