//! The process that launched the ranks, as they find it in their environment.

use rustix::process::Pid;

/// Launcher of MPI ranks.
pub const MPIRUN: &str = "mpirun";

/// Environment variable with the process that launched the ranks, as `PID@HOSTNAME`.
pub(crate) const LAUNCHER_ENV: &str = "EMBODIED_R_LAUNCHER";

/// This process as `PID@HOSTNAME`, for the ranks' environment.
pub(crate) fn launcher_id() -> String {
    format!("{}@{}", std::process::id(), machine())
}

fn machine() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The process of this program that launched the ranks, with its PID if it runs on this machine; `None` if another
/// launcher did.
pub(crate) fn launcher_process() -> Option<Option<Pid>> {
    let value = std::env::var(LAUNCHER_ENV).ok()?;
    let (id, on) = value.split_once('@')?;
    let id = id.parse().ok().and_then(Pid::from_raw)?;
    Some((on == machine()).then_some(id))
}

/// Whether this program, not another launcher, started this process as a rank.
pub fn is_launched_by_this_program() -> bool {
    launcher_process().is_some()
}
