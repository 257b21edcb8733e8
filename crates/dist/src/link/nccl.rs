//! Ranks over NCCL, one a GPU. Nothing here blocks: the communicator is a non-blocking one, and whatever was begun is
//! looked at until it is done, fails, or a verdict falls. Then the communicator is aborted, which frees the GPU of the
//! collectives that wait there for ranks that do not come.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use candle_core::{DeviceLocation, Tensor};
use embodied_r_kernels::memory::{self, Mark};

use super::{Direct, Link, Others};
use crate::error::{Error, Result};
use crate::operation::Reduce;
use crate::verdict::Why;
use crate::watch::{Watch, lost};

#[cfg(feature = "nccl")]
mod library;
#[cfg(test)]
mod tests;

#[cfg(feature = "nccl")]
pub(crate) use library::Cuda;

/// Bytes of what ranks must know to find each other.
pub(crate) const ID: usize = 128;

/// For so long it is looked for data without a pause.
const EAGER: Duration = Duration::from_micros(200);
/// A pause while data move.
const SHORT: Duration = Duration::from_micros(20);

/// Whether something that was begun is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    Done,
    Underway,
}

/// What ranks do with memory on their GPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Collective {
    /// As many numbers are sent as are received.
    AllReduce(Reduce),
    /// A part of what is sent is received.
    ReduceScatter,
    /// What is sent is a part of what is received.
    AllGather,
    /// One rank's numbers, in the place of everybody's.
    Broadcast { root: usize },
    /// Equal parts, one from every rank for every other.
    AllToAll,
}

/// What the numbers of a piece of memory are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dtype {
    F32,
    U8,
}

impl Dtype {
    /// Bytes of a number.
    pub(crate) fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::U8 => 1,
        }
    }
}

/// A piece of the GPU's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) address: u64,
    pub(crate) length: usize,
    pub(crate) dtype: Dtype,
}

impl Span {
    fn of(tensor: &Tensor) -> Result<Self> {
        let (address, length) = (memory::address(tensor)?, tensor.elem_count());
        Ok(Self { address, length, dtype: Dtype::F32 })
    }
}

/// The calls of NCCL and of CUDA's driver that a link makes, on a stream of its own. None of them may block for as long
/// as another rank likes.
pub(crate) trait Library: Sized {
    /// The same for another communicator, on the same GPU.
    fn another(&self) -> Result<Self>;

    /// What ranks must know to find each other in a new communicator; one of them draws it for all.
    fn unique_id(&self) -> Result<[u8; ID]>;

    /// Begins to join the communicator `id`.
    fn join(&mut self, id: &[u8; ID], rank: usize, world_size: usize) -> Result<Progress>;

    /// How the communicator is: an error of any of its collectives is one here.
    fn state(&mut self) -> Result<Progress>;

    /// The GPU.
    fn device(&self) -> DeviceLocation;

    /// Lets the stream wait for an event of another one, which is there until the stream is idle.
    fn follow(&mut self, event: u64) -> Result<()>;

    /// Queues a collective. `send` and `receive` may be the same but for an all-to-all.
    fn queue(&mut self, what: Collective, send: Span, receive: Span) -> Result<Progress>;

    /// Whether all that was queued is done.
    fn is_idle(&mut self) -> Result<bool>;

    /// Memory for bytes that are sent and bytes that are received, which stay until the next call; the first are copied
    /// there.
    fn stage(&mut self, sent: &[u8], received: usize) -> Result<(Span, Span)>;

    /// Copies what was received from where [`Library::stage`] has put it. Called when the stream is idle.
    fn fetch(&mut self, received: &mut [u8]) -> Result<()>;

    /// Ends the communicator without the other ranks, at once.
    fn abort(&mut self);

    /// Begins to end the communicator with the other ranks.
    fn finalize(&mut self) -> Result<Progress>;
}

/// A rank's end of a communicator.
pub(crate) struct NcclLink<L: Library> {
    library: L,
    watch: Arc<Watch>,
    world_size: usize,
    /// The time for all ranks to join.
    within: Duration,
    is_aborted: bool,
}

impl<L: Library> NcclLink<L> {
    /// Joins the communicator `id` of `world_size` ranks, as that with the number `rank` among them; returns when all
    /// have, or fails after `within`.
    pub(crate) fn join(
        library: L,
        id: &[u8; ID],
        (rank, world_size): (usize, usize),
        within: Duration,
        watch: Arc<Watch>,
    ) -> Result<Self> {
        let mut link = Self { library, watch, world_size, within, is_aborted: false };
        let begun = link.library.join(id, rank, world_size);
        link.settle(begun, "joining NCCL's communicator", Some(within))?;
        Ok(link)
    }

    /// Waits until the communicator takes the next call.
    fn settle(
        &mut self,
        begun: Result<Progress>,
        what: &'static str,
        within: Option<Duration>,
    ) -> Result<()> {
        let mut progress = begun.map_err(|error| self.fail(error))?;
        let began = Instant::now();
        while progress == Progress::Underway {
            self.pause(began, what, within)?;
            progress = self.library.state().map_err(|error| self.fail(error))?;
        }
        Ok(())
    }

    /// Waits until the stream is idle. Errors of the network show in the communicator's state, not on the stream.
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
        if let Some(verdict) = self.watch.verdict() {
            self.abort_once();
            return Err(lost(&verdict));
        }
        let waited = began.elapsed();
        if within.is_some_and(|within| waited > within) {
            self.abort_once();
            return Err(Error::Timeout { rank: self.watch.rank(), what, waited });
        }
        if waited < EAGER {
            thread::yield_now()
        } else {
            thread::sleep(SHORT)
        }
        Ok(())
    }

    /// Ends the job because of an error of the library: all ranks are told.
    fn fail(&mut self, error: Error) -> Error {
        self.abort_once();
        self.watch.condemn(self.watch.own_verdict(Why::Failed(error.to_string())));
        self.watch.verdict().map_or(error, |verdict| lost(&verdict))
    }

    fn abort_once(&mut self) {
        if !std::mem::replace(&mut self.is_aborted, true) {
            self.library.abort();
        }
    }

    /// Does a collective on memory of the GPU, and waits until it is done.
    fn run(&mut self, what: Collective, send: Span, receive: Span) -> Result<()> {
        // A communicator that was aborted is none any more.
        self.watch.check()?;
        let queued = self.library.queue(what, send, receive);
        self.settle(queued, "queueing a collective", None)?;
        self.drain()?;
        self.watch.data_moved();
        Ok(())
    }

    fn run_staged(&mut self, what: Collective, sent: &[u8], received: &mut [u8]) -> Result<()> {
        if received.is_empty() {
            return Ok(());
        }
        self.watch.check()?;
        let staged = self.library.stage(sent, received.len());
        let (send, receive) = staged.map_err(|error| self.fail(error))?;
        self.run(what, send, receive)?;
        self.library.fetch(received).map_err(|error| self.fail(error))
    }
}

impl<L: Library + 'static> Link for NcclLink<L> {
    fn all_gather(&mut self, mine: &[u8], all: &mut [u8], _others: Others) -> Result<()> {
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
        let made = self.library.another().and_then(|part| {
            // Of each part the first rank draws its id.
            let id = if rank == 0 { part.unique_id()? } else { [0; ID] };
            Ok((part, id))
        });
        let (part, drawn) = made.map_err(|error| self.fail(error))?;
        let mut ids = vec![0; ID * self.world_size];
        self.all_gather(&drawn, &mut ids, Others::AreHere)?;
        let mut id = [0; ID];
        id.copy_from_slice(&ids[ID * first..][..ID]);
        let watch = Arc::clone(&self.watch);
        Ok(Box::new(Self::join(part, &id, (rank, size), self.within, watch)?))
    }

    fn device(&self) -> Option<DeviceLocation> {
        Some(self.library.device())
    }

    fn direct(&mut self, what: Direct, send: &Tensor, receive: &Tensor, mark: &Mark) -> Result<()> {
        if receive.elem_count() == 0 {
            return Ok(());
        }
        self.watch.check()?;
        self.library.follow(mark.event()).map_err(|error| self.fail(error))?;
        let what = match what {
            Direct::Sum => Collective::AllReduce(Reduce::Sum),
            Direct::ReduceScatter => Collective::ReduceScatter,
            Direct::AllGather => Collective::AllGather,
        };
        self.run(what, Span::of(send)?, Span::of(receive)?)
    }

    fn close(mut self: Box<Self>) {
        let begun = self.library.finalize();
        if self.settle(begun, "ending NCCL's communicator", Some(Duration::from_secs(5))).is_err() {
            self.abort_once();
        }
        self.is_aborted = true;
    }

    fn abort(&mut self, _exit_code: i32) {
        self.abort_once();
    }
}

impl<L: Library> Drop for NcclLink<L> {
    fn drop(&mut self) {
        self.abort_once();
    }
}
