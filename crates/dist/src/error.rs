//! The crate's error.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::control_plane::RendezvousFault;
use crate::failure::FailureReport;
use crate::operation::Operation;

/// Errors of joining a job and of communication between its ranks.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A launcher variable is invalid.
    #[error("`{name}` is `{value}`, {why}")]
    Variable {
        /// The variable.
        name: String,
        /// Its value.
        value: String,
        /// What is wrong with it, and what to do.
        why: String,
    },
    /// A launcher variable is missing.
    #[error("`{name}` is not set, {why}")]
    MissingVariable {
        /// The variable.
        name: String,
        /// Why it is needed, and what to do.
        why: String,
    },
    /// The variables of two launchers contradict each other.
    #[error(
        "`{name}` is `{value}`, but `{other}` is `{other_value}`; unset the variables of the launcher that did not start this process"
    )]
    Contradiction {
        /// A variable.
        name: String,
        /// Its value.
        value: String,
        /// The contradicting variable.
        other: String,
        /// The value of `other`.
        other_value: String,
    },
    /// The rendezvous host name cannot be resolved.
    #[error("cannot resolve `{address}`: {source}; give rank 0's IP address")]
    Lookup {
        /// The address.
        address: String,
        /// The system's error.
        source: io::Error,
    },
    /// Another program listens on the rendezvous port.
    #[error("`{address}` is already in use; choose another port")]
    PortTaken {
        /// The address.
        address: SocketAddr,
    },
    /// Rank 0 cannot listen on the rendezvous address.
    #[error("rank 0 cannot listen on `{address}`: {source}; give an address of rank 0's machine")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// Rank 0 was not reached in time.
    #[error("rank {rank} did not reach rank 0 at `{address}` within {:.1} s: {why}", waited.as_secs_f64())]
    Unreachable {
        /// This rank.
        rank: usize,
        /// The rendezvous address.
        address: SocketAddr,
        /// How long the rank kept trying.
        waited: Duration,
        /// Why the last attempt failed.
        why: String,
    },
    /// This rank and rank 0 have different tokens.
    #[error(
        "rank {rank} and rank 0 at `{address}` have different tokens; give all ranks of a job the same"
    )]
    JobToken {
        /// This rank.
        rank: usize,
        /// Rank 0's address.
        address: SocketAddr,
    },
    /// The ranks that joined are not the configured job.
    #[error("rendezvous failed: {}", list(faults))]
    Refused {
        /// All faults found.
        faults: Vec<RendezvousFault>,
    },
    /// A rank failed, so the job was aborted.
    #[error("{0}")]
    RankFailed(Box<FailureReport>),
    /// A message between ranks cannot be serialized or deserialized.
    #[error("cannot {what} a message between ranks: {source}")]
    Exchange {
        /// The failed operation, as a verb.
        what: &'static str,
        /// The serializer's error.
        source: postcard::Error,
    },
    /// An operation timed out.
    #[error("rank {rank}: {what} timed out after {:.1} s", waited.as_secs_f64())]
    Timeout {
        /// This rank.
        rank: usize,
        /// What timed out.
        what: &'static str,
        /// The timeout.
        waited: Duration,
    },
    /// An operation does not accept this length.
    #[error("{operation} of length {length} over {world_size} ranks: {why}")]
    Length {
        /// The operation.
        operation: Operation,
        /// The length it was called with.
        length: usize,
        /// The number of ranks.
        world_size: usize,
        /// The violated rule.
        why: &'static str,
    },
    /// The root of a broadcast is not a rank of the job.
    #[error("{operation} from rank {root}, but there are {world_size} ranks")]
    Root {
        /// The operation.
        operation: Operation,
        /// The invalid root.
        root: usize,
        /// The number of ranks.
        world_size: usize,
    },
    /// An operation was called after `finish`.
    #[error("{operation} was called after the job was finished")]
    Finished {
        /// The operation.
        operation: Operation,
    },
    /// A world size of 0.
    #[error("a job needs at least one rank")]
    NoRanks,
    /// A call to the operating system failed.
    #[error("cannot {what}: {source}")]
    System {
        /// The failed action.
        what: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// MPI contradicts the launcher's variables, or was initialized before.
    #[error("MPI: {why}")]
    Mpi {
        /// What is wrong, and what to do.
        why: String,
    },
    /// A call to NCCL or the CUDA driver failed.
    #[cfg(any(feature = "nccl", test))]
    #[error("cannot {what}: {why}")]
    Nccl {
        /// The failed action.
        what: &'static str,
        /// The library's error.
        why: String,
    },
    /// NCCL is not installed, or not where the dynamic linker looks.
    #[cfg(any(feature = "nccl", test))]
    #[error(
        "cannot load NCCL, over which GPUs communicate: {faults}; searched {searched} and the system's folders; \
         install it (PyPI: `nvidia-nccl-cu13`, Debian packages of NVIDIA: `libnccl2`) and add the folder of \
         `libnccl.so.2` to `LD_LIBRARY_PATH`"
    )]
    NoNccl {
        /// The dynamic linker's message for each file name.
        faults: String,
        /// Where it looked first.
        searched: String,
    },
    /// Device memory was passed to a backend that only supports host memory.
    #[error("this backend does not support GPU tensors")]
    HostOnly,
    /// A tensor does not meet the requirements of collectives, or its device failed.
    #[error("cannot send a tensor: {0}")]
    Tensor(#[from] embodied_r_kernels::Error),
}

impl Error {
    /// The failure report, if a rank's failure aborted the job.
    pub fn failure(&self) -> Option<&FailureReport> {
        match self {
            Self::RankFailed(failure) => Some(failure),
            _ => None,
        }
    }
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

fn list(faults: &[RendezvousFault]) -> String {
    let texts: Vec<_> = faults.iter().map(RendezvousFault::to_string).collect();
    texts.join("; ")
}
