//! The handle through which a rank works together with the others.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use candle_core::DeviceLocation;

use crate::error::{Error, Result};
use crate::group::Group;
use crate::link::threads::{Hub, ThreadLink};
use crate::operation::{Call, Operation};
use crate::options::Options;
use crate::pending::Pending;
use crate::plane::{Client, Meeting, Token, listen};
use crate::traffic::{Counters, Traffic};
use crate::verdict::{Verdict, Why};
use crate::vigil::Vigil;
use crate::watch::{Watch, lost};
use crate::worker::{Lane, Queue};

#[cfg(feature = "nccl")]
mod nccl;
mod operations;
mod split;
mod tensors;

/// All ranks of a job, as one of them sees them. Cheap to clone; clones are the same rank.
///
/// Every rank makes the same calls in the same order. A call gives a [`Pending`] at once, and its data
/// move while the caller computes. Where ranks call different things, or with different lengths, every
/// rank gets an error that names both.
///
/// When the last clone is dropped without [`Communicator::finish`], the other ranks' work is ended.
#[derive(Debug, Clone)]
pub struct Communicator(Arc<Rank>);

#[derive(Debug)]
struct Rank {
    /// This rank's number among these.
    rank: usize,
    lane: Lane,
    world_size: usize,
    /// Whose memory the connection moves by itself.
    device: Option<DeviceLocation>,
    options: Options,
    hosts: Vec<String>,
    watch: Arc<Watch>,
    counters: Arc<Counters>,
    /// Nothing for a rank that is alone.
    others: Option<Others>,
    /// All ranks of the job, where these are a part of them: they stay as long as the part.
    whole: Option<Communicator>,
}

#[derive(Debug)]
struct Others {
    queue: Arc<Queue>,
    client: Arc<Client>,
}

impl Communicator {
    /// The only rank: every operation gives back what it was given.
    pub fn single() -> Self {
        let host = crate::place::Place::alone().host;
        Self(Arc::new(Rank {
            rank: 0,
            lane: Lane::World,
            world_size: 1,
            device: None,
            options: Options::default(),
            watch: Arc::new(Watch::new(0, &host)),
            hosts: vec![host],
            counters: Arc::new(Counters::default()),
            others: None,
            whole: None,
        }))
    }

    /// `world_size` ranks in this process, for as many threads: what several ranks do can be tried
    /// without a launcher. They meet over the loopback, and are watched over as others are.
    ///
    /// # Errors
    ///
    /// No rank is asked for, or the loopback cannot be used.
    pub fn threads(world_size: usize, options: &Options) -> Result<Vec<Self>> {
        if world_size == 0 {
            return Err(Error::NoRanks);
        }
        let listener = listen((Ipv4Addr::LOCALHOST, 0).into())?;
        let system = |source| Error::System { what: "listen at the loopback", source };
        let address = listener.local_addr().map_err(system)?;
        let meeting = Meeting::new(address, Token::random()?);
        let (hub, mut listener) = (Hub::new(world_size), Some(listener));
        let joining: Vec<_> = (0..world_size)
            .map(|rank| {
                let watch = Arc::new(Watch::new(rank, "thread"));
                let link = Box::new(ThreadLink::new(Arc::clone(&hub), Arc::clone(&watch), rank));
                let (meeting, options) = (meeting.clone(), options.clone());
                let listener = listener.take();
                thread::spawn(move || {
                    Self::start(&watch, world_size, options.clone(), move |watch| {
                        let name = "thread";
                        let client =
                            Client::join(&meeting, listener, world_size, name, &options, watch)?;
                        Ok((link as _, client))
                    })
                })
            })
            .collect();
        joining.into_iter().map(|rank| rank.join().unwrap_or(Err(Error::NoRanks))).collect()
    }

    /// Starts the thread that moves data, where `make` makes its connections.
    pub(crate) fn start(
        watch: &Arc<Watch>,
        world_size: usize,
        options: Options,
        make: impl FnOnce(Arc<Watch>) -> Result<(Box<dyn crate::link::Link>, Client)> + Send + 'static,
    ) -> Result<Self> {
        let (rank, counters) = (watch.rank(), Arc::new(Counters::default()));
        let (counted, shared) = (Arc::clone(&counters), Arc::clone(watch));
        let within = options.join_within.saturating_mul(2).saturating_add(options.deadline);
        let (queue, (client, device)) = Queue::start(watch, within, move || {
            let (link, client) = make(Arc::clone(&shared))?;
            let device = link.device();
            let group = Group {
                link,
                watch: shared,
                counters: counted,
                hosts: client.hosts().to_vec(),
                rank,
                first: 0,
                world_size,
                operation: Operation::Barrier,
                part: None,
            };
            Ok((group, (client, device)))
        })?;
        let hosts = client.hosts().to_vec();
        let others = Others { queue: Arc::new(queue), client: Arc::new(client) };
        let (watch, others, lane) = (Arc::clone(watch), Some(others), Lane::World);
        let whole = None;
        Ok(Self(Arc::new(Rank {
            rank,
            lane,
            world_size,
            device,
            options,
            hosts,
            watch,
            counters,
            others,
            whole,
        })))
    }

    /// Ranks over MPI, one a process, as `place` says. All MPI calls are made by one thread, which this
    /// starts; MPI may not have been started before.
    ///
    /// Where the ranks meet and the token by which they know each other go round by MPI.
    ///
    /// # Errors
    ///
    /// MPI gives this process another place, the ranks cannot reach rank 0, or they do not fit together.
    #[cfg(feature = "mpi")]
    pub fn mpi(place: &crate::Place, options: &Options) -> Result<Self> {
        let watch = Arc::new(Watch::new(place.rank, &place.host));
        let (shared, own) = (place.clone(), options.clone());
        Self::start(&watch, place.world_size, options.clone(), move |watch| {
            crate::link::mpi::join(&shared, &own, watch)
        })
    }

    /// This rank's number, from 0.
    pub fn rank(&self) -> usize {
        self.0.rank
    }

    /// The number of ranks.
    pub fn world_size(&self) -> usize {
        self.0.world_size
    }

    /// The machines of the ranks, in order.
    pub fn hosts(&self) -> &[String] {
        &self.0.hosts
    }

    /// Names the phase that this rank's work is in from now on, such as `rollout`, `update` or
    /// `checkpoint`: messages about this rank tell it.
    pub fn enter(&self, phase: &'static str) {
        tracing::debug!(rank = self.rank(), phase, "a phase begins");
        self.0.watch.enter_phase(phase);
        if let Some(others) = &self.0.others {
            others.client.pulse();
        }
    }

    /// This rank's work got on, by a step of generation, a layer, a file. A rank that others wait for is
    /// left alone as long as it beats more often than once in a deadline.
    pub fn beat(&self) {
        self.0.watch.beat();
    }

    /// Lets this rank beat until the result is dropped: while its work waits for somebody outside of the job who has a
    /// time limit of his own, such as a service that scores.
    pub fn vigil(&self) -> Vigil {
        match self.0.others {
            Some(_) => Vigil::of(Arc::clone(&self.0.watch)),
            None => Vigil::none(),
        }
    }

    /// What this rank sent so far, by operation.
    pub fn traffic(&self) -> BTreeMap<Operation, Traffic> {
        self.0.counters.read()
    }

    /// Why the job was ended, where it was.
    pub fn verdict(&self) -> Option<Verdict> {
        self.0.watch.verdict().map(|verdict| (*verdict).clone())
    }

    /// Runs `hook` once when a rank ends the job, on whichever thread learns of it; at once, where one has.
    /// It must not block.
    pub fn on_lost(&self, hook: impl FnOnce(&Verdict) + Send + 'static) {
        self.0.watch.on_lost(Box::new(hook));
    }

    /// `bytes` of rank 0 on every rank, beside the collectives: for the id of another library's
    /// communicator. What other ranks give is not looked at. All ranks call it equally often. At most a
    /// mebibyte.
    ///
    /// # Errors
    ///
    /// A rank ended the job, or rank 0 handed nothing round within the deadline.
    pub fn share(&self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        match &self.0.others {
            None => Ok(bytes),
            Some(_) if self.0.lane == Lane::Part => self.broadcast_bytes(bytes, 0)?.wait(),
            Some(others) => others.client.share(bytes, self.0.options.deadline),
        }
    }

    /// Ends the job because this rank failed: all ranks get its `words`. Returns when they were told (after
    /// two seconds at most) with the verdict, which is another's where that came first.
    pub fn fail(&self, words: &str) -> Error {
        match &self.0.others {
            Some(others) => others.client.fail(words),
            None => {
                let verdict = self.0.watch.own_verdict(Why::Failed(words.to_owned()));
                self.0.watch.condemn(verdict.clone());
                lost(&verdict)
            }
        }
    }

    /// To be called when a rank ended the job and this one has told its user so: returns when the others
    /// have done that too, or after two seconds, and this process may end. Launchers end all ranks as soon
    /// as one of them ends, and those would not get to tell.
    pub fn part(&self) {
        if let Some(others) = &self.0.others
            && self.0.watch.verdict().is_some()
        {
            others.client.part();
        }
    }

    /// Ends the job in good order: returns when all ranks have called it. Nothing may be called then. A part of a job
    /// ends with the job, and here its ranks only wait for each other.
    ///
    /// # Errors
    ///
    /// A rank ended the job otherwise, or the end took too long.
    pub fn finish(&self) -> Result<()> {
        let Some(others) = &self.0.others else { return self.0.watch.check() };
        if self.0.lane == Lane::Part {
            return self.barrier();
        }
        let finish = self.call(Operation::Finish, 0, 0);
        others.queue.submit(Lane::World, finish, |_, _| Ok(()))?.wait()?;
        others.client.finish(self.0.options.deadline)?;
        others.queue.close().wait_within("the end of the collectives", self.0.options.deadline)
    }

    /// Ends this process with `exit_code`, and with MPI those of all ranks at once (`MPI_Abort`). Others do
    /// not get to say anything any more: [`Communicator::part`] comes before it.
    pub fn abort(&self, exit_code: i32) -> ! {
        if let Some(others) = &self.0.others {
            self.0.watch.ask_to_abort(exit_code);
            others.queue.abort(exit_code);
            thread::sleep(Duration::from_secs(1));
        }
        std::process::exit(exit_code)
    }

    fn call(&self, operation: Operation, length: usize, root: usize) -> Call {
        // The queue knows the number.
        Call { sequence: 0, operation, length: length as u64, root: root as u64 }
    }

    /// Queues an operation; one rank alone has `alone` as the result.
    fn begin<I, T: Send + 'static>(
        &self,
        call: Call,
        input: I,
        alone: impl FnOnce(I) -> T,
        run: impl FnOnce(&mut Group, &[Call], I) -> Result<T> + Send + 'static,
    ) -> Result<Pending<T>>
    where
        I: Send + 'static,
    {
        match &self.0.others {
            None => {
                self.0.watch.check()?;
                self.0.counters.call(call.operation);
                Ok(Pending::here(alone(input)))
            }
            Some(others) => {
                others.queue.submit(self.0.lane, call, |group, calls| run(group, calls, input))
            }
        }
    }
}

impl Drop for Rank {
    fn drop(&mut self) {
        if let Some(others) = &self.others
            && self.whole.is_none()
            && !others.client.is_finished()
            && self.watch.verdict().is_none()
        {
            others.client.leave();
        }
    }
}

#[cfg(test)]
mod tests;
