//! Ranks: many processes that do one job.
//!
//! A process reads its [`Place`] from the variables of whatever launched it, comes together with the others
//! and gets a [`Communicator`]. Through it ranks sum, gather and hand round numbers and bytes. Operations
//! are begun and waited for apart, so that data move while the caller computes.
//!
//! Beside the collectives there is a control plane: a connection of every rank to rank 0, over which they
//! prove that they belong to the same job ([`Token`]), are held against rank 0 in version and settings
//! ([`Fault`]) before any work, and tell a few times a second that they are alive. A rank whose process
//! dies, stops or hangs ends the job on all others, with a [`Verdict`] that names it, its phase, its
//! operation and the time; one that is only slow is waited for, as long as it [beats](Communicator::beat).
//!
//! ```
//! use embodied_r_dist::{Communicator, Options, Reduce};
//!
//! # fn main() -> embodied_r_dist::Result<()> {
//! // Two ranks in one process; `Communicator::mpi` has the same interface.
//! let ranks = Communicator::threads(2, &Options::default())?;
//! let work = |rank: Communicator| -> embodied_r_dist::Result<Vec<f32>> {
//!     rank.enter("update");
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
//! With the feature `mpi` the crate links Open MPI. With `nccl` it links NCCL and CUDA's driver; between its ranks
//! tensors of GPUs are sent straight from there ([`Communicator::sum_tensor`] and those beside it).

mod communicator;
mod error;
mod group;
mod link;
mod number;
mod operation;
mod options;
mod pending;
mod place;
mod plane;
mod traffic;
mod verdict;
mod vigil;
mod watch;
mod worker;

pub use communicator::Communicator;
pub use error::{Error, Result};
pub use operation::{Call, Operation, Reduce};
pub use options::Options;
pub use pending::Pending;
pub use place::{Launcher, Place};
pub use plane::{Fault, Meeting, Token};
pub use traffic::Traffic;
pub use verdict::{Verdict, Why};
pub use vigil::Vigil;
