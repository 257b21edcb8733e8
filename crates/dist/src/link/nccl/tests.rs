//! The link over a library that is played: memory of the GPU is memory of this process, and ranks are threads.

use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::communicator::Communicator;
use crate::link::threads::{Hub, ThreadLink};
use crate::number::reduce;
use crate::options::Options;
use crate::plane::{Client, Meeting, Token, listen};
use crate::watch::lock;

/// What a played library does.
#[derive(Default)]
struct Script {
    /// How often it says that joining, and each call, is under way.
    underway: usize,
    /// Whether joining never ends.
    joins_never: bool,
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

struct Played {
    script: Arc<Mutex<Script>>,
    wire: ThreadLink,
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
    fn join(&mut self, id: &[u8; ID], _rank: usize, world_size: usize) -> Result<Progress> {
        assert_eq!(id, &[7; ID]);
        self.world_size = world_size;
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
        let mut all = vec![0; sent.len() * self.world_size];
        match what {
            Collective::AllGather => self.wire.all_gather(&sent, received, Others::AreHere)?,
            Collective::AllToAll => self.wire.all_to_all(&sent, received)?,
            Collective::Broadcast { root } => {
                received.copy_from_slice(&sent);
                self.wire.broadcast(received, root)?;
            }
            Collective::AllReduce(how) => {
                self.wire.all_gather(&sent, &mut all, Others::AreHere)?;
                sum(&all, received, how);
            }
            Collective::ReduceScatter => {
                let mut parts = vec![0; sent.len()];
                self.wire.all_to_all(&sent, &mut parts)?;
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

fn played(script: &Arc<Mutex<Script>>, hub: &Arc<Hub>, watch: &Arc<Watch>) -> Played {
    Played {
        script: Arc::clone(script),
        wire: ThreadLink::new(Arc::clone(hub), Arc::clone(watch)),
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
    let (hub, mut listener) = (Hub::new(count), Some(listener));
    let scripts: Scripts = (0..count).map(|_| Arc::new(Mutex::new(script()))).collect();
    let options = Options { deadline, ..Options::default() };
    let joining: Vec<_> = (0..count)
        .map(|rank| {
            let watch = Arc::new(Watch::new(rank, "thread"));
            let library = played(&scripts[rank], &hub, &watch);
            let (meeting, options, listener) = (meeting.clone(), options.clone(), listener.take());
            thread::spawn(move || {
                Communicator::start(&watch, count, options.clone(), move |watch| {
                    let shared = Arc::clone(&watch);
                    let client =
                        Client::join(&meeting, listener, count, "thread", &options, shared)?;
                    let id = if watch.rank() == 0 { vec![7; ID] } else { Vec::new() };
                    let id = client.share(id, deadline)?.try_into().unwrap();
                    let link = NcclLink::join(library, &id, count, deadline, watch)?;
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
        let script = lock(&script);
        let ended = (script.ends.load(Ordering::Relaxed), script.aborts.load(Ordering::Relaxed));
        assert_eq!(ended, (1, 0));
    }
}

/// What the collectives over tensors give a rank, twice: the second time out of parts of larger tensors.
fn over_tensors(ranks: &Communicator) -> Vec<Vec<f32>> {
    let me = ranks.rank() as f32;
    let numbers: Vec<f32> = (0..12).map(|n| (n as f32 + 0.3) * (me - 0.7)).collect();
    let whole = |from| {
        let tensor = memory::tensor(numbers.clone(), 12).unwrap();
        tensor.narrow(0, from, 12 - 2 * from).unwrap()
    };
    let begun = [0, 3].map(|from| {
        let sum = ranks.sum_tensor(whole(from)).unwrap();
        let part = ranks.reduce_scatter_tensor(whole(from)).unwrap();
        let all = ranks.all_gather_tensor(whole(from)).unwrap();
        [sum, part, all, ranks.sum_tensor(memory::tensor(Vec::new(), 0).unwrap()).unwrap()]
    });
    let told = begun.into_iter().flatten().map(|pending| {
        let tensor = pending.wait().unwrap();
        tensor.to_vec1().unwrap()
    });
    let told = told.collect();
    ranks.finish().unwrap();
    told
}

#[test]
fn tensors_of_the_gpu_give_what_those_of_the_host_give_without_it() {
    let host = Communicator::threads(3, &Options::default()).unwrap();
    let (gpus, scripts) = ranks(3, LONG, || Script { underway: 2, ..Script::default() });
    assert_eq!(each(gpus, over_tensors), each(host, over_tensors));
    for script in scripts {
        // The host agrees on eight calls and the end, and sends nothing else.
        assert_eq!(lock(&script).stages, 9);
    }
}

#[test]
fn a_tensor_of_the_gpu_and_numbers_of_the_host_do_not_fit_together() {
    let (ranks, _) = ranks(2, LONG, Script::default);
    let told = each(ranks, |ranks| {
        let error = match ranks.rank() {
            0 => ranks.reduce_scatter(vec![0.0; 4]).unwrap().wait().unwrap_err(),
            _ => {
                let tensor = memory::tensor(vec![0.0; 4], 4).unwrap();
                ranks.reduce_scatter_tensor(tensor).unwrap().wait().unwrap_err()
            }
        };
        error.to_string()
    });
    let says = "rank 1 on `thread` calls something else than rank 0: reduce-scatter of length 16";
    assert!(told.iter().all(|told| told.contains(says)), "{told:?}");
}

#[test]
fn a_collective_that_hangs_is_aborted_when_a_verdict_falls() {
    let (ranks, scripts) = ranks(2, LONG, Script::default);
    let until = |ready: &dyn Fn() -> bool| {
        let began = Instant::now();
        while !ready() {
            assert!(began.elapsed() < LONG);
            thread::sleep(Duration::from_millis(5));
        }
    };
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
        until(&|| lock(mine).aborts.load(Ordering::Relaxed) == 1);
        error.to_string()
    });
    assert!(
        told.iter().all(|told| told.contains("rank 1 on `thread` failed: no memory")),
        "{told:?}"
    );
    assert_eq!(lock(&scripts[0]).aborts.load(Ordering::Relaxed), 1);
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
    let library = played(&script, &Hub::new(2), &watch);
    let within = Duration::from_millis(300);
    let error = NcclLink::join(library, &[7; ID], 2, within, watch).err().unwrap();
    assert_eq!(error.to_string(), "rank 0: joining NCCL's communicator did not end within 0.3 s");
    assert_eq!(lock(&script).aborts.load(Ordering::Relaxed), 1);
}
