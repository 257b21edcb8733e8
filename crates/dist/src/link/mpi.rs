//! Ranks over MPI. All calls are non-blocking ones that are looked at until they are done, by the thread
//! that started MPI. When a verdict falls amidst one, the thread never returns: MPI may still write into the
//! buffers, which lie on its stack and live as long as the process then.

use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use mpi::Threading;
use mpi::environment::Universe;
use mpi::request::{LocalScope, Request, scope};
use mpi::topology::{Color, SimpleCommunicator};
use mpi::traits::{Communicator as _, CommunicatorCollectives, Root};

use super::{Link, Others};
use crate::error::{Error, Result};
use crate::options::Options;
use crate::place::Place;
use crate::plane::Client;
use crate::watch::Watch;

mod bootstrap;

/// For so long it is looked for data without a pause.
const EAGER: Duration = Duration::from_micros(200);
/// For so long the pauses are short, though others may be late.
const ATTENTIVE: Duration = Duration::from_millis(20);
/// A pause while data move.
const SHORT: Duration = Duration::from_micros(20);
/// A pause while others may be late.
const LONG: Duration = Duration::from_millis(1);

/// MPI's world or a part of it, and with the world the library's state, which ends with [`Link::close`].
pub(crate) struct MpiLink {
    /// Not dropped but by [`Link::close`]: MPI waits for all ranks there.
    universe: ManuallyDrop<Option<Universe>>,
    /// A part is not dropped, which would wait too; it goes with the library's state.
    world: ManuallyDrop<SimpleCommunicator>,
    watch: Arc<Watch>,
}

/// Starts MPI in this thread, and brings the ranks together.
pub(crate) fn join(
    place: &Place,
    options: &Options,
    watch: Arc<Watch>,
) -> Result<(Box<dyn Link>, Client)> {
    let wrong = |why: String| Error::Mpi { why };
    let (universe, threading) = mpi::initialize_with_threading(Threading::Serialized)
        .ok_or_else(|| wrong("it was started before in this process".into()))?;
    let world = universe.world();
    let here = (world.rank() as usize, world.size() as usize);
    let mut link = Box::new(MpiLink {
        universe: ManuallyDrop::new(Some(universe)),
        world: ManuallyDrop::new(world),
        watch: Arc::clone(&watch),
    });
    if threading < Threading::Funneled {
        return Err(wrong("it was built without support for threads; build it with".into()));
    }
    if here != (place.rank, place.world_size) {
        return Err(wrong(format!(
            "this process is rank {} of {} for it, and rank {} of {} for the launcher; start it with this \
             MPI's `mpirun`, or with a launcher that knows this MPI",
            here.0, here.1, place.rank, place.world_size
        )));
    }
    let (meeting, listener) = bootstrap::meet(&mut *link, place, options)?;
    let client = Client::join(&meeting, listener, place.world_size, &place.host, options, watch)?;
    Ok((link, client))
}

impl MpiLink {
    /// Looks at a request until it is done; for ever, if a verdict falls.
    fn complete<'a, D: ?Sized>(
        &self,
        mut request: Request<'a, D, &LocalScope<'a>>,
        others: Others,
    ) {
        let began = Instant::now();
        let mut looks = 0u32;
        loop {
            request = match request.test() {
                Ok(_) => return,
                Err(request) => request,
            };
            looks = looks.wrapping_add(1);
            let waited = began.elapsed();
            if waited < EAGER {
                thread::yield_now();
                continue;
            }
            let late = others == Others::MayBeLate && waited > ATTENTIVE;
            thread::sleep(if late { LONG } else { SHORT });
            if looks.is_multiple_of(16) && self.watch.verdict().is_some() {
                self.stay();
            }
        }
    }

    /// Stays here until the process ends, or is asked to end it.
    fn stay(&self) -> ! {
        loop {
            if let Some(exit_code) = self.watch.asked_to_abort() {
                self.world.abort(exit_code);
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Link for MpiLink {
    fn all_gather(&mut self, mine: &[u8], all: &mut [u8], others: Others) -> Result<()> {
        scope(|scope| {
            self.complete(self.world.immediate_all_gather_into(scope, mine, all), others);
        });
        Ok(())
    }

    fn all_to_all(&mut self, sent: &[u8], received: &mut [u8]) -> Result<()> {
        scope(|scope| {
            let request = self.world.immediate_all_to_all_into(scope, sent, received);
            self.complete(request, Others::AreHere);
        });
        Ok(())
    }

    fn broadcast(&mut self, data: &mut [u8], root: usize) -> Result<()> {
        let root = self.world.process_at_rank(root as i32);
        scope(|scope| {
            self.complete(root.immediate_broadcast_into(scope, data), Others::AreHere);
        });
        Ok(())
    }

    fn split(&mut self, first: usize, rank: usize, _size: usize) -> Result<Box<dyn Link>> {
        let none = || Error::Mpi { why: format!("it gave rank {rank} no part of the job") };
        let (color, key) = (Color::with_value(first as i32), rank as i32);
        let part = self.world.split_by_color_with_key(color, key).ok_or_else(none)?;
        Ok(Box::new(Self {
            universe: ManuallyDrop::new(None),
            world: ManuallyDrop::new(part),
            watch: Arc::clone(&self.watch),
        }))
    }

    fn close(self: Box<Self>) {
        drop(ManuallyDrop::into_inner(self.universe));
    }

    fn abort(&mut self, exit_code: i32) {
        self.world.abort(exit_code);
    }
}
