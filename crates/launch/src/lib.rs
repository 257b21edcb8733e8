//! Ranks: the processes of one job, launched here or by an external launcher.
//!
//! [`launch()`] starts this program again, once per rank, and restarts it after a failure. Each of these processes finds
//! out what it is ([`rank_info`]) and joins the others (`Rank`).

#[cfg_attr(
    not(any(feature = "mpi", feature = "cuda", test)),
    expect(dead_code, reason = "only ranks are pinned to cores")
)]
mod cores;
mod error;
mod gpus;
mod launch;
mod launcher;
mod lines;
mod method;
mod processes;
mod rank;
mod restart;

pub use error::{Error, Result};
pub use gpus::{Gpu, select as select_gpus};
pub use launch::{Job, Restarts, launch};
pub use launcher::{MPIRUN, is_launched_by_this_program};
pub use lines::LineSink;
pub use method::LaunchMethod;
pub use processes::JobOutcome;
#[cfg(feature = "cuda")]
pub use rank::ordinal;
#[cfg(any(feature = "mpi", feature = "cuda"))]
pub use rank::{Aborted, Rank};
pub use rank::{is_first, local_world_size, rank_info};
pub use restart::RestartDecision;

/// Whether this build can run several ranks on CPUs.
pub const HAS_MPI: bool = cfg!(feature = "mpi");

/// Checks that this build can run several ranks on CPUs.
///
/// # Errors
/// [`Error::NoMpi`].
pub fn require_mpi() -> Result<()> {
    if HAS_MPI { Ok(()) } else { Err(Error::NoMpi) }
}
