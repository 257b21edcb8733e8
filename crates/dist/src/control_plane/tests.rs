//! The control plane over the loopback, with threads as ranks.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::message::{Hello, ToRank};
use super::*;
use crate::error::{Error, Result};
use crate::failure::{FailureCause, FailureReport};
use crate::operation::{Call, Operation};
use crate::options::CommunicatorOptions;
use crate::rank_state::{RankState, WaitError};

mod launchers;

/// Far longer than any test takes.
const LONG: Duration = Duration::from_secs(60);

/// A job of `world_size` ranks before the rendezvous.
struct Job {
    rendezvous: Rendezvous,
    listener: Option<TcpListener>,
    world_size: usize,
    options: CommunicatorOptions,
}

/// A rank that has joined.
struct Member {
    client: Client,
    rank_state: Arc<RankState>,
}

impl Job {
    fn new(world_size: usize) -> Self {
        let listener = listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let rendezvous = Rendezvous::new(listener.local_addr().unwrap(), JobToken::new("secret"));
        let options = CommunicatorOptions {
            deadline: LONG,
            join_timeout: LONG,
            version: "1.0".into(),
            settings: BTreeMap::from([("seed".into(), "7".into())]),
            digest: "d".into(),
            address: None,
        };
        Self { rendezvous, listener: Some(listener), world_size, options }
    }

    fn with(mut self, change: impl FnOnce(&mut CommunicatorOptions)) -> Self {
        change(&mut self.options);
        self
    }

    /// Rank `rank` joins on a thread, with its rendezvous and options modified by `change`.
    fn join_with(
        &mut self,
        rank: usize,
        change: impl FnOnce(&mut Rendezvous, &mut CommunicatorOptions),
    ) -> JoinHandle<Result<Member>> {
        let (mut rendezvous, mut options) = (self.rendezvous.clone(), self.options.clone());
        change(&mut rendezvous, &mut options);
        let listener = if rank == 0 { self.listener.take() } else { None };
        let (world_size, host) = (self.world_size, format!("host{rank}"));
        thread::spawn(move || {
            let rank_state = Arc::new(RankState::new(rank, &host));
            let shared = Arc::clone(&rank_state);
            let client = Client::join(&rendezvous, listener, world_size, &host, &options, shared)?;
            Ok(Member { client, rank_state })
        })
    }

    fn join(&mut self, rank: usize) -> JoinHandle<Result<Member>> {
        self.join_with(rank, |_, _| {})
    }

    /// All ranks, after the rendezvous.
    fn join_all(mut self) -> Vec<Member> {
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

    /// Rank 1, joined to a fake rank 0 on `a` that then stays silent; and the fake's end of the connection.
    fn join_fake_rank_0(mut self) -> (Member, TcpStream) {
        let listener = self.listener.take().unwrap();
        let joining = self.join(1);
        let (stream, _) = listener.accept().unwrap();
        handshake::accept(&stream, &self.rendezvous.token, Instant::now() + LONG).unwrap();
        let _: Hello = frame::read(&stream, frame::HELLO_LIMIT).unwrap();
        frame::write(&stream, &ToRank::Welcome { hosts: vec!["a".into(), "b".into()] }).unwrap();
        (joining.join().unwrap().unwrap(), stream)
    }

    /// A rank that authenticates, sends its hello, and then stays silent.
    fn join_silent(&self, rank: usize) -> TcpStream {
        let stream = TcpStream::connect(self.rendezvous.address).unwrap();
        handshake::authenticate(&stream, &self.rendezvous.token, Instant::now() + LONG).unwrap();
        frame::write(&stream, &self.hello(rank)).unwrap();
        stream
    }
}

impl Member {
    fn failure(&self) -> FailureReport {
        match self.rank_state.wait(Some(LONG), || None::<()>) {
            Err(WaitError::Aborted(report)) => (*report).clone(),
            other => panic!("no failure: {other:?}"),
        }
    }

    fn enter(&self, sequence: u64) {
        let operation = Operation::Barrier;
        self.rank_state.entered(
            crate::operation::GroupKind::World,
            Call { sequence, operation, length: 0, root: 0 },
        );
    }
}

fn message(joining: JoinHandle<Result<Member>>) -> String {
    match joining.join().unwrap() {
        Err(error) => error.to_string(),
        Ok(_) => panic!("it joined"),
    }
}

#[test]
fn ranks_that_match_learn_each_others_hosts() {
    for member in Job::new(3).join_all() {
        assert_eq!(member.client.hosts(), ["host0", "host1", "host2"]);
    }
}

#[test]
fn a_missing_rank_is_named_on_all_ranks() {
    let mut job = Job::new(4).with(|options| options.join_timeout = Duration::from_millis(700));
    let joining = [job.join(0), job.join(2)];
    for rank in joining {
        assert_eq!(message(rank), "rendezvous failed: ranks 1, 3 did not join within 0.7 s");
    }
}

#[test]
fn a_duplicate_rank_is_named_with_both_processes() {
    let mut job = Job::new(3);
    let joining = [job.join(0), job.join(1), job.join(1)];
    let pid = std::process::id();
    for rank in joining {
        assert_eq!(
            message(rank),
            format!(
                "rendezvous failed: rank 1 joined twice: process {pid} on `host1` and process {pid} on \
                 `host1`"
            )
        );
    }
}

#[test]
fn a_version_mismatch_names_both_versions() {
    let mut job = Job::new(2);
    let joining = [job.join(0), job.join_with(1, |_, options| options.version = "1.1".into())];
    for rank in joining {
        assert_eq!(
            message(rank),
            "rendezvous failed: rank 1 on `host1`: version is `1.1`, but `1.0` on rank 0"
        );
    }
}

#[test]
fn all_settings_that_differ_are_named() {
    let mut job = Job::new(2);
    let other = |_: &mut Rendezvous, options: &mut CommunicatorOptions| {
        options.settings = BTreeMap::from([("beta".into(), "0".into())]);
        options.digest = "e".into();
    };
    let joining = [job.join(0), job.join_with(1, other)];
    for rank in joining {
        assert_eq!(
            message(rank),
            "rendezvous failed: rank 1 on `host1`: `beta` is `0`, but unset on rank 0; rank 1 on \
             `host1`: `seed` is unset, but `7` on rank 0"
        );
    }
}

#[test]
fn unnamed_settings_that_differ_are_found_by_their_digest() {
    let mut job = Job::new(2);
    let joining = [job.join(0), job.join_with(1, |_, options| options.digest = "e".into())];
    for rank in joining {
        assert_eq!(
            message(rank),
            "rendezvous failed: rank 1 on `host1`: settings digest is `e`, but `d` on rank 0"
        );
    }
}

#[test]
fn a_world_size_mismatch_names_both_sizes() {
    let mut job = Job::new(2);
    let rank_0 = job.join(0);
    job.world_size = 5;
    for rank in [rank_0, job.join(1)] {
        assert_eq!(
            message(rank),
            "rendezvous failed: rank 1 on `host1`: world size is `5`, but `2` on rank 0"
        );
    }
}

#[test]
fn a_rank_beyond_the_world_size_is_refused() {
    let mut job = Job::new(2);
    let rank_0 = job.join(0);
    let pid = std::process::id();
    for rank in [rank_0, job.join(4)] {
        assert_eq!(
            message(rank),
            format!(
                "rendezvous failed: process {pid} on `host4` joined as rank 4, but the world size is 2"
            )
        );
    }
}

#[test]
fn a_wrong_token_fails_immediately_and_is_counted() {
    let mut job = Job::new(2).with(|options| options.join_timeout = Duration::from_millis(900));
    let rank_0 = job.join(0);
    let wrong = job.join_with(1, |rendezvous, _| rendezvous.token = JobToken::new("other"));
    let address = job.rendezvous.address;
    assert_eq!(
        message(wrong),
        format!(
            "rank 1 and rank 0 at `{address}` have different tokens; give all ranks of a job the same"
        )
    );
    assert_eq!(
        message(rank_0),
        "rendezvous failed: rank 1 did not join within 0.9 s (1 connections failed to authenticate)"
    );
}

#[test]
fn garbage_on_the_port_is_ignored() {
    let mut job = Job::new(2);
    let rank_0 = job.join(0);
    let mut connections: Vec<_> =
        (0..5).map(|_| TcpStream::connect(job.rendezvous.address).unwrap()).collect();
    connections[0].write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    connections[1].write_all(&[0xff; 4096]).unwrap();
    connections[2].write_all(b"embodied-r-dist1").unwrap();
    let rank_1 = job.join(1);
    assert!(rank_0.join().unwrap().is_ok());
    assert!(rank_1.join().unwrap().is_ok());
}

#[test]
fn the_token_is_never_sent_to_an_unauthenticated_peer() {
    let job = &mut Job::new(2);
    let rank_0 = job.join(0);
    let mut peer = TcpStream::connect(job.rendezvous.address).unwrap();
    let mut received = vec![0; 48];
    peer.read_exact(&mut received).unwrap();
    peer.write_all(b"embodied-r-dist1").unwrap();
    peer.write_all(&[0; 64]).unwrap();
    peer.read_to_end(&mut received).unwrap();
    assert_eq!(received.len(), 49, "the magic bytes, a nonce and the rejection");
    job.join(1).join().unwrap().unwrap();
    rank_0.join().unwrap().unwrap();
}

#[test]
fn an_oversized_hello_is_dropped() {
    let mut job = Job::new(2);
    let rank_0 = job.join(0);
    let stream = TcpStream::connect(job.rendezvous.address).unwrap();
    handshake::authenticate(&stream, &job.rendezvous.token, Instant::now() + LONG).unwrap();
    (&stream).write_all(&u32::MAX.to_le_bytes()).unwrap();
    assert_eq!((&stream).read(&mut [0]).unwrap(), 0);
    assert!(job.join(1).join().unwrap().is_ok());
    assert!(rank_0.join().unwrap().is_ok());
}

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap();
    assert_eq!(
        listen(address).unwrap_err().to_string(),
        format!("`{address}` is already in use; choose another port")
    );
}

#[test]
fn an_address_of_another_machine_is_refused() {
    let error = listen("192.0.2.1:0".parse().unwrap()).unwrap_err().to_string();
    assert!(error.starts_with("rank 0 cannot listen on `192.0.2.1:0`"), "{error}");
}

#[test]
fn a_rank_that_cannot_reach_rank_0_names_the_address() {
    let mut job = Job::new(2).with(|options| options.join_timeout = Duration::from_millis(100));
    drop(job.listener.take());
    let error = job.join(1).join().unwrap().err().unwrap();
    assert!(matches!(error, Error::Unreachable { rank: 1, .. }), "{error}");
    assert!(error.to_string().contains(&job.rendezvous.address.to_string()), "{error}");
}

#[test]
fn a_rank_may_rejoin_before_the_rendezvous_completes() {
    let mut job = Job::new(3);
    let rank_0 = job.join(0);
    drop(job.join_silent(1));
    // Rejoining before the disconnect is noticed would be a duplicate.
    thread::sleep(Duration::from_secs(1));
    for rank in [rank_0, job.join(1), job.join(2)] {
        assert!(rank.join().unwrap().is_ok());
    }
}

#[test]
fn a_lost_connection_aborts_all_other_ranks() {
    let mut members = Job::new(3).join_all();
    drop(members.remove(1));
    for member in members {
        let report = member.failure();
        assert_eq!((report.rank, report.host.as_str()), (1, "host1"));
        assert_eq!(report.cause, FailureCause::ConnectionLost);
    }
}

#[test]
fn a_silent_rank_fails_after_the_deadline() {
    let mut job = Job::new(3).with(|options| options.deadline = Duration::from_secs(1));
    let joining = [job.join(0), job.join(2)];
    let _silent = job.join_silent(1);
    for member in joining {
        let report = member.join().unwrap().unwrap().failure();
        assert_eq!((report.rank, report.cause), (1, FailureCause::HeartbeatTimeout));
        assert!(report.waited >= Duration::from_secs(1));
    }
}

#[test]
fn a_rank_that_is_awaited_and_idle_hangs() {
    let members = Job::new(3).with(|options| options.deadline = Duration::from_secs(1)).join_all();
    members[1].rank_state.enter_phase("rollout");
    for rank in [0, 2] {
        members[rank].enter(1);
    }
    for member in &members {
        let report = member.failure();
        assert_eq!((report.rank, report.phase.as_str()), (1, "rollout"));
        assert!(matches!(report.cause, FailureCause::Hung { .. }), "{report}");
    }
}

#[test]
fn a_straggler_that_makes_progress_is_waited_for() {
    let members = Job::new(2).with(|options| options.deadline = Duration::from_secs(1)).join_all();
    members[0].enter(1);
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        members[1].rank_state.report_progress();
        thread::sleep(Duration::from_millis(20));
    }
    assert!(members.iter().all(|member| member.rank_state.failure().is_none()));
}

#[test]
fn every_rank_detects_a_lost_connection_to_rank_0() {
    let (member, connection) = Job::new(2).join_fake_rank_0();
    drop(connection);
    let report = member.failure();
    let expected = (0, "a", FailureCause::ConnectionLost);
    assert_eq!((report.rank, report.host.as_str(), report.cause), expected);
}

#[test]
fn a_silent_rank_0_fails_after_the_deadline() {
    let job = Job::new(2).with(|options| options.deadline = Duration::from_millis(500));
    let (member, _connection) = job.join_fake_rank_0();
    let report = member.failure();
    assert_eq!((report.rank, report.cause), (0, FailureCause::HeartbeatTimeout));
    assert_eq!(report.waited, Duration::from_millis(500));
}

#[test]
fn the_error_of_a_failed_rank_reaches_all() {
    let members = Job::new(3).join_all();
    members[2].rank_state.enter_phase("checkpoint");
    let own = members[2].client.fail("no space left on device").to_string();
    for member in &members {
        let report = member.failure();
        assert_eq!(report.cause, FailureCause::Failed("no space left on device".into()));
        assert_eq!(report.to_string(), own);
    }
    assert_eq!(own, "rank 2 on `host2` failed: no space left on device; phase `checkpoint`");
}

#[test]
fn broadcasts_by_rank_0_reach_all_in_order() {
    let members = Job::new(3).join_all();
    thread::scope(|scope| {
        for member in &members {
            scope.spawn(|| {
                for number in 0..3 {
                    let mine =
                        if member.rank_state.rank() == 0 { vec![number; 128] } else { Vec::new() };
                    assert_eq!(member.client.broadcast(mine, LONG).unwrap(), [number; 128]);
                }
            });
        }
    });
}

#[test]
fn finish_returns_when_all_ranks_are_done() {
    let members = Job::new(3).join_all();
    thread::scope(|scope| {
        for member in &members {
            scope.spawn(|| member.client.finish(LONG).unwrap());
        }
    });
    let (first, others) = members.split_first().unwrap();
    assert!(others.iter().all(|member| member.client.is_finished()));
    assert!(first.rank_state.failure().is_none());
}

#[test]
fn a_rank_that_exits_early_is_named() {
    let members = Job::new(2).join_all();
    members[1].client.leave();
    assert_eq!(members[0].failure().cause, FailureCause::Left);
}

#[test]
fn acknowledging_waits_for_all_ranks_but_the_failed_one() {
    let members = Job::new(3).join_all();
    members[1].client.fail("no");
    members[0].failure();
    let began = Instant::now();
    thread::scope(|scope| {
        let first = scope.spawn(|| members[0].client.acknowledge_failure());
        thread::sleep(Duration::from_millis(300));
        assert!(!first.is_finished());
        members[2].failure();
        members[2].client.acknowledge_failure();
    });
    assert!(began.elapsed() >= Duration::from_millis(300));
}
