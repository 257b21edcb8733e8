//! The coordinator, a thread on rank 0: collects the ranks, monitors them and broadcasts the failure report.

use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::RendezvousFault;
use super::acceptor::{Acceptor, Event};
use super::frame;
use super::message::{FromRank, Hello, ToRank};
use super::roster::Roster;
use super::token::JobToken;
use super::watchdog::{Notice, Watchdog};
use crate::error::{Error, Result};
use crate::failure::{FailureCause, FailureReport};
use crate::options::CommunicatorOptions;

/// How long to collect further faults after the first, to report them together.
const MORE_FAULTS: Duration = Duration::from_secs(2);
/// The write timeout to a rank.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// Starts the coordinator of a job with rank 0's `hello`. It exits when all ranks have disconnected.
pub(super) fn start(
    listener: TcpListener,
    token: JobToken,
    hello: Hello,
    options: &CommunicatorOptions,
) -> Result<()> {
    let (sender, events) = channel();
    let acceptor = Acceptor::start(listener, token, hello.world_size, sender)?;
    let coordinator =
        Coordinator { events, options: options.clone(), connections: BTreeMap::new() };
    let body = move || coordinator.run(acceptor, hello);
    thread::Builder::new()
        .name("dist-coordinator".into())
        .spawn(body)
        .map_err(|source| Error::System { what: "start the coordinator's thread", source })?;
    Ok(())
}

/// The connection of a rank.
#[derive(Debug)]
struct Connection {
    rank: usize,
    /// False for a duplicate of the rank, or one out of range.
    is_member: bool,
    stream: TcpStream,
    /// Whether the rank has acknowledged the failure report.
    acknowledged: bool,
}

struct Coordinator {
    events: Receiver<Event>,
    options: CommunicatorOptions,
    connections: BTreeMap<usize, Connection>,
}

impl Coordinator {
    fn run(mut self, acceptor: Acceptor, hello: Hello) {
        let Some(hosts) = self.collect_ranks(hello) else { return };
        drop(acceptor);
        self.broadcast(&ToRank::Welcome { hosts: hosts.clone() });
        let (deadline, reminder_interval) =
            (self.options.deadline, self.options.reminder_interval());
        let mut watchdog = Watchdog::new(hosts, deadline, reminder_interval, Instant::now());
        if let Some(report) = self.monitor(&mut watchdog) {
            tracing::info!("{report}");
            let failed = report.rank;
            self.broadcast(&ToRank::Abort(report));
            self.drain_connections(Some(failed));
        }
    }

    /// The hosts of the ranks, once all have joined and match.
    fn collect_ranks(&mut self, hello: Hello) -> Option<Vec<String>> {
        let until = Instant::now() + self.options.join_timeout;
        let (mut roster, mut unauthenticated) = (Roster::new(hello), 0);
        while !roster.is_complete() && !roster.has_faults() {
            let left = until.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(Event::Unauthenticated) => unauthenticated += 1,
                Ok(event) => self.update_roster(&mut roster, event),
                Err(_) => break,
            }
        }
        let (missing, waited) = (roster.missing(), self.options.join_timeout);
        if roster.has_faults() {
            self.collect_faults(&mut roster, until);
        } else if missing.is_empty() {
            return Some(roster.hosts());
        }
        let mut faults = roster.into_faults();
        if faults.is_empty() {
            faults.push(RendezvousFault::Missing { ranks: missing, waited, unauthenticated });
        }
        self.broadcast(&ToRank::Refused { faults });
        self.drain_connections(None);
        None
    }

    /// Waits shortly for further faults while ranks are missing, but always for rank 0, which must report them.
    fn collect_faults(&mut self, roster: &mut Roster, until: Instant) {
        let soon = Instant::now() + MORE_FAULTS;
        while !roster.is_complete() {
            let until = if roster.missing().contains(&0) { until } else { soon };
            let left = until.saturating_duration_since(Instant::now());
            let Ok(event) = self.events.recv_timeout(left) else { return };
            self.update_roster(roster, event);
        }
    }

    fn update_roster(&mut self, roster: &mut Roster, event: Event) {
        match event {
            Event::Joined { connection, hello, stream } => {
                let rank = hello.rank;
                tracing::debug!(rank, host = hello.host, pid = hello.pid, "rank joined");
                let _ = stream.set_write_timeout(Some(WRITE_TIMEOUT));
                let is_member = roster.add(hello);
                let member = Connection { rank, is_member, stream, acknowledged: false };
                self.connections.insert(connection, member);
            }
            Event::Disconnected { connection } => {
                let gone = self.connections.remove(&connection).filter(|gone| gone.is_member);
                if let Some(gone) = gone {
                    roster.remove(gone.rank);
                }
            }
            Event::Message { .. } | Event::Unauthenticated => {}
        }
    }

    /// Monitors the ranks until all are done; returns the report if one fails.
    fn monitor(&mut self, watchdog: &mut Watchdog) -> Option<FailureReport> {
        let interval = self.options.heartbeat_interval();
        let mut next = Instant::now() + interval;
        loop {
            let left = next.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(event) => {
                    if let Some(report) = self.handle(watchdog, event) {
                        return Some(report);
                    }
                    if watchdog.all_done() {
                        self.broadcast(&ToRank::AllDone);
                        return None;
                    }
                    // A steady stream of messages must not postpone the check.
                    if !left.is_zero() {
                        continue;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
            }
            next = Instant::now() + interval;
            self.broadcast(&ToRank::Heartbeat);
            for notice in watchdog.check(Instant::now()) {
                match notice {
                    Notice::Failure(report) => return Some(report),
                    Notice::Straggler { rank, phase, waited } => {
                        let waited = waited.as_secs_f64();
                        tracing::warn!("waiting {waited:.0} s for rank {rank} in phase `{phase}`");
                    }
                }
            }
        }
    }

    /// Handles an event; returns a report if it aborts the job.
    fn handle(&mut self, watchdog: &mut Watchdog, event: Event) -> Option<FailureReport> {
        let (Event::Message { connection, .. } | Event::Disconnected { connection }) = &event
        else {
            return None;
        };
        let rank = self.connections.get(connection)?.rank;
        let message = match event {
            Event::Message { message, .. } => message,
            Event::Disconnected { connection } => {
                self.connections.remove(&connection);
                let exited_early = !watchdog.is_done(rank);
                return exited_early
                    .then(|| watchdog.report(rank, FailureCause::ConnectionLost, Duration::ZERO));
            }
            _ => return None,
        };
        let now = Instant::now();
        match message {
            FromRank::Heartbeat(status) => watchdog.record(rank, status, now),
            FromRank::Failed { message, status } => {
                watchdog.record(rank, status, now);
                return Some(watchdog.report(rank, FailureCause::Failed(message), Duration::ZERO));
            }
            FromRank::Left(status) => {
                watchdog.record(rank, status, now);
                return Some(watchdog.report(rank, FailureCause::Left, Duration::ZERO));
            }
            FromRank::Detected(report) => return Some(report),
            FromRank::Done => watchdog.mark_done(rank),
            FromRank::Broadcast { number, bytes } if rank == 0 => {
                self.broadcast(&ToRank::Broadcast { number, bytes });
            }
            FromRank::Broadcast { .. } | FromRank::Acknowledged => {}
        }
        None
    }

    /// Sends a message to all ranks, to rank 0 last: its process may exit on receipt.
    fn broadcast(&self, message: &ToRank) {
        let (first, last): (Vec<_>, Vec<_>) =
            self.connections.values().partition(|connection| connection.rank != 0);
        for connection in first.into_iter().chain(last) {
            // An unreachable rank is detected by its missing heartbeats or its broken connection.
            if let Err(error) = frame::write(&connection.stream, message) {
                tracing::debug!(rank = connection.rank, %error, "cannot send to a rank");
            }
        }
    }

    /// Keeps the connections until the ranks have closed them. Notifies all once every rank but the `failed` one has
    /// acknowledged the report.
    fn drain_connections(&mut self, failed: Option<usize>) {
        let mut notified = false;
        while !self.connections.is_empty() {
            match self.events.recv() {
                Ok(Event::Disconnected { connection }) => {
                    drop(self.connections.remove(&connection));
                }
                Ok(Event::Message { connection, message: FromRank::Acknowledged }) => {
                    if let Some(connection) = self.connections.get_mut(&connection) {
                        connection.acknowledged = true;
                    }
                }
                Ok(_) => {}
                Err(_) => return,
            }
            let mut others = self.connections.values();
            if !notified && others.all(|other| other.acknowledged || Some(other.rank) == failed) {
                notified = true;
                self.broadcast(&ToRank::AllAcknowledged);
            }
        }
    }
}
