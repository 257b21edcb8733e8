//! Distributed execution: ranks, collectives and failure detection.
//!
//! A process reads its [`RankInfo`] from its launcher's environment variables, joins the rendezvous and gets a
//! [`Communicator`]. Collectives (all-reduce, all-gather, broadcast, …) are asynchronous: starting one returns a
//! [`Pending`], and data moves while the caller computes.
//!
//! The control plane is a separate TCP connection from every rank to rank 0. Over it ranks authenticate ([`JobToken`]),
//! compare version and settings with rank 0 before any work ([`RendezvousFault`]), and send heartbeats. If a rank dies,
//! stops or hangs, all others abort with a [`FailureReport`] that names the rank, its phase, its operation and the
//! time. The ranks wait for a slow rank as long as it [reports progress](Communicator::heartbeat).
//!
//! ```
//! use embodied_r_dist::{Communicator, CommunicatorOptions, Reduce};
//!
//! # fn main() -> embodied_r_dist::Result<()> {
//! // Two ranks in one process; `Communicator::mpi` has the same interface.
//! let ranks = Communicator::threads(2, &CommunicatorOptions::default())?;
//! let work = |rank: Communicator| -> embodied_r_dist::Result<Vec<f32>> {
//!     rank.enter_phase("update");
//!     let sum = rank.all_reduce(vec![rank.rank() as f32, 1.0], Reduce::Sum)?;
//!     // … compute something else …
//!     let sum = sum.wait()?;
//!     rank.finish()?;
//!     Ok(sum)
//! };
//! let threads: Vec<_> = ranks.into_iter().map(|rank| std::thread::spawn(move || work(rank))).collect();
//! for thread in threads {
//!     assert_eq!(thread.join().unwrap()?, [1.0, 2.0]);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The feature `mpi` links Open MPI. The feature `nccl` links the CUDA driver and loads NCCL when ranks need it; they send
//! GPU tensors directly ([`Communicator::all_reduce_tensor`] and the other tensor collectives).

mod communicator;
mod control_plane;
mod element;
mod error;
mod failure;
mod group;
mod heartbeat_guard;
mod link;
mod operation;
mod options;
mod pending;
mod process_group;
mod rank_info;
mod rank_state;
mod traffic;
mod worker;

pub use communicator::Communicator;
pub use control_plane::{JobToken, Rendezvous, RendezvousFault};
pub use error::{Error, Result};
pub use failure::{FailureCause, FailureReport};
pub use heartbeat_guard::HeartbeatGuard;
#[cfg(feature = "nccl")]
pub use link::nccl::NcclVersion;
pub use operation::{Call, Operation, Reduce};
pub use options::CommunicatorOptions;
pub use pending::Pending;
pub use process_group::ProcessGroup;
pub use rank_info::{Launcher, RankInfo};
pub use traffic::Traffic;
