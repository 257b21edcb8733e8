//! The control plane over the loopback: ranks are threads here.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::message::{Hello, ToRank};
use super::*;
use crate::error::{Error, Result};
use crate::operation::{Call, Operation};
use crate::options::Options;
use crate::verdict::{Verdict, Why};
use crate::watch::{Unmet, Watch};

/// Far longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// A job of `world_size` ranks that is about to meet.
struct Job {
    meeting: Meeting,
    listener: Option<TcpListener>,
    world_size: usize,
    options: Options,
}

/// A rank that has joined.
struct Member {
    client: Client,
    watch: Arc<Watch>,
}

impl Job {
    fn new(world_size: usize) -> Self {
        let listener = listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let meeting = Meeting::new(listener.local_addr().unwrap(), Token::new("secret"));
        let options = Options {
            deadline: LONG,
            join_within: LONG,
            version: "1.0".into(),
            settings: BTreeMap::from([("seed".into(), "7".into())]),
            digest: "d".into(),
            address: None,
        };
        Self { meeting, listener: Some(listener), world_size, options }
    }

    fn with(mut self, change: impl FnOnce(&mut Options)) -> Self {
        change(&mut self.options);
        self
    }

    /// Rank `rank` joins in a thread, after `change` was made to what it has.
    fn join_with(
        &mut self,
        rank: usize,
        change: impl FnOnce(&mut Meeting, &mut Options),
    ) -> JoinHandle<Result<Member>> {
        let (mut meeting, mut options) = (self.meeting.clone(), self.options.clone());
        change(&mut meeting, &mut options);
        let listener = if rank == 0 { self.listener.take() } else { None };
        let (world_size, host) = (self.world_size, format!("host{rank}"));
        thread::spawn(move || {
            let watch = Arc::new(Watch::new(rank, &host));
            let shared = Arc::clone(&watch);
            let client = Client::join(&meeting, listener, world_size, &host, &options, shared)?;
            Ok(Member { client, watch })
        })
    }

    fn join(&mut self, rank: usize) -> JoinHandle<Result<Member>> {
        self.join_with(rank, |_, _| {})
    }

    /// All ranks, come together.
    fn gather(mut self) -> Vec<Member> {
        let joining: Vec<_> = (0..self.world_size).map(|rank| self.join(rank)).collect();
        joining.into_iter().map(|rank| rank.join().unwrap().unwrap()).collect()
    }

    fn hello(&self, rank: usize) -> Hello {
        Hello {
            rank,
            world_size: self.world_size,
            host: format!("host{rank}"),
            pid: 1,
            version: self.options.version.clone(),
            digest: self.options.digest.clone(),
            settings: self.options.settings.clone(),
        }
    }

    /// A rank that proves itself and says hello, and nothing more.
    fn dumb(&self, rank: usize) -> TcpStream {
        let stream = TcpStream::connect(self.meeting.address).unwrap();
        handshake::present(&stream, &self.meeting.token, Instant::now() + LONG).unwrap();
        frame::write(&stream, &self.hello(rank)).unwrap();
        stream
    }
}

impl Member {
    fn verdict(&self) -> Verdict {
        match self.watch.wait(Some(LONG), || None::<()>) {
            Err(Unmet::Lost(verdict)) => (*verdict).clone(),
            other => panic!("no verdict: {other:?}"),
        }
    }

    fn enter(&self, sequence: u64) {
        let operation = Operation::Barrier;
        self.watch
            .entered(crate::worker::Lane::World, Call { sequence, operation, length: 0, root: 0 });
    }
}

fn message(joining: JoinHandle<Result<Member>>) -> String {
    match joining.join().unwrap() {
        Err(error) => error.to_string(),
        Ok(_) => panic!("it joined"),
    }
}

#[test]
fn ranks_that_fit_together_learn_each_others_hosts() {
    for member in Job::new(3).gather() {
        assert_eq!(member.client.hosts(), ["host0", "host1", "host2"]);
    }
}

#[test]
fn a_missing_rank_is_named_to_all() {
    let mut job = Job::new(4).with(|options| options.join_within = Duration::from_millis(700));
    let joining = [job.join(0), job.join(2)];
    for rank in joining {
        assert_eq!(
            message(rank),
            "the ranks do not fit together: ranks 1, 3 did not come within 0.7 s"
        );
    }
}

#[test]
fn a_doubled_rank_is_named_with_both_processes() {
    let mut job = Job::new(3);
    let joining = [job.join(0), job.join(1), job.join(1)];
    let pid = std::process::id();
    for rank in joining {
        assert_eq!(
            message(rank),
            format!(
                "the ranks do not fit together: rank 1 came twice: process {pid} on `host1` and process \
                 {pid} on `host1`"
            )
        );
    }
}

#[test]
fn another_version_is_named_with_both() {
    let mut job = Job::new(2);
    let joining = [job.join(0), job.join_with(1, |_, options| options.version = "1.1".into())];
    for rank in joining {
        assert_eq!(
            message(rank),
            "the ranks do not fit together: rank 1 on `host1` has version `1.1`, rank 0 has `1.0`"
        );
    }
}

#[test]
fn all_settings_that_differ_are_named() {
    let mut job = Job::new(2);
    let other = |_: &mut Meeting, options: &mut Options| {
        options.settings = BTreeMap::from([("beta".into(), "0".into())]);
        options.digest = "e".into();
    };
    let joining = [job.join(0), job.join_with(1, other)];
    for rank in joining {
        assert_eq!(
            message(rank),
            "the ranks do not fit together: rank 1 on `host1` has `beta` `0`, rank 0 has nothing; \
             rank 1 on `host1` has `seed` nothing, rank 0 has `7`"
        );
    }
}

#[test]
fn settings_that_differ_in_what_has_no_name_are_found_by_their_digest() {
    let mut job = Job::new(2);
    let joining = [job.join(0), job.join_with(1, |_, options| options.digest = "e".into())];
    for rank in joining {
        assert_eq!(
            message(rank),
            "the ranks do not fit together: rank 1 on `host1` has settings with the digest `e`, rank 0 \
             has `d`"
        );
    }
}

#[test]
fn another_number_of_ranks_is_named_with_both() {
    let mut job = Job::new(2);
    let rank_0 = job.join(0);
    job.world_size = 5;
    for rank in [rank_0, job.join(1)] {
        assert_eq!(
            message(rank),
            "the ranks do not fit together: rank 1 on `host1` has world size `5`, rank 0 has `2`"
        );
    }
}

#[test]
fn a_rank_beyond_the_last_is_refused() {
    let mut job = Job::new(2);
    let rank_0 = job.join(0);
    let pid = std::process::id();
    for rank in [rank_0, job.join(4)] {
        assert_eq!(
            message(rank),
            format!(
                "the ranks do not fit together: process {pid} on `host4` says it is rank 4, but there \
                 are 2 ranks"
            )
        );
    }
}

#[test]
fn a_wrong_token_is_told_apart_at_once_and_counted() {
    let mut job = Job::new(2).with(|options| options.join_within = Duration::from_millis(900));
    let rank_0 = job.join(0);
    let wrong = job.join_with(1, |meeting, _| meeting.token = Token::new("other"));
    let address = job.meeting.address;
    assert_eq!(
        message(wrong),
        format!(
            "rank 1 and rank 0 at `{address}` have different tokens; give all ranks of a job the same"
        )
    );
    assert_eq!(
        message(rank_0),
        "the ranks do not fit together: rank 1 did not come within 0.9 s (1 connections did not know \
         the job's token)"
    );
}

#[test]
fn garbage_on_the_port_does_no_harm() {
    let mut job = Job::new(2);
    let rank_0 = job.join(0);
    let mut strangers: Vec<_> =
        (0..5).map(|_| TcpStream::connect(job.meeting.address).unwrap()).collect();
    strangers[0].write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    strangers[1].write_all(&[0xff; 4096]).unwrap();
    strangers[2].write_all(b"embodied-r-dist1").unwrap();
    let rank_1 = job.join(1);
    assert!(rank_0.join().unwrap().is_ok());
    assert!(rank_1.join().unwrap().is_ok());
}

#[test]
fn a_stranger_never_sees_the_token() {
    let job = &mut Job::new(2);
    let rank_0 = job.join(0);
    let mut stranger = TcpStream::connect(job.meeting.address).unwrap();
    let mut seen = vec![0; 48];
    stranger.read_exact(&mut seen).unwrap();
    stranger.write_all(b"embodied-r-dist1").unwrap();
    stranger.write_all(&[0; 64]).unwrap();
    stranger.read_to_end(&mut seen).unwrap();
    assert_eq!(seen.len(), 49, "a magic word, a number and `no`");
    job.join(1).join().unwrap().unwrap();
    rank_0.join().unwrap().unwrap();
}

#[test]
fn a_hello_without_an_end_is_dropped() {
    let mut job = Job::new(2);
    let rank_0 = job.join(0);
    let stream = TcpStream::connect(job.meeting.address).unwrap();
    handshake::present(&stream, &job.meeting.token, Instant::now() + LONG).unwrap();
    (&stream).write_all(&u32::MAX.to_le_bytes()).unwrap();
    assert_eq!((&stream).read(&mut [0]).unwrap(), 0);
    assert!(job.join(1).join().unwrap().is_ok());
    assert!(rank_0.join().unwrap().is_ok());
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap();
    assert_eq!(
        listen(address).unwrap_err().to_string(),
        format!("`{address}` is taken by another program; choose another port")
    );
}

#[test]
fn an_address_of_another_machine_is_refused() {
    let error = listen("192.0.2.1:0".parse().unwrap()).unwrap_err().to_string();
    assert!(error.starts_with("rank 0 cannot listen at `192.0.2.1:0`"), "{error}");
}

#[test]
fn a_rank_that_finds_nobody_says_where_it_looked() {
    let mut job = Job::new(2).with(|options| options.join_within = Duration::from_millis(100));
    drop(job.listener.take());
    let error = job.join(1).join().unwrap().err().unwrap();
    assert!(matches!(error, Error::Unreachable { rank: 1, .. }), "{error}");
    assert!(error.to_string().contains(&job.meeting.address.to_string()), "{error}");
}

#[test]
fn a_rank_may_come_again_before_all_are_there() {
    let mut job = Job::new(3);
    let rank_0 = job.join(0);
    drop(job.dumb(1));
    // Coming while the first one's end is not noticed would be a double.
    thread::sleep(Duration::from_secs(1));
    for rank in [rank_0, job.join(1), job.join(2)] {
        assert!(rank.join().unwrap().is_ok());
    }
}

#[test]
fn a_rank_whose_connection_breaks_is_lost_for_all_others() {
    let mut members = Job::new(3).gather();
    drop(members.remove(1));
    for member in members {
        let verdict = member.verdict();
        assert_eq!((verdict.rank, verdict.host.as_str()), (1, "host1"));
        assert_eq!(verdict.why, Why::Broken);
    }
}

#[test]
fn a_rank_that_is_silent_is_lost_after_the_deadline() {
    let mut job = Job::new(3).with(|options| options.deadline = Duration::from_secs(1));
    let joining = [job.join(0), job.join(2)];
    let _silent = job.dumb(1);
    for member in joining {
        let verdict = member.join().unwrap().unwrap().verdict();
        assert_eq!((verdict.rank, verdict.why), (1, Why::Silent));
        assert!(verdict.waited >= Duration::from_secs(1));
    }
}

#[test]
fn a_rank_that_is_awaited_and_does_nothing_hangs() {
    let members = Job::new(3).with(|options| options.deadline = Duration::from_secs(1)).gather();
    members[1].watch.enter_phase("rollout");
    for rank in [0, 2] {
        members[rank].enter(1);
    }
    for member in &members {
        let verdict = member.verdict();
        assert_eq!((verdict.rank, verdict.phase.as_str()), (1, "rollout"));
        assert!(matches!(verdict.why, Why::Hung { .. }), "{verdict}");
    }
}

#[test]
fn a_straggler_that_beats_is_waited_for() {
    let members = Job::new(2).with(|options| options.deadline = Duration::from_secs(1)).gather();
    members[0].enter(1);
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        members[1].watch.beat();
        thread::sleep(Duration::from_millis(20));
    }
    assert!(members.iter().all(|member| member.watch.verdict().is_none()));
}

#[test]
fn who_loses_rank_0_finds_that_by_itself() {
    let mut job = Job::new(2);
    drop(job.listener.take());
    // A rank 0 that welcomes the others and then dies.
    let listener = TcpListener::bind(job.meeting.address).unwrap();
    let (joining, token) = (job.join(1), job.meeting.token.clone());
    let (stream, _) = listener.accept().unwrap();
    handshake::receive(&stream, &token, Instant::now() + LONG).unwrap();
    let _: Hello = frame::read(&stream, frame::HELLO_LIMIT).unwrap();
    frame::write(&stream, &ToRank::Welcome { hosts: vec!["a".into(), "b".into()] }).unwrap();
    let member = joining.join().unwrap().unwrap();
    drop(stream);
    let verdict = member.verdict();
    assert_eq!((verdict.rank, verdict.host.as_str(), verdict.why), (0, "a", Why::Broken));
}

#[test]
fn a_rank_0_that_falls_silent_is_lost_after_the_deadline() {
    let mut job = Job::new(2).with(|options| options.deadline = Duration::from_millis(500));
    drop(job.listener.take());
    let listener = TcpListener::bind(job.meeting.address).unwrap();
    let (joining, token) = (job.join(1), job.meeting.token.clone());
    let (stream, _) = listener.accept().unwrap();
    handshake::receive(&stream, &token, Instant::now() + LONG).unwrap();
    let _: Hello = frame::read(&stream, frame::HELLO_LIMIT).unwrap();
    frame::write(&stream, &ToRank::Welcome { hosts: vec!["a".into(), "b".into()] }).unwrap();
    let member = joining.join().unwrap().unwrap();
    let verdict = member.verdict();
    assert_eq!((verdict.rank, verdict.why), (0, Why::Silent));
    assert_eq!(verdict.waited, Duration::from_millis(500));
}

#[test]
fn the_words_of_a_rank_that_fails_reach_all() {
    let members = Job::new(3).gather();
    members[2].watch.enter_phase("checkpoint");
    let own = members[2].client.fail("no space left on device").to_string();
    for member in &members {
        let verdict = member.verdict();
        assert_eq!(verdict.why, Why::Failed("no space left on device".into()));
        assert_eq!(verdict.to_string(), own);
    }
    assert_eq!(own, "rank 2 on `host2` failed: no space left on device; phase `checkpoint`");
}

#[test]
fn what_rank_0_hands_round_reaches_all_in_order() {
    let members = Job::new(3).gather();
    thread::scope(|scope| {
        for member in &members {
            scope.spawn(|| {
                for number in 0..3 {
                    let mine =
                        if member.watch.rank() == 0 { vec![number; 128] } else { Vec::new() };
                    assert_eq!(member.client.share(mine, LONG).unwrap(), [number; 128]);
                }
            });
        }
    });
}

#[test]
fn the_end_is_agreed_by_all() {
    let members = Job::new(3).gather();
    thread::scope(|scope| {
        for member in &members {
            scope.spawn(|| member.client.finish(LONG).unwrap());
        }
    });
    let (first, others) = members.split_first().unwrap();
    assert!(others.iter().all(|member| member.client.is_finished()));
    assert!(first.watch.verdict().is_none());
}

#[test]
fn who_leaves_before_the_end_is_named() {
    let members = Job::new(2).gather();
    members[1].client.leave();
    assert_eq!(members[0].verdict().why, Why::Left);
}

#[test]
fn ranks_wait_for_each_others_last_words_but_not_for_the_culprits() {
    let members = Job::new(3).gather();
    members[1].client.fail("no");
    members[0].verdict();
    let began = Instant::now();
    thread::scope(|scope| {
        let first = scope.spawn(|| members[0].client.part());
        // Nobody says how long the others take; they are waited for.
        thread::sleep(Duration::from_millis(300));
        assert!(!first.is_finished());
        members[2].verdict();
        members[2].client.part();
    });
    assert!(began.elapsed() >= Duration::from_millis(300));
}
