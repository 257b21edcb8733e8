//! Communication backends. A backend only moves bytes; reductions are computed above it, the same way for all backends.

#[cfg(feature = "mpi")]
pub(crate) mod mpi;
#[cfg(any(feature = "nccl", test))]
pub(crate) mod nccl;
pub(crate) mod threads;

use candle_core::{DeviceLocation, Tensor};
use embodied_r_kernels::memory::StreamEvent;

use crate::error::Result;

/// How eagerly to poll for data of the other ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Polling {
    /// The others may enter the call much later.
    Relaxed,
    /// The others have entered the call.
    Eager,
}

/// A collective that a backend runs directly on device memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DirectCollective {
    /// All-reduce (sum); send and receive tensor may be the same.
    Sum,
    /// Reduce-scatter (sum).
    ReduceScatter,
    /// All-gather.
    AllGather,
}

/// A connection between the ranks of a group. Every rank makes the same calls in the same order.
///
/// # Errors
///
/// Methods fail only after the job was aborted, or do not return then.
pub(crate) trait Link {
    /// Gathers `mine` of every rank, of equal length, into `all`.
    fn all_gather(&mut self, mine: &[u8], all: &mut [u8], polling: Polling) -> Result<()>;

    /// Sends the `n`th equal chunk of `sent` to rank `n`, and receives the `n`th chunk of `received` from it.
    fn all_to_all(&mut self, sent: &[u8], received: &mut [u8]) -> Result<()>;

    /// Broadcasts `data` of rank `root`.
    fn broadcast(&mut self, data: &mut [u8], root: usize) -> Result<()>;

    /// Connects a subgroup of `size` ranks that starts at rank `first`; this rank has index `rank` in it. All ranks
    /// call it, each for its own subgroup.
    fn split(&mut self, first: usize, rank: usize, size: usize) -> Result<Box<dyn Link>>;

    /// The device whose memory [`Link::direct`] supports.
    fn device(&self) -> Option<DeviceLocation> {
        None
    }

    /// A collective from one contiguous f32 tensor on [`Link::device`] to another. It starts after the work recorded by
    /// `mark`.
    fn direct(
        &mut self,
        _what: DirectCollective,
        _send: &Tensor,
        _receive: &Tensor,
        _mark: &StreamEvent,
    ) -> Result<()> {
        Err(crate::Error::HostOnly)
    }

    /// Closes the connection together with the other ranks.
    fn close(self: Box<Self>);

    /// Aborts all processes, if the backend can.
    fn abort(&mut self, _exit_code: i32) {}
}
