//! The MPI backend. All calls are non-blocking and polled to completion by the thread that initialized MPI. If the job
//! is aborted during a call, the thread never returns: MPI may still write into buffers on its stack, so these must
//! live as long as the process.

use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use mpi::Threading;
use mpi::environment::Universe;
use mpi::request::{LocalScope, Request, scope};
use mpi::topology::{Color, SimpleCommunicator};
use mpi::traits::{Communicator as _, CommunicatorCollectives, Root};

use super::{Link, Polling};
use crate::control_plane::Client;
use crate::error::{Error, Result};
use crate::options::CommunicatorOptions;
use crate::rank_info::RankInfo;
use crate::rank_state::RankState;

mod bootstrap;

/// How long to poll without sleeping.
const SPIN: Duration = Duration::from_micros(200);
/// How long to poll at the short interval even if others may be late.
const SHORT_POLLING: Duration = Duration::from_millis(20);
/// The poll interval while data moves.
const SHORT_INTERVAL: Duration = Duration::from_micros(20);
/// The poll interval while others may be late.
const LONG_INTERVAL: Duration = Duration::from_millis(1);

/// `MPI_COMM_WORLD` or a subgroup. The world also owns MPI's state, which [`Link::close`] finalizes.
pub(crate) struct MpiLink {
    /// Dropped only by [`Link::close`], because `MPI_Finalize` waits for all ranks.
    universe: ManuallyDrop<Option<Universe>>,
    /// Never dropped, because freeing a subgroup waits too; `MPI_Finalize` frees it.
    world: ManuallyDrop<SimpleCommunicator>,
    rank_state: Arc<RankState>,
}

/// Initializes MPI on this thread and joins the rendezvous.
pub(crate) fn join(
    rank_info: &RankInfo,
    options: &CommunicatorOptions,
    rank_state: Arc<RankState>,
) -> Result<(Box<dyn Link>, Client)> {
    let wrong = |why: String| Error::Mpi { why };
    let (universe, threading) = mpi::initialize_with_threading(Threading::Serialized)
        .ok_or_else(|| wrong("it was already initialized in this process".into()))?;
    let world = universe.world();
    let here = (world.rank() as usize, world.size() as usize);
    let mut link = Box::new(MpiLink {
        universe: ManuallyDrop::new(Some(universe)),
        world: ManuallyDrop::new(world),
        rank_state: Arc::clone(&rank_state),
    });
    if threading < Threading::Funneled {
        return Err(wrong(
            "it does not provide MPI_THREAD_FUNNELED; use an MPI library built with thread support"
                .into(),
        ));
    }
    if here != (rank_info.rank, rank_info.world_size) {
        return Err(wrong(format!(
            "this process is rank {} of {} in MPI, but rank {} of {} in the launcher's variables; start it with \
             this MPI's `mpirun`, or with a launcher that supports this MPI",
            here.0, here.1, rank_info.rank, rank_info.world_size
        )));
    }
    let (rendezvous, listener) = bootstrap::open_rendezvous(&mut *link, rank_info, options)?;
    let client = Client::join(
        &rendezvous,
        listener,
        rank_info.world_size,
        &rank_info.host,
        options,
        rank_state,
    )?;
    Ok((link, client))
}

impl MpiLink {
    /// Polls a request until it completes; never returns if the job is aborted meanwhile.
    fn complete<'a, D: ?Sized>(
        &self,
        mut request: Request<'a, D, &LocalScope<'a>>,
        polling: Polling,
    ) {
        let began = Instant::now();
        let mut polls = 0u32;
        loop {
            request = match request.test() {
                Ok(_) => return,
                Err(request) => request,
            };
            polls = polls.wrapping_add(1);
            let waited = began.elapsed();
            if waited < SPIN {
                thread::yield_now();
                continue;
            }
            let late = polling == Polling::Relaxed && waited > SHORT_POLLING;
            thread::sleep(if late { LONG_INTERVAL } else { SHORT_INTERVAL });
            if polls.is_multiple_of(16) && self.rank_state.failure().is_some() {
                self.park();
            }
        }
    }

    /// Waits forever, or until an abort of all processes is requested.
    fn park(&self) -> ! {
        loop {
            if let Some(exit_code) = self.rank_state.requested_abort() {
                self.world.abort(exit_code);
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Link for MpiLink {
    fn all_gather(&mut self, mine: &[u8], all: &mut [u8], polling: Polling) -> Result<()> {
        scope(|scope| {
            self.complete(self.world.immediate_all_gather_into(scope, mine, all), polling);
        });
        Ok(())
    }

    fn all_to_all(&mut self, sent: &[u8], received: &mut [u8]) -> Result<()> {
        scope(|scope| {
            let request = self.world.immediate_all_to_all_into(scope, sent, received);
            self.complete(request, Polling::Eager);
        });
        Ok(())
    }

    fn broadcast(&mut self, data: &mut [u8], root: usize) -> Result<()> {
        let root = self.world.process_at_rank(root as i32);
        scope(|scope| {
            self.complete(root.immediate_broadcast_into(scope, data), Polling::Eager);
        });
        Ok(())
    }

    fn split(&mut self, first: usize, rank: usize, _size: usize) -> Result<Box<dyn Link>> {
        let none = || Error::Mpi {
            why: format!("MPI_Comm_split returned no communicator to rank {rank}"),
        };
        let (color, key) = (Color::with_value(first as i32), rank as i32);
        let part = self.world.split_by_color_with_key(color, key).ok_or_else(none)?;
        Ok(Box::new(Self {
            universe: ManuallyDrop::new(None),
            world: ManuallyDrop::new(part),
            rank_state: Arc::clone(&self.rank_state),
        }))
    }

    fn close(self: Box<Self>) {
        drop(ManuallyDrop::into_inner(self.universe));
    }

    fn abort(&mut self, exit_code: i32) {
        self.world.abort(exit_code);
    }
}
