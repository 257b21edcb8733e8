//! How bytes get from rank to rank. A backend moves bytes and knows nothing of numbers; everything that
//! is computed of them is the same for all.

#[cfg(feature = "mpi")]
pub(crate) mod mpi;
#[cfg(any(feature = "nccl", test))]
pub(crate) mod nccl;
pub(crate) mod threads;

use candle_core::{DeviceLocation, Tensor};
use embodied_r_kernels::memory::Mark;

use crate::error::Result;

/// Whether the other ranks are known to be here, so that it pays to look for their data often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Others {
    /// They may come much later.
    MayBeLate,
    /// They have entered the same call.
    AreHere,
}

/// What a connection does by itself with memory of its device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direct {
    /// As many numbers are sent as are received, and the tensors may be the same.
    Sum,
    /// A part of what is sent is received.
    ReduceScatter,
    /// What is sent is a part of what is received.
    AllGather,
}

/// A connection of all ranks. Every rank makes the same calls in the same order.
///
/// # Errors
///
/// All give an error only after a verdict fell, or do not return then.
pub(crate) trait Link {
    /// `mine` of every rank, end to end in `all`: equal lengths.
    fn all_gather(&mut self, mine: &[u8], all: &mut [u8], others: Others) -> Result<()>;

    /// The `n`th of the equal parts of `sent` goes to rank `n`, and the `n`th of `received` comes from it.
    fn all_to_all(&mut self, sent: &[u8], received: &mut [u8]) -> Result<()>;

    /// `data` of rank `root`, on every rank.
    fn broadcast(&mut self, data: &mut [u8], root: usize) -> Result<()>;

    /// The connection of a part of the ranks, `size` of them from the rank `first` on, as that with the number `rank`
    /// among them. All ranks call it, each with its own part.
    fn split(&mut self, first: usize, rank: usize, size: usize) -> Result<Box<dyn Link>>;

    /// The device whose memory [`Link::direct`] takes.
    fn device(&self) -> Option<DeviceLocation> {
        None
    }

    /// A collective from one contiguous f32 tensor of [`Link::device`] to another, which reads and writes when all that
    /// `mark` stands for is done.
    fn direct(
        &mut self,
        _what: Direct,
        _send: &Tensor,
        _receive: &Tensor,
        _mark: &Mark,
    ) -> Result<()> {
        Err(crate::Error::HostOnly)
    }

    /// Ends the connection, with all ranks.
    fn close(self: Box<Self>);

    /// Ends all processes, where the backend can.
    fn abort(&mut self, _exit_code: i32) {}
}
