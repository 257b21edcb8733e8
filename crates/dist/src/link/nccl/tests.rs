//! The link over a fake NCCL: GPU memory is memory of this process, and ranks are threads.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use super::*;
use crate::communicator::Communicator;
use crate::control_plane::{Client, JobToken, Rendezvous, listen};
use crate::element::reduce;
use crate::link::threads::{Exchange, ThreadLink};
use crate::options::CommunicatorOptions;
use crate::rank_state::lock;

mod subgroups;
mod tensors;

/// The behavior of a fake NCCL, and its counters.
#[derive(Default)]
struct Script {
    /// How many polls joining, and each call, stays in progress.
    polls: usize,
    /// Whether joining never completes.
    joins_never: bool,
    /// Whether there is no room for another communicator.
    is_full: bool,
    /// Whether further collectives never complete.
    hangs: bool,
    /// Whether the communicator fails once a collective was queued.
    breaks: bool,
    /// Whether a collective that never completes was queued.
    is_hanging: bool,
    aborts: AtomicUsize,
    finalizations: AtomicUsize,
    /// The number of staged host buffers.
    stages: usize,
}

/// The connection of fake GPUs.
#[derive(Default)]
struct Network {
    /// Communicators by their ids.
    exchanges: Mutex<BTreeMap<[u8; ID], Arc<Exchange>>>,
    /// How many ids were generated.
    ids: AtomicU8,
}

struct FakeNccl {
    script: Arc<Mutex<Script>>,
    network: Arc<Network>,
    rank_state: Arc<RankState>,
    link: Option<ThreadLink>,
    world_size: usize,
    polls_left: usize,
    has_queued: bool,
    staged: (Vec<u8>, Vec<u8>),
}

impl FakeNccl {
    fn begin(&mut self) -> Progress {
        self.polls_left = lock(&self.script).polls;
        if self.polls_left == 0 { Progress::Done } else { Progress::InProgress }
    }
}

fn bytes(buffer: DeviceBuffer) -> &'static mut [u8] {
    let length = buffer.length * buffer.dtype.size();
    // SAFETY: the buffers of these tests are vectors and tensors that live until their collective is done.
    #[allow(unsafe_code)]
    unsafe {
        std::slice::from_raw_parts_mut(buffer.address as usize as *mut u8, length)
    }
}

impl NcclApi for FakeNccl {
    fn duplicate(&self) -> Result<Self> {
        if lock(&self.script).is_full {
            return Err(Error::Nccl { what: "create a stream", why: "out of memory".into() });
        }
        Ok(fake_nccl(&self.script, &self.network, &self.rank_state))
    }

    fn unique_id(&self) -> Result<[u8; ID]> {
        Ok([self.network.ids.fetch_add(1, Ordering::Relaxed) + 1; ID])
    }

    fn join(&mut self, id: &[u8; ID], rank: usize, world_size: usize) -> Result<Progress> {
        self.world_size = world_size;
        let mut exchanges = lock(&self.network.exchanges);
        let exchange = exchanges.entry(*id).or_insert_with(|| Exchange::new(world_size));
        self.link = Some(ThreadLink::new(Arc::clone(exchange), Arc::clone(&self.rank_state), rank));
        drop(exchanges);
        Ok(self.begin())
    }

    fn state(&mut self) -> Result<Progress> {
        let script = lock(&self.script);
        if script.breaks && self.has_queued {
            return Err(Error::Nccl { what: "run", why: "ncclRemoteError".into() });
        }
        if script.joins_never && !self.has_queued {
            return Ok(Progress::InProgress);
        }
        self.polls_left = self.polls_left.saturating_sub(1);
        Ok(if self.polls_left == 0 { Progress::Done } else { Progress::InProgress })
    }

    fn device(&self) -> DeviceLocation {
        DeviceLocation::Cpu
    }

    fn wait_event(&mut self, event: u64) -> Result<()> {
        assert_eq!(event, 0);
        Ok(())
    }

    fn queue(
        &mut self,
        what: Collective,
        send: DeviceBuffer,
        receive: DeviceBuffer,
    ) -> Result<Progress> {
        self.has_queued = true;
        {
            let mut script = lock(&self.script);
            script.is_hanging = script.hangs;
            if script.hangs || script.breaks {
                return Ok(Progress::Done);
            }
        }
        let (sent, received) = (bytes(send).to_vec(), bytes(receive));
        let link = self.link.as_mut().unwrap();
        let mut all = vec![0; sent.len() * self.world_size];
        match what {
            Collective::AllGather => link.all_gather(&sent, received, Polling::Eager)?,
            Collective::AllToAll => link.all_to_all(&sent, received)?,
            Collective::Broadcast { root } => {
                received.copy_from_slice(&sent);
                link.broadcast(received, root)?;
            }
            Collective::AllReduce(how) => {
                link.all_gather(&sent, &mut all, Polling::Eager)?;
                sum(&all, received, how);
            }
            Collective::ReduceScatter => {
                let mut parts = vec![0; sent.len()];
                link.all_to_all(&sent, &mut parts)?;
                sum(&parts, received, Reduce::Sum);
            }
        }
        Ok(self.begin())
    }

    fn is_idle(&mut self) -> Result<bool> {
        Ok(!lock(&self.script).hangs)
    }

    fn stage(&mut self, sent: &[u8], received: usize) -> Result<(DeviceBuffer, DeviceBuffer)> {
        lock(&self.script).stages += 1;
        self.staged = (sent.to_vec(), vec![0; received]);
        let buffer = |memory: &Vec<u8>| DeviceBuffer {
            address: memory.as_ptr() as usize as u64,
            length: memory.len(),
            dtype: Dtype::U8,
        };
        Ok((buffer(&self.staged.0), buffer(&self.staged.1)))
    }

    fn fetch(&mut self, received: &mut [u8]) -> Result<()> {
        received.copy_from_slice(&self.staged.1);
        Ok(())
    }

    fn abort(&mut self) {
        lock(&self.script).aborts.fetch_add(1, Ordering::Relaxed);
    }

    fn finalize(&mut self) -> Result<Progress> {
        lock(&self.script).finalizations.fetch_add(1, Ordering::Relaxed);
        Ok(self.begin())
    }
}

fn sum(parts: &[u8], into: &mut [u8], how: Reduce) {
    let parts: Vec<f32> = parts.chunks_exact(4).map(bytemuck::pod_read_unaligned).collect();
    let mut sums = vec![0.0; into.len() / 4];
    reduce(&parts, &mut sums, how);
    into.copy_from_slice(bytemuck::cast_slice(&sums));
}

type Scripts = Vec<Arc<Mutex<Script>>>;

fn fake_nccl(
    script: &Arc<Mutex<Script>>,
    network: &Arc<Network>,
    rank_state: &Arc<RankState>,
) -> FakeNccl {
    FakeNccl {
        script: Arc::clone(script),
        network: Arc::clone(network),
        rank_state: Arc::clone(rank_state),
        link: None,
        world_size: 1,
        polls_left: 0,
        has_queued: false,
        staged: Default::default(),
    }
}

/// Ranks over fake NCCL, joined the way GPU ranks are.
fn ranks(
    count: usize,
    deadline: Duration,
    script: impl Fn() -> Script,
) -> (Vec<Communicator>, Scripts) {
    let listener = listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let rendezvous = Rendezvous::new(listener.local_addr().unwrap(), JobToken::new("secret"));
    let (network, mut listener) = (Arc::default(), Some(listener));
    let scripts: Scripts = (0..count).map(|_| Arc::new(Mutex::new(script()))).collect();
    let options = CommunicatorOptions { deadline, ..CommunicatorOptions::default() };
    let joining: Vec<_> = (0..count)
        .map(|rank| {
            let rank_state = Arc::new(RankState::new(rank, "thread"));
            let library = fake_nccl(&scripts[rank], &network, &rank_state);
            let (rendezvous, options, listener) =
                (rendezvous.clone(), options.clone(), listener.take());
            thread::spawn(move || {
                Communicator::start(&rank_state, count, options.clone(), move |rank_state| {
                    let shared = Arc::clone(&rank_state);
                    let client =
                        Client::join(&rendezvous, listener, count, "thread", &options, shared)?;
                    let id = if rank == 0 { library.unique_id()?.to_vec() } else { Vec::new() };
                    let id = client.broadcast(id, deadline)?.try_into().unwrap();
                    let link = NcclLink::join(library, &id, (rank, count), deadline, rank_state)?;
                    Ok((Box::new(link) as _, client))
                })
                .unwrap()
            })
        })
        .collect();
    (joining.into_iter().map(|rank| rank.join().unwrap()).collect(), scripts)
}

/// The results of `work` on each rank.
fn each<T: Send>(ranks: Vec<Communicator>, work: impl Fn(&Communicator) -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> =
            ranks.into_iter().map(|rank| scope.spawn(move || work(&rank))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

const LONG: Duration = Duration::from_secs(60);

fn until(ready: &dyn Fn() -> bool) {
    let began = Instant::now();
    while !ready() {
        assert!(began.elapsed() < LONG);
        thread::sleep(Duration::from_millis(5));
    }
}

/// The numbers of finalized and of aborted communicators.
fn finalized_and_aborted(script: &Mutex<Script>) -> (usize, usize) {
    let script = lock(script);
    (script.finalizations.load(Ordering::Relaxed), script.aborts.load(Ordering::Relaxed))
}

#[test]
fn host_collectives_are_staged_through_gpu_memory() {
    let (ranks, scripts) = ranks(3, LONG, || Script { polls: 3, ..Script::default() });
    let results = each(ranks, |ranks| {
        let me = ranks.rank() as f32;
        let sum = ranks.all_reduce(vec![me, 1.0, 10.0], Reduce::Sum).unwrap().wait().unwrap();
        // More than one chunk.
        let large = ranks.all_reduce(vec![me; 10_000], Reduce::Max).unwrap().wait().unwrap();
        let pieces = (0..3).map(|to| vec![ranks.rank() as u8; to]).collect();
        let pieces = ranks.all_to_all_bytes(pieces).unwrap().wait().unwrap();
        assert_eq!(pieces, (0..3).map(|from| vec![from; ranks.rank()]).collect::<Vec<_>>());
        let broadcast = ranks.broadcast(vec![me; 4], 2).unwrap().wait().unwrap();
        ranks.barrier().unwrap();
        ranks.finish().unwrap();
        (sum, large == [2.0; 10_000], broadcast)
    });
    let expected = (vec![3.0, 3.0, 30.0], true, vec![2.0; 4]);
    assert!(results.iter().all(|result| *result == expected), "{results:?}");
    for script in scripts {
        assert_eq!(finalized_and_aborted(&script), (1, 0));
    }
}

#[test]
fn a_hanging_collective_is_aborted_when_another_rank_fails() {
    let (ranks, scripts) = ranks(2, LONG, Script::default);
    let messages = each(ranks, |ranks| {
        ranks.barrier().unwrap();
        let (mine, others) = (&scripts[ranks.rank()], &scripts[0]);
        if ranks.rank() == 1 {
            until(&|| lock(others).is_hanging);
            return ranks.fail("no memory").to_string();
        }
        lock(mine).hangs = true;
        let pending = ranks.all_reduce(vec![1.0; 8], Reduce::Sum).unwrap();
        let error = pending.wait().unwrap_err();
        // Checked before the communicator is dropped, which would abort it too.
        until(&|| finalized_and_aborted(mine).1 == 1);
        error.to_string()
    });
    let expected = "rank 1 on `thread` failed: no memory";
    assert!(messages.iter().all(|message| message.contains(expected)), "{messages:?}");
    assert_eq!(finalized_and_aborted(&scripts[0]).1, 1);
}

#[test]
fn a_communicator_error_aborts_all_ranks_with_the_librarys_message() {
    let (ranks, scripts) = ranks(2, LONG, Script::default);
    let past_barrier = std::sync::Barrier::new(2);
    let messages = each(ranks, |ranks| {
        ranks.barrier().unwrap();
        // Or the failure would reach the other rank in its barrier.
        past_barrier.wait();
        lock(&scripts[ranks.rank()]).breaks = ranks.rank() == 1;
        lock(&scripts[ranks.rank()]).hangs = ranks.rank() == 0;
        // The other rank's failure may arrive before this call.
        let sum = ranks.all_reduce(vec![1.0; 8], Reduce::Sum).and_then(crate::Pending::wait);
        sum.unwrap_err().to_string()
    });
    let expected = "rank 1 on `thread` failed: cannot run: ncclRemoteError";
    assert!(messages.iter().all(|message| message.contains(expected)), "{messages:?}");
}

#[test]
fn joining_times_out() {
    let script = Arc::new(Mutex::new(Script { polls: 1, joins_never: true, ..Script::default() }));
    let rank_state = Arc::new(RankState::new(0, "a"));
    let library = fake_nccl(&script, &Arc::default(), &rank_state);
    let within = Duration::from_millis(300);
    let error = NcclLink::join(library, &[7; ID], (0, 2), within, rank_state).err().unwrap();
    let expected = "rank 0: NCCL communicator initialization timed out after 0.3 s";
    assert_eq!(error.to_string(), expected);
    assert_eq!(finalized_and_aborted(&script).1, 1);
}
