//! Process groups that end with the program that started them, even if it is killed.
//!
//! A child process may be a wrapper script whose own children outlive it. So it joins a group led by a guard: a shell that
//! reads from a pipe which only this program holds. When the program ends, however it ends, the pipe closes, and the shell
//! kills the group.
//!
//! ```
//! use std::process::Command;
//!
//! use embodied_r_process::Guard;
//!
//! let guard = Guard::start()?;
//! let mut child = guard.admit(&mut Command::new("sleep")).arg("600").spawn()?;
//! drop(guard);
//! assert!(!child.wait()?.success());
//! # Ok::<(), std::io::Error>(())
//! ```

use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// How long to wait for the end of a killed process.
pub const GRACE: Duration = Duration::from_secs(2);

/// Waits for a line. If the pipe closes without one, the program is gone, and the shell kills its own group.
const SCRIPT: &str = "read -r _ || kill -s KILL 0";

/// A process group with its guard. Dropping it kills the group.
#[derive(Debug)]
pub struct Guard {
    shell: Child,
    /// Whether the other processes may go on.
    is_released: bool,
}

impl Guard {
    /// Starts the guard of a new group.
    ///
    /// # Errors
    /// There is no `/bin/sh`, or no process can be started.
    pub fn start() -> io::Result<Self> {
        let shell = Command::new("/bin/sh")
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        Ok(Self { shell, is_released: false })
    }

    /// Lets `command` start in the group.
    pub fn admit<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.process_group(Pid::from_child(&self.shell).as_raw_nonzero().get())
    }

    /// Ends the guard alone; the other processes of the group go on.
    pub fn release(mut self) {
        self.is_released =
            self.shell.stdin.take().is_some_and(|mut pipe| pipe.write_all(b"\n").is_ok());
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.is_released {
            // Fails only if all processes have ended.
            let _ = kill_process_group(Pid::from_child(&self.shell), Signal::KILL);
        }
        reap(&mut self.shell);
    }
}

/// Waits for a process that was killed, but no longer than [`GRACE`]: it may hang in a file system.
pub fn reap(child: &mut Child) {
    let start = Instant::now();
    while matches!(child.try_wait(), Ok(None)) && start.elapsed() < GRACE {
        std::thread::sleep(Duration::from_micros(200));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process in the group of `guard` that ends by itself only after ten minutes.
    fn sleeping(guard: &Guard) -> Child {
        guard.admit(Command::new("sleep").arg("600")).spawn().unwrap()
    }

    #[test]
    fn a_dropped_guard_kills_its_group() {
        let guard = Guard::start().unwrap();
        let mut children = [sleeping(&guard), sleeping(&guard)];
        drop(guard);
        children.iter_mut().for_each(|child| assert!(!child.wait().unwrap().success()));
    }

    #[test]
    fn a_pipe_that_closes_kills_the_group() {
        let mut guard = Guard::start().unwrap();
        let mut child = sleeping(&guard);
        // As when this process ends.
        drop(guard.shell.stdin.take());
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn a_released_group_goes_on() {
        let guard = Guard::start().unwrap();
        let mut child = sleeping(&guard);
        guard.release();
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
