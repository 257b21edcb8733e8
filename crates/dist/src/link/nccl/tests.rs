//! The link over a library that is played: memory of the GPU is memory of this process, and ranks are threads.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use super::*;
use crate::communicator::Communicator;
use crate::link::threads::{Hub, ThreadLink};
use crate::number::reduce;
use crate::options::Options;
use crate::plane::{Client, Meeting, Token, listen};
use crate::watch::lock;

mod parts;
mod tensors;

/// What a played library does.
#[derive(Default)]
struct Script {
    /// How often it says that joining, and each call, is under way.
    underway: usize,
    /// Whether joining never ends.
    joins_never: bool,
    /// Whether there is no room for another communicator.
    is_full: bool,
    /// Whether the next collectives never end.
    hangs: bool,
    /// What the communicator's state becomes once a collective was queued.
    breaks: bool,
    /// Whether a collective was queued that never ends.
    is_hanging: bool,
    aborts: AtomicUsize,
    ends: AtomicUsize,
    /// How often bytes of the host were copied.
    stages: usize,
}

/// What played GPUs are connected by.
#[derive(Default)]
struct Network {
    /// Communicators by their ids.
    hubs: Mutex<BTreeMap<[u8; ID], Arc<Hub>>>,
    /// How many ids were drawn.
    drawn: AtomicU8,
}

struct Played {
    script: Arc<Mutex<Script>>,
    network: Arc<Network>,
    watch: Arc<Watch>,
    wire: Option<ThreadLink>,
    world_size: usize,
    left: usize,
    has_queued: bool,
    staged: (Vec<u8>, Vec<u8>),
}

impl Played {
    fn begin(&mut self) -> Progress {
        self.left = lock(&self.script).underway;
        if self.left == 0 { Progress::Done } else { Progress::Underway }
    }
}

fn bytes(span: Span) -> &'static mut [u8] {
    let length = span.length * span.dtype.size();
    // SAFETY: the spans of these tests are vectors and tensors, which are there until their collective is done.
    #[allow(unsafe_code)]
    unsafe {
        std::slice::from_raw_parts_mut(span.address as usize as *mut u8, length)
    }
}

impl Library for Played {
    fn another(&self) -> Result<Self> {
        if lock(&self.script).is_full {
            return Err(Error::Nccl { what: "make a stream", why: "there is no room".into() });
        }
        Ok(played(&self.script, &self.network, &self.watch))
    }

    fn unique_id(&self) -> Result<[u8; ID]> {
        Ok([self.network.drawn.fetch_add(1, Ordering::Relaxed) + 1; ID])
    }

    fn join(&mut self, id: &[u8; ID], rank: usize, world_size: usize) -> Result<Progress> {
        self.world_size = world_size;
        let mut hubs = lock(&self.network.hubs);
        let hub = hubs.entry(*id).or_insert_with(|| Hub::new(world_size));
        self.wire = Some(ThreadLink::new(Arc::clone(hub), Arc::clone(&self.watch), rank));
        drop(hubs);
        Ok(self.begin())
    }

    fn state(&mut self) -> Result<Progress> {
        let script = lock(&self.script);
        if script.breaks && self.has_queued {
            return Err(Error::Nccl { what: "go on", why: "ncclRemoteError".into() });
        }
        if script.joins_never && !self.has_queued {
            return Ok(Progress::Underway);
        }
        self.left = self.left.saturating_sub(1);
        Ok(if self.left == 0 { Progress::Done } else { Progress::Underway })
    }

    fn device(&self) -> DeviceLocation {
        DeviceLocation::Cpu
    }

    fn follow(&mut self, event: u64) -> Result<()> {
        assert_eq!(event, 0);
        Ok(())
    }

    fn queue(&mut self, what: Collective, send: Span, receive: Span) -> Result<Progress> {
        self.has_queued = true;
        {
            let mut script = lock(&self.script);
            script.is_hanging = script.hangs;
            if script.hangs || script.breaks {
                return Ok(Progress::Done);
            }
        }
        let (sent, received) = (bytes(send).to_vec(), bytes(receive));
        let wire = self.wire.as_mut().unwrap();
        let mut all = vec![0; sent.len() * self.world_size];
        match what {
            Collective::AllGather => wire.all_gather(&sent, received, Others::AreHere)?,
            Collective::AllToAll => wire.all_to_all(&sent, received)?,
            Collective::Broadcast { root } => {
                received.copy_from_slice(&sent);
                wire.broadcast(received, root)?;
            }
            Collective::AllReduce(how) => {
                wire.all_gather(&sent, &mut all, Others::AreHere)?;
                sum(&all, received, how);
            }
            Collective::ReduceScatter => {
                let mut parts = vec![0; sent.len()];
                wire.all_to_all(&sent, &mut parts)?;
                sum(&parts, received, Reduce::Sum);
            }
        }
        Ok(self.begin())
    }

    fn is_idle(&mut self) -> Result<bool> {
        Ok(!lock(&self.script).hangs)
    }

    fn stage(&mut self, sent: &[u8], received: usize) -> Result<(Span, Span)> {
        lock(&self.script).stages += 1;
        self.staged = (sent.to_vec(), vec![0; received]);
        let span = |memory: &Vec<u8>| Span {
            address: memory.as_ptr() as usize as u64,
            length: memory.len(),
            dtype: Dtype::U8,
        };
        Ok((span(&self.staged.0), span(&self.staged.1)))
    }

    fn fetch(&mut self, received: &mut [u8]) -> Result<()> {
        received.copy_from_slice(&self.staged.1);
        Ok(())
    }

    fn abort(&mut self) {
        lock(&self.script).aborts.fetch_add(1, Ordering::Relaxed);
    }

    fn finalize(&mut self) -> Result<Progress> {
        lock(&self.script).ends.fetch_add(1, Ordering::Relaxed);
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

fn played(script: &Arc<Mutex<Script>>, network: &Arc<Network>, watch: &Arc<Watch>) -> Played {
    Played {
        script: Arc::clone(script),
        network: Arc::clone(network),
        watch: Arc::clone(watch),
        wire: None,
        world_size: 1,
        left: 0,
        has_queued: false,
        staged: Default::default(),
    }
}

/// Ranks over played libraries, which come together as ranks of GPUs do.
fn ranks(
    count: usize,
    deadline: Duration,
    script: impl Fn() -> Script,
) -> (Vec<Communicator>, Scripts) {
    let listener = listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let meeting = Meeting::new(listener.local_addr().unwrap(), Token::new("secret"));
    let (network, mut listener) = (Arc::default(), Some(listener));
    let scripts: Scripts = (0..count).map(|_| Arc::new(Mutex::new(script()))).collect();
    let options = Options { deadline, ..Options::default() };
    let joining: Vec<_> = (0..count)
        .map(|rank| {
            let watch = Arc::new(Watch::new(rank, "thread"));
            let library = played(&scripts[rank], &network, &watch);
            let (meeting, options, listener) = (meeting.clone(), options.clone(), listener.take());
            thread::spawn(move || {
                Communicator::start(&watch, count, options.clone(), move |watch| {
                    let shared = Arc::clone(&watch);
                    let client =
                        Client::join(&meeting, listener, count, "thread", &options, shared)?;
                    let id = if rank == 0 { library.unique_id()?.to_vec() } else { Vec::new() };
                    let id = client.share(id, deadline)?.try_into().unwrap();
                    let link = NcclLink::join(library, &id, (rank, count), deadline, watch)?;
                    Ok((Box::new(link) as _, client))
                })
                .unwrap()
            })
        })
        .collect();
    (joining.into_iter().map(|rank| rank.join().unwrap()).collect(), scripts)
}

/// On every rank the same work; what it gives.
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

/// How many communicators were ended with the other ranks, and how many without.
fn ended(script: &Mutex<Script>) -> (usize, usize) {
    let script = lock(script);
    (script.ends.load(Ordering::Relaxed), script.aborts.load(Ordering::Relaxed))
}

#[test]
fn collectives_of_the_host_go_through_memory_of_the_gpu() {
    let (ranks, scripts) = ranks(3, LONG, || Script { underway: 3, ..Script::default() });
    let told = each(ranks, |ranks| {
        let me = ranks.rank() as f32;
        let sum = ranks.all_reduce(vec![me, 1.0, 10.0], Reduce::Sum).unwrap().wait().unwrap();
        // More than goes in one piece.
        let large = ranks.all_reduce(vec![me; 10_000], Reduce::Max).unwrap().wait().unwrap();
        let pieces = (0..3).map(|to| vec![ranks.rank() as u8; to]).collect();
        let pieces = ranks.all_to_all_bytes(pieces).unwrap().wait().unwrap();
        assert_eq!(pieces, (0..3).map(|from| vec![from; ranks.rank()]).collect::<Vec<_>>());
        let handed = ranks.broadcast(vec![me; 4], 2).unwrap().wait().unwrap();
        ranks.barrier().unwrap();
        ranks.finish().unwrap();
        (sum, large == [2.0; 10_000], handed)
    });
    assert!(
        told.iter().all(|told| *told == (vec![3.0, 3.0, 30.0], true, vec![2.0; 4])),
        "{told:?}"
    );
    for script in scripts {
        assert_eq!(ended(&script), (1, 0));
    }
}

#[test]
fn a_collective_that_hangs_is_aborted_when_a_verdict_falls() {
    let (ranks, scripts) = ranks(2, LONG, Script::default);
    let told = each(ranks, |ranks| {
        ranks.barrier().unwrap();
        let (mine, others) = (&scripts[ranks.rank()], &scripts[0]);
        if ranks.rank() == 1 {
            until(&|| lock(others).is_hanging);
            return ranks.fail("no memory").to_string();
        }
        lock(mine).hangs = true;
        let pending = ranks.all_reduce(vec![1.0; 8], Reduce::Sum).unwrap();
        let error = pending.wait().unwrap_err();
        // While the communicator is there: its end would abort it too.
        until(&|| ended(mine).1 == 1);
        error.to_string()
    });
    assert!(
        told.iter().all(|told| told.contains("rank 1 on `thread` failed: no memory")),
        "{told:?}"
    );
    assert_eq!(ended(&scripts[0]).1, 1);
}

#[test]
fn an_error_of_the_communicator_ends_the_job_on_all_ranks_with_the_librarys_words() {
    let (ranks, scripts) = ranks(2, LONG, Script::default);
    let told = each(ranks, |ranks| {
        ranks.barrier().unwrap();
        lock(&scripts[ranks.rank()]).breaks = ranks.rank() == 1;
        lock(&scripts[ranks.rank()]).hangs = ranks.rank() == 0;
        // The other rank's error may be there before this one's call.
        let sum = ranks.all_reduce(vec![1.0; 8], Reduce::Sum).and_then(crate::Pending::wait);
        sum.unwrap_err().to_string()
    });
    let says = "rank 1 on `thread` failed: cannot go on: ncclRemoteError";
    assert!(told.iter().all(|told| told.contains(says)), "{told:?}");
}

#[test]
fn joining_that_never_ends_is_given_up_in_time() {
    let script =
        Arc::new(Mutex::new(Script { underway: 1, joins_never: true, ..Script::default() }));
    let watch = Arc::new(Watch::new(0, "a"));
    let library = played(&script, &Arc::default(), &watch);
    let within = Duration::from_millis(300);
    let error = NcclLink::join(library, &[7; ID], (0, 2), within, watch).err().unwrap();
    assert_eq!(error.to_string(), "rank 0: joining NCCL's communicator did not end within 0.3 s");
    assert_eq!(ended(&script).1, 1);
}
