//! The communicator: a rank's handle to the other ranks.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use candle_core::DeviceLocation;

use crate::control_plane::{Client, JobToken, Rendezvous, listen};
use crate::error::{Error, Result};
use crate::failure::{FailureCause, FailureReport};
use crate::group::Group;
use crate::heartbeat_guard::HeartbeatGuard;
use crate::link::threads::{Exchange, ThreadLink};
use crate::operation::{Call, GroupKind, Operation};
use crate::options::CommunicatorOptions;
use crate::pending::Pending;
use crate::rank_state::{RankState, aborted};
use crate::traffic::{Counters, Traffic};
use crate::worker::Queue;

#[cfg(feature = "nccl")]
mod nccl;
mod operations;
mod split;
mod tensors;

/// A rank's handle to all ranks of a job. Cheap to clone; clones are the same rank.
///
/// Every rank makes the same calls in the same order. A call returns a [`Pending`] immediately, and its data moves
/// while the caller computes. If ranks call different collectives, or with different lengths, every rank gets an
/// error that names both calls.
///
/// If the last clone is dropped without [`Communicator::finish`], the job is aborted on the other ranks.
#[derive(Debug, Clone)]
pub struct Communicator(Arc<Rank>);

#[derive(Debug)]
struct Rank {
    /// This rank's index within the group.
    rank: usize,
    kind: GroupKind,
    world_size: usize,
    /// The device whose memory the backend moves directly.
    device: Option<DeviceLocation>,
    options: CommunicatorOptions,
    hosts: Vec<String>,
    rank_state: Arc<RankState>,
    counters: Arc<Counters>,
    /// `None` for a single rank.
    peers: Option<Peers>,
    /// The world communicator of a subgroup, kept alive as long as the subgroup.
    parent: Option<Communicator>,
}

/// The connections to the other ranks: collectives and control plane.
#[derive(Debug)]
struct Peers {
    queue: Arc<Queue>,
    client: Arc<Client>,
}

impl Communicator {
    /// A world of one rank: every operation returns its input.
    pub fn single() -> Self {
        let host = crate::rank_info::RankInfo::standalone().host;
        Self(Arc::new(Rank {
            rank: 0,
            kind: GroupKind::World,
            world_size: 1,
            device: None,
            options: CommunicatorOptions::default(),
            rank_state: Arc::new(RankState::new(0, &host)),
            hosts: vec![host],
            counters: Arc::new(Counters::default()),
            peers: None,
            parent: None,
        }))
    }

    /// What `work` returns on each of `world_size` ranks, which are threads of this process, in order.
    ///
    /// # Errors
    /// As [`Self::threads`].
    ///
    /// # Panics
    /// If `work` panics.
    pub fn on_threads<T: Send>(
        world_size: usize,
        work: impl Fn(Self) -> T + Sync,
    ) -> Result<Vec<T>> {
        Ok(Self::on_each(Self::threads(world_size, &CommunicatorOptions::default())?, work))
    }

    /// What `work` returns on each of `ranks`, each on a thread of its own, in order.
    ///
    /// # Panics
    /// If `work` panics.
    pub fn on_each<T: Send>(ranks: Vec<Self>, work: impl Fn(Self) -> T + Sync) -> Vec<T> {
        let work = &work;
        thread::scope(|scope| {
            let start = |rank| scope.spawn(move || work(rank));
            let threads: Vec<_> = ranks.into_iter().map(start).collect();
            let end = |thread: ScopedJoinHandle<'_, T>| {
                thread.join().unwrap_or_else(|panic| resume_unwind(panic))
            };
            threads.into_iter().map(end).collect()
        })
    }

    /// `world_size` ranks in this process, one per thread, for use without a launcher. Rendezvous and failure detection
    /// run over the loopback as usual.
    ///
    /// # Errors
    ///
    /// `world_size` is 0, or the loopback cannot be used.
    pub fn threads(world_size: usize, options: &CommunicatorOptions) -> Result<Vec<Self>> {
        if world_size == 0 {
            return Err(Error::NoRanks);
        }
        let listener = listen((Ipv4Addr::LOCALHOST, 0).into())?;
        let system = |source| Error::System { what: "listen on the loopback", source };
        let address = listener.local_addr().map_err(system)?;
        let rendezvous = Rendezvous::new(address, JobToken::random()?);
        let (exchange, mut listener) = (Exchange::new(world_size), Some(listener));
        let joining: Vec<_> = (0..world_size)
            .map(|rank| {
                let rank_state = Arc::new(RankState::new(rank, "thread"));
                let link =
                    Box::new(ThreadLink::new(Arc::clone(&exchange), Arc::clone(&rank_state), rank));
                let (rendezvous, options) = (rendezvous.clone(), options.clone());
                let listener = listener.take();
                thread::spawn(move || {
                    Self::start(&rank_state, world_size, options.clone(), move |rank_state| {
                        let name = "thread";
                        let client = Client::join(
                            &rendezvous,
                            listener,
                            world_size,
                            name,
                            &options,
                            rank_state,
                        )?;
                        Ok((link as _, client))
                    })
                })
            })
            .collect();
        joining.into_iter().map(|rank| rank.join().unwrap_or(Err(Error::NoRanks))).collect()
    }

    /// Starts the communication thread, on which `make` connects to the other ranks.
    pub(crate) fn start(
        rank_state: &Arc<RankState>,
        world_size: usize,
        options: CommunicatorOptions,
        make: impl FnOnce(Arc<RankState>) -> Result<(Box<dyn crate::link::Link>, Client)>
        + Send
        + 'static,
    ) -> Result<Self> {
        let (rank, counters) = (rank_state.rank(), Arc::new(Counters::default()));
        let (counted, shared) = (Arc::clone(&counters), Arc::clone(rank_state));
        let within = options.join_timeout.saturating_mul(2).saturating_add(options.deadline);
        let (queue, (client, device)) = Queue::start(rank_state, within, move || {
            let (link, client) = make(Arc::clone(&shared))?;
            let device = link.device();
            let group = Group {
                link,
                rank_state: shared,
                counters: counted,
                hosts: client.hosts().to_vec(),
                rank,
                first: 0,
                world_size,
                operation: Operation::Barrier,
                subgroup: None,
            };
            Ok((group, (client, device)))
        })?;
        let hosts = client.hosts().to_vec();
        let peers = Peers { queue: Arc::new(queue), client: Arc::new(client) };
        let (rank_state, peers, kind) = (Arc::clone(rank_state), Some(peers), GroupKind::World);
        let parent = None;
        Ok(Self(Arc::new(Rank {
            rank,
            kind,
            world_size,
            device,
            options,
            hosts,
            rank_state,
            counters,
            peers,
            parent,
        })))
    }

    /// Ranks over MPI, one per process, as given by `rank_info`. All MPI calls are made by one thread, which this
    /// starts; MPI must not have been initialized before.
    ///
    /// MPI also broadcasts the rendezvous address and token.
    ///
    /// # Errors
    ///
    /// MPI and the launcher disagree about rank or size, a rank cannot reach rank 0, or the rendezvous fails.
    #[cfg(feature = "mpi")]
    pub fn mpi(rank_info: &crate::RankInfo, options: &CommunicatorOptions) -> Result<Self> {
        let rank_state = Arc::new(RankState::new(rank_info.rank, &rank_info.host));
        let (shared, own) = (rank_info.clone(), options.clone());
        Self::start(&rank_state, rank_info.world_size, options.clone(), move |rank_state| {
            crate::link::mpi::join(&shared, &own, rank_state)
        })
    }

    /// This rank's index, from 0.
    pub fn rank(&self) -> usize {
        self.0.rank
    }

    /// The number of ranks.
    pub fn world_size(&self) -> usize {
        self.0.world_size
    }

    /// The hosts of the ranks, by rank.
    pub fn hosts(&self) -> &[String] {
        &self.0.hosts
    }

    /// Sets the current phase of this rank, such as `rollout`, `update` or `checkpoint`, for failure reports.
    pub fn enter_phase(&self, phase: &'static str) {
        tracing::debug!(rank = self.rank(), phase, "phase started");
        self.0.rank_state.enter_phase(phase);
        if let Some(peers) = &self.0.peers {
            peers.client.heartbeat();
        }
    }

    /// Reports progress of this rank, such as a decoding step, a layer or a file. A rank that others wait for is not
    /// considered hung as long as it calls this at least once per deadline.
    pub fn heartbeat(&self) {
        self.0.rank_state.report_progress();
    }

    /// Reports progress in the background until the guard is dropped, while this rank waits for an outside service that
    /// has its own timeout, such as a reward server.
    pub fn heartbeat_guard(&self) -> HeartbeatGuard {
        match self.0.peers {
            Some(_) => HeartbeatGuard::start(Arc::clone(&self.0.rank_state)),
            None => HeartbeatGuard::inactive(),
        }
    }

    /// The traffic that this rank has sent so far, by operation.
    pub fn traffic(&self) -> BTreeMap<Operation, Traffic> {
        self.0.counters.read()
    }

    /// The time that this rank's callers have spent in [`Pending::wait`] so far: for data, and for ranks that were not
    /// there yet.
    pub fn time_waited(&self) -> Duration {
        self.0.rank_state.waited()
    }

    /// The failure report, if the job was aborted.
    pub fn failure(&self) -> Option<FailureReport> {
        self.0.rank_state.failure().map(|report| (*report).clone())
    }

    /// Runs `hook` once when the job is aborted, on the thread that learns of it first; immediately if it already was.
    /// It must not block.
    pub fn on_failure(&self, hook: impl FnOnce(&FailureReport) + Send + 'static) {
        self.0.rank_state.on_failure(Box::new(hook));
    }

    /// Broadcasts rank 0's `bytes` over the control plane, for example the id of another library's communicator. The
    /// bytes of other ranks are ignored. All ranks must call it equally often. At most 1 MiB.
    ///
    /// # Errors
    ///
    /// The job was aborted, or nothing arrived within the deadline.
    pub fn broadcast_from_rank_0(&self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        match &self.0.peers {
            None => Ok(bytes),
            Some(_) if self.0.kind == GroupKind::Subgroup => self.broadcast_bytes(bytes, 0)?.wait(),
            Some(peers) => peers.client.broadcast(bytes, self.0.options.deadline),
        }
    }

    /// Aborts the job because this rank failed; all ranks get its `message`. Returns once they are notified (after two
    /// seconds at most), with the failure report: another rank's if that came first.
    pub fn fail(&self, message: &str) -> Error {
        match &self.0.peers {
            Some(peers) => peers.client.fail(message),
            None => {
                let report =
                    self.0.rank_state.own_failure(FailureCause::Failed(message.to_owned()));
                self.0.rank_state.abort(report.clone());
                aborted(&report)
            }
        }
    }

    /// Acknowledges the failure report. Call it after reporting the failure to the user and before exiting: it returns
    /// when all other ranks have reported it too, or after two seconds. Launchers kill all ranks as soon as one exits,
    /// so without it some ranks could not report.
    pub fn acknowledge_failure(&self) {
        if let Some(peers) = &self.0.peers
            && self.0.rank_state.failure().is_some()
        {
            peers.client.acknowledge_failure();
        }
    }

    /// Finishes the job; returns when all ranks have called it. No collective may follow. On a subgroup this is only a
    /// barrier: a subgroup ends with the job.
    ///
    /// # Errors
    ///
    /// The job was aborted, or a rank did not finish within the deadline.
    pub fn finish(&self) -> Result<()> {
        let Some(peers) = &self.0.peers else { return self.0.rank_state.check() };
        if self.0.kind == GroupKind::Subgroup {
            return self.barrier();
        }
        let finish = self.call(Operation::Finish, 0, 0);
        peers.queue.submit(GroupKind::World, finish, |_, _| Ok(()))?.wait()?;
        peers.client.finish(self.0.options.deadline)?;
        peers.queue.close().wait_within("shutting down the collectives", self.0.options.deadline)
    }

    /// Exits this process with `exit_code`, and over MPI all ranks at once (`MPI_Abort`). Other ranks cannot report
    /// anything afterwards, so call [`Communicator::acknowledge_failure`] first.
    pub fn abort(&self, exit_code: i32) -> ! {
        if let Some(peers) = &self.0.peers {
            self.0.rank_state.request_abort(exit_code);
            peers.queue.abort(exit_code);
            thread::sleep(Duration::from_secs(1));
        }
        std::process::exit(exit_code)
    }

    fn call(&self, operation: Operation, length: usize, root: usize) -> Call {
        // The queue sets the sequence number.
        Call { sequence: 0, operation, length: length as u64, root: root as u64 }
    }

    /// Queues an operation; the result of a single rank is `single`.
    fn begin<I, T: Send + 'static>(
        &self,
        call: Call,
        input: I,
        single: impl FnOnce(I) -> T,
        run: impl FnOnce(&mut Group, &[Call], I) -> Result<T> + Send + 'static,
    ) -> Result<Pending<T>>
    where
        I: Send + 'static,
    {
        match &self.0.peers {
            None => {
                self.0.rank_state.check()?;
                self.0.counters.call(call.operation);
                Ok(Pending::ready(single(input)))
            }
            Some(peers) => {
                peers.queue.submit(self.0.kind, call, |group, calls| run(group, calls, input))
            }
        }
    }
}

impl Drop for Rank {
    fn drop(&mut self) {
        if let Some(peers) = &self.peers
            && self.parent.is_none()
            && !peers.client.is_finished()
            && self.rank_state.failure().is_none()
        {
            peers.client.leave();
        }
    }
}

#[cfg(test)]
mod tests;
