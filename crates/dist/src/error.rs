//! The crate's error.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::operation::Operation;
use crate::plane::Fault;
use crate::verdict::Verdict;

/// Why ranks could not come together, or could not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A variable of the launcher makes no sense.
    #[error("`{name}` is `{value}`, {why}")]
    Variable {
        /// The variable.
        name: String,
        /// What it holds.
        value: String,
        /// What is wrong with it, and what to do.
        why: String,
    },
    /// A variable of the launcher is missing.
    #[error("`{name}` is not set, {why}")]
    MissingVariable {
        /// The variable.
        name: String,
        /// Why it is needed, and what to do.
        why: String,
    },
    /// Two launchers say different things.
    #[error(
        "`{name}` is `{value}`, but `{other}` is `{other_value}`; unset the variables of the launcher that did not start this process"
    )]
    Contradiction {
        /// A variable.
        name: String,
        /// What it holds.
        value: String,
        /// The one that says otherwise.
        other: String,
        /// What that holds.
        other_value: String,
    },
    /// The machine at which ranks should meet has no address that can be found.
    #[error("cannot look up `{address}`: {source}; give rank 0's address in numbers")]
    Lookup {
        /// The address.
        address: String,
        /// The system's words.
        source: io::Error,
    },
    /// Another program listens where the ranks should meet.
    #[error("`{address}` is taken by another program; choose another port")]
    PortTaken {
        /// The address.
        address: SocketAddr,
    },
    /// Rank 0 cannot listen where the ranks should meet.
    #[error("rank 0 cannot listen at `{address}`: {source}; give an address of rank 0's machine")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The system's words.
        source: io::Error,
    },
    /// Rank 0 was not reached in time.
    #[error("rank {rank} did not reach rank 0 at `{address}` within {:.1} s: {why}", waited.as_secs_f64())]
    Unreachable {
        /// This rank.
        rank: usize,
        /// Where rank 0 should be.
        address: SocketAddr,
        /// How long was tried.
        waited: Duration,
        /// How the last attempt failed.
        why: String,
    },
    /// This rank and rank 0 have different tokens.
    #[error(
        "rank {rank} and rank 0 at `{address}` have different tokens; give all ranks of a job the same"
    )]
    Token {
        /// This rank.
        rank: usize,
        /// Where rank 0 is.
        address: SocketAddr,
    },
    /// The ranks that came are not the job that was asked for.
    #[error("the ranks do not fit together: {}", list(faults))]
    Refused {
        /// Everything that was found.
        faults: Vec<Fault>,
    },
    /// A rank ended the job.
    #[error("{0}")]
    Lost(Box<Verdict>),
    /// Something did not happen in time.
    #[error("rank {rank}: {what} did not end within {:.1} s", waited.as_secs_f64())]
    Timeout {
        /// This rank.
        rank: usize,
        /// What did not happen.
        what: &'static str,
        /// The time that it may take.
        waited: Duration,
    },
    /// An operation cannot be done with this much.
    #[error("{operation} of length {length} over {world_size} ranks: {why}")]
    Length {
        /// The operation.
        operation: Operation,
        /// What it was called with.
        length: usize,
        /// The number of ranks.
        world_size: usize,
        /// The rule that is broken.
        why: &'static str,
    },
    /// There is no rank of this number.
    #[error("{operation} from rank {root}, but there are {world_size} ranks")]
    Root {
        /// The operation.
        operation: Operation,
        /// The rank that is not there.
        root: usize,
        /// The number of ranks.
        world_size: usize,
    },
    /// The job was ended by `finish`.
    #[error("{operation} was called after the job was finished")]
    Finished {
        /// The operation.
        operation: Operation,
    },
    /// There is no rank in a job of none.
    #[error("a job needs at least one rank")]
    NoRanks,
    /// Something of the operating system that must work did not.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The system's words.
        source: io::Error,
    },
    /// MPI is not as the launcher's variables say, or was started before.
    #[error("MPI: {why}")]
    Mpi {
        /// What is wrong, and what to do.
        why: String,
    },
    /// NCCL or CUDA's driver refused a call.
    #[cfg(any(feature = "nccl", test))]
    #[error("cannot {what}: {why}")]
    Nccl {
        /// What was tried.
        what: &'static str,
        /// The library's words.
        why: String,
    },
    /// Memory of a device was given to a connection that cannot reach it.
    #[error("these ranks move memory of the host alone")]
    HostOnly,
    /// A tensor is not as collectives take it, or its device refused to work.
    #[error("cannot send a tensor: {0}")]
    Tensor(#[from] embodied_r_kernels::Error),
}

impl Error {
    /// The rank that ended the job, where one did.
    pub fn verdict(&self) -> Option<&Verdict> {
        match self {
            Self::Lost(verdict) => Some(verdict),
            _ => None,
        }
    }
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

fn list(faults: &[Fault]) -> String {
    let texts: Vec<_> = faults.iter().map(Fault::to_string).collect();
    texts.join("; ")
}
