//! Rank 0's thread that gathers the ranks, watches over them and tells all of them the verdict.

use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::frame;
use super::gathering::{Fault, Gathering};
use super::message::{FromRank, Hello, ToRank};
use super::reception::{Event, Reception};
use super::token::Token;
use super::watchdog::{Notice, Watchdog};
use crate::error::{Error, Result};
use crate::options::Options;
use crate::verdict::{Verdict, Why};

/// How long it waits for more faults after the first, to tell them at once.
const MORE_FAULTS: Duration = Duration::from_secs(2);
/// How long a rank may leave unread what it is sent.
const WRITE_WITHIN: Duration = Duration::from_secs(1);

/// Starts the coordinator of a job whose rank 0 says `hello`. It ends when all ranks are gone.
pub(super) fn start(
    listener: TcpListener,
    token: Token,
    hello: Hello,
    options: &Options,
) -> Result<()> {
    let (sender, events) = channel();
    let reception = Reception::open(listener, token, hello.world_size, sender)?;
    let coordinator =
        Coordinator { events, options: options.clone(), connections: BTreeMap::new() };
    let body = move || coordinator.run(reception, hello);
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
    /// Whether it is the rank, and not a double of it.
    seated: bool,
    stream: TcpStream,
    /// Whether it has said why the job ended, or cannot.
    parted: bool,
}

struct Coordinator {
    events: Receiver<Event>,
    options: Options,
    connections: BTreeMap<usize, Connection>,
}

impl Coordinator {
    fn run(mut self, reception: Reception, hello: Hello) {
        let Some(hosts) = self.gather(hello) else { return };
        drop(reception);
        self.tell(&ToRank::Welcome { hosts: hosts.clone() });
        let (deadline, remind) = (self.options.deadline, self.options.remind());
        let mut watchdog = Watchdog::new(hosts, deadline, remind, Instant::now());
        if let Some(verdict) = self.watch(&mut watchdog) {
            tracing::info!("{verdict}");
            let culprit = verdict.rank;
            self.tell(&ToRank::Lost(verdict));
            self.see_off(Some(culprit));
        }
    }

    /// The hosts of the ranks, when all are there and fit together.
    fn gather(&mut self, hello: Hello) -> Option<Vec<String>> {
        let until = Instant::now() + self.options.join_within;
        let (mut gathering, mut strangers) = (Gathering::new(hello), 0);
        while !gathering.is_complete() && !gathering.has_faults() {
            let left = until.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(Event::Stranger) => strangers += 1,
                Ok(event) => self.admit(&mut gathering, event),
                Err(_) => break,
            }
        }
        let (missing, waited) = (gathering.missing(), self.options.join_within);
        if gathering.has_faults() {
            self.gather_faults(&mut gathering, until);
        } else if missing.is_empty() {
            return Some(gathering.hosts());
        }
        let mut faults = gathering.into_faults();
        if faults.is_empty() {
            faults.push(Fault::Missing { ranks: missing, waited, strangers });
        }
        self.tell(&ToRank::Refused { faults });
        self.see_off(None);
        None
    }

    /// Waits for more faults while ranks are missing; in any case for rank 0, that all are told.
    fn gather_faults(&mut self, gathering: &mut Gathering, until: Instant) {
        let soon = Instant::now() + MORE_FAULTS;
        while !gathering.is_complete() {
            let until = if gathering.missing().contains(&0) { until } else { soon };
            let left = until.saturating_duration_since(Instant::now());
            let Ok(event) = self.events.recv_timeout(left) else { return };
            self.admit(gathering, event);
        }
    }

    fn admit(&mut self, gathering: &mut Gathering, event: Event) {
        match event {
            Event::Came { connection, hello, stream } => {
                let rank = hello.rank;
                tracing::debug!(rank, host = hello.host, pid = hello.pid, "a rank came");
                let _ = stream.set_write_timeout(Some(WRITE_WITHIN));
                let seated = gathering.take(hello);
                self.connections
                    .insert(connection, Connection { rank, seated, stream, parted: false });
            }
            Event::Gone { connection } => {
                let gone = self.connections.remove(&connection).filter(|gone| gone.seated);
                if let Some(gone) = gone {
                    gathering.leave(gone.rank);
                }
            }
            Event::Said { .. } | Event::Stranger => {}
        }
    }

    /// Watches until all ranks are done, or gives the verdict.
    fn watch(&mut self, watchdog: &mut Watchdog) -> Option<Verdict> {
        let pulse = self.options.pulse();
        let mut next = Instant::now() + pulse;
        loop {
            let left = next.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(event) => {
                    if let Some(verdict) = self.heed(watchdog, event) {
                        return Some(verdict);
                    }
                    if watchdog.all_done() {
                        self.tell(&ToRank::AllDone);
                        return None;
                    }
                    // Looks although much is said.
                    if !left.is_zero() {
                        continue;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
            }
            next = Instant::now() + pulse;
            self.tell(&ToRank::Pulse);
            for notice in watchdog.look(Instant::now()) {
                match notice {
                    Notice::Lost(verdict) => return Some(verdict),
                    Notice::Straggler { rank, phase, waited } => {
                        let waited = waited.as_secs_f64();
                        tracing::warn!(
                            "waiting {waited:.0} s for rank {rank}, which is in `{phase}`"
                        );
                    }
                }
            }
        }
    }

    /// What an event means; a verdict where it ends the job.
    fn heed(&mut self, watchdog: &mut Watchdog, event: Event) -> Option<Verdict> {
        let (Event::Said { connection, .. } | Event::Gone { connection }) = &event else {
            return None;
        };
        let rank = self.connections.get(connection)?.rank;
        let message = match event {
            Event::Said { message, .. } => message,
            Event::Gone { connection } => {
                self.connections.remove(&connection);
                let lost = !watchdog.is_done(rank);
                return lost.then(|| watchdog.verdict(rank, Why::Broken, Duration::ZERO));
            }
            _ => return None,
        };
        let now = Instant::now();
        match message {
            FromRank::Pulse(signs) => watchdog.hear(rank, signs, now),
            FromRank::Failed { words, signs } => {
                watchdog.hear(rank, signs, now);
                return Some(watchdog.verdict(rank, Why::Failed(words), Duration::ZERO));
            }
            FromRank::Left(signs) => {
                watchdog.hear(rank, signs, now);
                return Some(watchdog.verdict(rank, Why::Left, Duration::ZERO));
            }
            FromRank::Found(verdict) => return Some(verdict),
            FromRank::Done => watchdog.done(rank),
            FromRank::Share { number, bytes } if rank == 0 => {
                self.tell(&ToRank::Share { number, bytes });
            }
            FromRank::Share { .. } | FromRank::Parted => {}
        }
        None
    }

    /// Tells everybody, rank 0 last: its process may end as soon as it knows.
    fn tell(&self, message: &ToRank) {
        let (first, last): (Vec<_>, Vec<_>) =
            self.connections.values().partition(|connection| connection.rank != 0);
        for connection in first.into_iter().chain(last) {
            // Who cannot be reached is found by its silence or its broken connection.
            if let Err(error) = frame::write(&connection.stream, message) {
                tracing::debug!(rank = connection.rank, %error, "cannot tell a rank");
            }
        }
    }

    /// Keeps the connections until the ranks have closed them, and tells when all but the `culprit` have
    /// had their say.
    fn see_off(&mut self, culprit: Option<usize>) {
        let mut told = false;
        while !self.connections.is_empty() {
            match self.events.recv() {
                Ok(Event::Gone { connection }) => drop(self.connections.remove(&connection)),
                Ok(Event::Said { connection, message: FromRank::Parted }) => {
                    if let Some(connection) = self.connections.get_mut(&connection) {
                        connection.parted = true;
                    }
                }
                Ok(_) => {}
                Err(_) => return,
            }
            let mut others = self.connections.values();
            if !told && others.all(|other| other.parted || Some(other.rank) == culprit) {
                told = true;
                self.tell(&ToRank::AllParted);
            }
        }
    }
}
