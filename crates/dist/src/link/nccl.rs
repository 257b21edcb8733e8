//! The NCCL backend, one rank per GPU. The communicator is non-blocking: every call is polled until it completes,
//! fails, or the job is aborted. An abort also aborts the communicator, which frees the GPU of collectives that wait
//! for failed ranks.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use candle_core::{DeviceLocation, Tensor};
use embodied_r_kernels::memory::{self, StreamEvent};

use super::{DirectCollective, Link, Polling};
use crate::error::{Error, Result};
use crate::failure::FailureCause;
use crate::operation::Reduce;
use crate::rank_state::{RankState, aborted};

#[cfg_attr(not(feature = "nccl"), expect(dead_code, reason = "without GPUs, only tests load it"))]
mod functions;
#[cfg(feature = "nccl")]
mod library;
#[cfg(test)]
mod tests;
mod version;

#[cfg(feature = "nccl")]
pub(crate) use library::Cuda;
#[cfg(feature = "nccl")]
pub use version::NcclVersion;
#[cfg(not(feature = "nccl"))]
pub(crate) use version::NcclVersion;

/// Bytes of `ncclUniqueId`.
pub(crate) const ID: usize = 128;

/// How long to poll without sleeping.
const SPIN: Duration = Duration::from_micros(200);
/// The poll interval.
const INTERVAL: Duration = Duration::from_micros(20);

/// Whether an asynchronous call has completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    Done,
    InProgress,
}

/// A collective on GPU memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Collective {
    AllReduce(Reduce),
    /// With a sum.
    ReduceScatter,
    AllGather,
    Broadcast {
        root: usize,
    },
    /// Exchanges one equal chunk with every rank.
    AllToAll,
}

/// The element type of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dtype {
    F32,
    U8,
}

impl Dtype {
    /// Bytes per element.
    pub(crate) fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::U8 => 1,
        }
    }
}

/// A range of GPU memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeviceBuffer {
    pub(crate) address: u64,
    pub(crate) length: usize,
    pub(crate) dtype: Dtype,
}

impl DeviceBuffer {
    fn of(tensor: &Tensor) -> Result<Self> {
        let (address, length) = (memory::data_ptr(tensor)?, tensor.elem_count());
        Ok(Self { address, length, dtype: Dtype::F32 })
    }
}

/// The NCCL and CUDA driver calls of a link, on its own stream. No call may block on another rank.
pub(crate) trait NcclApi: Sized {
    /// An instance for another communicator on the same GPU.
    fn duplicate(&self) -> Result<Self>;

    /// Generates a communicator's unique id, on one of its ranks.
    fn unique_id(&self) -> Result<[u8; ID]>;

    /// Starts to join the communicator `id`.
    fn join(&mut self, id: &[u8; ID], rank: usize, world_size: usize) -> Result<Progress>;

    /// The communicator's asynchronous state, including errors of its collectives.
    fn state(&mut self) -> Result<Progress>;

    /// The GPU.
    fn device(&self) -> DeviceLocation;

    /// Makes the stream wait for an event of another stream, which must live until the stream is idle.
    fn wait_event(&mut self, event: u64) -> Result<()>;

    /// Queues a collective. `send` and `receive` may be the same except for an all-to-all.
    fn queue(
        &mut self,
        what: Collective,
        send: DeviceBuffer,
        receive: DeviceBuffer,
    ) -> Result<Progress>;

    /// Whether all queued work is done. Called once a collective is queued ([`NcclApi::state`] is `Done`).
    fn is_idle(&mut self) -> Result<bool>;

    /// Allocates a send and a receive buffer, valid until the next call, and copies `sent` into the first.
    fn stage(&mut self, sent: &[u8], received: usize) -> Result<(DeviceBuffer, DeviceBuffer)>;

    /// Copies the receive buffer of [`NcclApi::stage`] to the host. Called when the stream is idle.
    fn fetch(&mut self, received: &mut [u8]) -> Result<()>;

    /// Aborts the communicator immediately, without the other ranks.
    fn abort(&mut self);

    /// Starts to finalize the communicator together with the other ranks.
    fn finalize(&mut self) -> Result<Progress>;
}

/// A rank of an NCCL communicator.
pub(crate) struct NcclLink<L: NcclApi> {
    library: L,
    rank_state: Arc<RankState>,
    world_size: usize,
    /// The timeout for all ranks to join.
    within: Duration,
    is_aborted: bool,
}

impl<L: NcclApi> NcclLink<L> {
    /// Joins the communicator `id` of `world_size` ranks as rank `rank`; returns when all have joined, or fails after
    /// `within`.
    pub(crate) fn join(
        library: L,
        id: &[u8; ID],
        (rank, world_size): (usize, usize),
        within: Duration,
        rank_state: Arc<RankState>,
    ) -> Result<Self> {
        let mut link = Self { library, rank_state, world_size, within, is_aborted: false };
        let begun = link.library.join(id, rank, world_size);
        link.wait_ready(begun, "NCCL communicator initialization", Some(within))?;
        Ok(link)
    }

    /// Waits until the communicator accepts the next call.
    fn wait_ready(
        &mut self,
        begun: Result<Progress>,
        what: &'static str,
        within: Option<Duration>,
    ) -> Result<()> {
        let mut progress = begun.map_err(|error| self.fail(error))?;
        let began = Instant::now();
        while progress == Progress::InProgress {
            self.pause(began, what, within)?;
            progress = self.library.state().map_err(|error| self.fail(error))?;
        }
        Ok(())
    }

    /// Waits until the stream is idle. Network errors show in the communicator's state, not on the stream.
    fn drain(&mut self) -> Result<()> {
        let began = Instant::now();
        loop {
            self.library.state().map_err(|error| self.fail(error))?;
            if self.library.is_idle().map_err(|error| self.fail(error))? {
                return Ok(());
            }
            self.pause(began, "a collective", None)?;
        }
    }

    fn pause(
        &mut self,
        began: Instant,
        what: &'static str,
        within: Option<Duration>,
    ) -> Result<()> {
        if let Some(failure) = self.rank_state.failure() {
            self.abort_once();
            return Err(aborted(&failure));
        }
        let waited = began.elapsed();
        if within.is_some_and(|within| waited > within) {
            self.abort_once();
            return Err(Error::Timeout { rank: self.rank_state.rank(), what, waited });
        }
        if waited < SPIN {
            thread::yield_now()
        } else {
            thread::sleep(INTERVAL)
        }
        Ok(())
    }

    /// Aborts the job on all ranks because of a library error.
    fn fail(&mut self, error: Error) -> Error {
        self.abort_once();
        self.rank_state.abort(self.rank_state.own_failure(FailureCause::Failed(error.to_string())));
        self.rank_state.failure().map_or(error, |failure| aborted(&failure))
    }

    fn abort_once(&mut self) {
        if !std::mem::replace(&mut self.is_aborted, true) {
            self.library.abort();
        }
    }

    /// Runs a collective on GPU memory and waits until it is done.
    fn run(&mut self, what: Collective, send: DeviceBuffer, receive: DeviceBuffer) -> Result<()> {
        // An aborted communicator must not be used.
        self.rank_state.check()?;
        let queued = self.library.queue(what, send, receive);
        self.wait_ready(queued, "queueing a collective", None)?;
        self.drain()?;
        self.rank_state.data_moved();
        Ok(())
    }

    fn run_staged(&mut self, what: Collective, sent: &[u8], received: &mut [u8]) -> Result<()> {
        if received.is_empty() {
            return Ok(());
        }
        self.rank_state.check()?;
        let staged = self.library.stage(sent, received.len());
        let (send, receive) = staged.map_err(|error| self.fail(error))?;
        self.run(what, send, receive)?;
        self.library.fetch(received).map_err(|error| self.fail(error))
    }
}

impl<L: NcclApi + 'static> Link for NcclLink<L> {
    fn all_gather(&mut self, mine: &[u8], all: &mut [u8], _polling: Polling) -> Result<()> {
        self.run_staged(Collective::AllGather, mine, all)
    }

    fn all_to_all(&mut self, sent: &[u8], received: &mut [u8]) -> Result<()> {
        self.run_staged(Collective::AllToAll, sent, received)
    }

    fn broadcast(&mut self, data: &mut [u8], root: usize) -> Result<()> {
        let sent = data.to_vec();
        self.run_staged(Collective::Broadcast { root }, &sent, data)
    }

    fn split(&mut self, first: usize, rank: usize, size: usize) -> Result<Box<dyn Link>> {
        let made = self.library.duplicate().and_then(|part| {
            // The first rank of each subgroup generates its id.
            let id = if rank == 0 { part.unique_id()? } else { [0; ID] };
            Ok((part, id))
        });
        let (part, own) = made.map_err(|error| self.fail(error))?;
        let mut ids = vec![0; ID * self.world_size];
        self.all_gather(&own, &mut ids, Polling::Eager)?;
        let mut id = [0; ID];
        id.copy_from_slice(&ids[ID * first..][..ID]);
        let rank_state = Arc::clone(&self.rank_state);
        Ok(Box::new(Self::join(part, &id, (rank, size), self.within, rank_state)?))
    }

    fn device(&self) -> Option<DeviceLocation> {
        Some(self.library.device())
    }

    fn direct(
        &mut self,
        what: DirectCollective,
        send: &Tensor,
        receive: &Tensor,
        mark: &StreamEvent,
    ) -> Result<()> {
        if receive.elem_count() == 0 {
            return Ok(());
        }
        self.rank_state.check()?;
        self.library.wait_event(mark.handle()).map_err(|error| self.fail(error))?;
        let what = match what {
            DirectCollective::Sum => Collective::AllReduce(Reduce::Sum),
            DirectCollective::ReduceScatter => Collective::ReduceScatter,
            DirectCollective::AllGather => Collective::AllGather,
        };
        self.run(what, DeviceBuffer::of(send)?, DeviceBuffer::of(receive)?)
    }

    fn close(mut self: Box<Self>) {
        let begun = self.library.finalize();
        if self
            .wait_ready(begun, "NCCL communicator finalization", Some(Duration::from_secs(5)))
            .is_err()
        {
            self.abort_once();
        }
        self.is_aborted = true;
    }

    fn abort(&mut self, _exit_code: i32) {
        self.abort_once();
    }
}

impl<L: NcclApi> Drop for NcclLink<L> {
    fn drop(&mut self) {
        self.abort_once();
    }
}
