//! A rank's side of the control plane.

use std::collections::BTreeMap;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::frame::{self, DeadlineReader, LIMIT};
use super::handshake::{self, HandshakeError};
use super::message::{FromRank, Hello, ToRank};
use super::rendezvous::Rendezvous;
use super::{coordinator, token::JobToken};
use crate::error::{Error, Result};
use crate::failure::{FailureCause, FailureReport};
use crate::options::CommunicatorOptions;
use crate::rank_state::{RankState, WaitError, aborted, lock};

/// The time limit of one attempt to connect, and of one handshake.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
/// How much longer than the coordinator a rank waits for the rendezvous.
const JOIN_GRACE: Duration = Duration::from_secs(10);
/// How long an exiting rank waits until the others are notified.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// A command to the writer thread.
#[derive(Debug)]
enum Outgoing {
    Send(FromRank),
    Close,
}

/// What the coordinator has sent.
#[derive(Debug, Default)]
struct Inbox {
    all_done: bool,
    all_acknowledged: bool,
    broadcasts: BTreeMap<u64, Vec<u8>>,
}

/// A rank's connection to the coordinator, with a writer and a reader thread.
#[derive(Debug)]
pub(crate) struct Client {
    outgoing: Sender<Outgoing>,
    /// Disconnects when the writer thread has sent everything.
    writer_done: Mutex<Receiver<()>>,
    inbox: Arc<Mutex<Inbox>>,
    rank_state: Arc<RankState>,
    broadcast_count: AtomicU64,
    hosts: Vec<String>,
}

impl Client {
    /// Joins the rendezvous; returns when all ranks have joined and match. Rank 0 passes the `listener` of the
    /// rendezvous address.
    pub(crate) fn join(
        rendezvous: &Rendezvous,
        listener: Option<TcpListener>,
        world_size: usize,
        host: &str,
        options: &CommunicatorOptions,
        rank_state: Arc<RankState>,
    ) -> Result<Self> {
        let hello = Hello {
            rank: rank_state.rank(),
            world_size,
            host: host.to_owned(),
            pid: std::process::id(),
            version: options.version.clone(),
            digest: options.digest.clone(),
            settings: options.settings.clone(),
        };
        if let Some(listener) = listener {
            coordinator::start(listener, rendezvous.token.clone(), hello.clone(), options)?;
        }
        let began = Instant::now();
        let unreachable = |why: String| Error::Unreachable {
            rank: hello.rank,
            address: rendezvous.address,
            waited: began.elapsed(),
            why,
        };
        let until = began + options.join_timeout;
        let stream =
            connect(rendezvous.address, &rendezvous.token, until).map_err(
                |failure| match failure {
                    HandshakeError::JobToken => {
                        Error::JobToken { rank: hello.rank, address: rendezvous.address }
                    }
                    HandshakeError::Other(error) => unreachable(error.to_string()),
                },
            )?;
        let hosts = send_hello(&stream, &hello, until + JOIN_GRACE)
            .map_err(|error| unreachable(error.to_string()))?
            .map_err(|faults| Error::Refused { faults })?;
        Self::start(stream, hosts, options, rank_state)
    }

    fn start(
        stream: TcpStream,
        hosts: Vec<String>,
        options: &CommunicatorOptions,
        rank_state: Arc<RankState>,
    ) -> Result<Self> {
        let system = |source| Error::System { what: "start the control plane", source };
        let inbox = Arc::new(Mutex::new(Inbox::default()));
        let (outgoing, queued) = channel();
        let (writing, writer_done) = channel();
        stream.set_read_timeout(Some(options.deadline)).map_err(system)?;
        stream.set_write_timeout(Some(options.deadline)).map_err(system)?;
        let reader = stream.try_clone().map_err(system)?;
        let rank_0 = hosts.first().cloned().unwrap_or_default();
        let incoming = Reader {
            rank_state: Arc::clone(&rank_state),
            inbox: Arc::clone(&inbox),
            rank_0,
            deadline: options.deadline,
        };
        let (shared, interval) = (Arc::clone(&rank_state), options.heartbeat_interval());
        let spawn = |name: &str, body: Box<dyn FnOnce() + Send>| {
            thread::Builder::new().name(name.into()).spawn(body).map(drop).map_err(system)
        };
        let writer = move || {
            write_messages(&stream, &queued, &shared, interval);
            let _ = stream.shutdown(Shutdown::Both);
            drop(writing);
        };
        spawn("dist-writer", Box::new(writer))?;
        spawn("dist-reader", Box::new(move || incoming.run(&reader)))?;
        let sender = outgoing.clone();
        rank_state.on_failure(Box::new(move |report| {
            // Possibly only this rank detected the failure. The coordinator ignores its own reports.
            let _ = sender.send(Outgoing::Send(FromRank::Detected(report.clone())));
        }));
        let (writer_done, broadcast_count) = (Mutex::new(writer_done), AtomicU64::new(0));
        Ok(Self { outgoing, writer_done, inbox, rank_state, broadcast_count, hosts })
    }

    fn send(&self, message: FromRank) {
        let _ = self.outgoing.send(Outgoing::Send(message));
    }

    /// Sends a heartbeat now.
    pub(crate) fn heartbeat(&self) {
        self.send(FromRank::Heartbeat(self.rank_state.status()));
    }

    /// The hosts of the ranks, in order.
    pub(crate) fn hosts(&self) -> &[String] {
        &self.hosts
    }

    /// Broadcasts rank 0's `bytes`; the bytes of other ranks are ignored. All ranks call it in the same order.
    pub(crate) fn broadcast(&self, bytes: Vec<u8>, within: Duration) -> Result<Vec<u8>> {
        let number = self.broadcast_count.fetch_add(1, Ordering::Relaxed);
        if self.rank_state.rank() == 0 {
            self.send(FromRank::Broadcast { number, bytes });
        }
        let received =
            self.rank_state.wait(Some(within), || lock(&self.inbox).broadcasts.remove(&number));
        let what = "the control plane's broadcast";
        received.map_err(|error| error.into_error(self.rank_state.rank(), what, within))
    }

    /// Reports that all work of this rank is done, and waits until all ranks have.
    pub(crate) fn finish(&self, within: Duration) -> Result<()> {
        self.send(FromRank::Done);
        let done = self.rank_state.wait(Some(within), || lock(&self.inbox).all_done.then_some(()));
        done.map_err(|error| error.into_error(self.rank_state.rank(), "finish", within))
    }

    /// Whether all ranks have reported that they are done.
    pub(crate) fn is_finished(&self) -> bool {
        lock(&self.inbox).all_done
    }

    /// Aborts the job because this rank failed; returns when the others are notified, or after a short timeout.
    pub(crate) fn fail(&self, message: &str) -> Error {
        let own = self.rank_state.own_failure(FailureCause::Failed(message.to_owned()));
        let status = self.rank_state.status();
        self.exit(FromRank::Failed { message: message.to_owned(), status }, own)
    }

    /// Acknowledges the failure report, and waits shortly until the other ranks have too.
    pub(crate) fn acknowledge_failure(&self) {
        self.send(FromRank::Acknowledged);
        let until = Instant::now() + SHUTDOWN_GRACE;
        while !lock(&self.inbox).all_acknowledged && Instant::now() < until {
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Notifies all ranks that this one exits before the job finished.
    pub(crate) fn leave(&self) {
        self.exit(
            FromRank::Left(self.rank_state.status()),
            self.rank_state.own_failure(FailureCause::Left),
        );
    }

    fn exit(&self, message: FromRank, own: FailureReport) -> Error {
        self.send(message);
        match self.rank_state.wait(Some(SHUTDOWN_GRACE), || None::<()>) {
            Err(WaitError::Aborted(report)) => aborted(&report),
            _ => {
                self.rank_state.abort(own.clone());
                aborted(&own)
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // The hook that sends the report may run after the thread that it woke; without this, the other ranks would
        // only see a lost connection.
        if let Some(report) = self.rank_state.failure() {
            self.send(FromRank::Detected((*report).clone()));
        }
        let _ = self.outgoing.send(Outgoing::Close);
        let _ = lock(&self.writer_done).recv_timeout(SHUTDOWN_GRACE);
    }
}

/// Retries to connect until it succeeds, the token is rejected, or the time is up.
fn connect(
    address: SocketAddr,
    token: &JobToken,
    until: Instant,
) -> Result<TcpStream, HandshakeError> {
    let mut pause = Duration::from_millis(20);
    loop {
        let error = match attempt(address, token) {
            Ok(stream) => return Ok(stream),
            Err(HandshakeError::JobToken) => return Err(HandshakeError::JobToken),
            Err(error) => error,
        };
        if Instant::now() + pause >= until {
            return Err(error);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}

fn attempt(address: SocketAddr, token: &JobToken) -> Result<TcpStream, HandshakeError> {
    let stream = TcpStream::connect_timeout(&address, ATTEMPT_TIMEOUT)?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(ATTEMPT_TIMEOUT))?;
    handshake::authenticate(&stream, token, Instant::now() + ATTEMPT_TIMEOUT)?;
    Ok(stream)
}

/// Sends the hello; returns the hosts of all ranks once they have joined, or the faults.
fn send_hello(
    stream: &TcpStream,
    hello: &Hello,
    until: Instant,
) -> io::Result<Result<Vec<String>, Vec<super::RendezvousFault>>> {
    frame::write(stream, hello)?;
    match frame::read(DeadlineReader { stream, until }, LIMIT)? {
        ToRank::Welcome { hosts } => Ok(Ok(hosts)),
        ToRank::Refused { faults } => Ok(Err(faults)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "rank 0 sent an unexpected message")),
    }
}

/// Writes queued messages, and heartbeats in between.
fn write_messages(
    stream: &TcpStream,
    queued: &Receiver<Outgoing>,
    rank_state: &RankState,
    interval: Duration,
) {
    let mut message = FromRank::Heartbeat(rank_state.status());
    // The reader thread handles a broken connection.
    while frame::write(stream, &message).is_ok() {
        message = match queued.recv_timeout(interval) {
            Ok(Outgoing::Send(message)) => message,
            Err(RecvTimeoutError::Timeout) => FromRank::Heartbeat(rank_state.status()),
            Ok(Outgoing::Close) | Err(RecvTimeoutError::Disconnected) => return,
        };
    }
}

struct Reader {
    rank_state: Arc<RankState>,
    inbox: Arc<Mutex<Inbox>>,
    rank_0: String,
    deadline: Duration,
}

impl Reader {
    fn run(&self, stream: &TcpStream) {
        loop {
            match frame::read(stream, LIMIT) {
                Ok(message) => self.handle(message),
                Err(error) => return self.report_rank_0(&error),
            }
        }
    }

    fn handle(&self, message: ToRank) {
        match message {
            ToRank::Abort(report) => self.rank_state.abort(report),
            ToRank::AllDone => {
                lock(&self.inbox).all_done = true;
                self.rank_state.wake();
            }
            ToRank::AllAcknowledged => lock(&self.inbox).all_acknowledged = true,
            ToRank::Broadcast { number, bytes } => {
                lock(&self.inbox).broadcasts.insert(number, bytes);
                self.rank_state.wake();
            }
            ToRank::Heartbeat | ToRank::Welcome { .. } | ToRank::Refused { .. } => {}
        }
    }

    /// Aborts the job because rank 0, which detects all other failures, has itself failed.
    fn report_rank_0(&self, error: &io::Error) {
        if lock(&self.inbox).all_done {
            return;
        }
        let timed_out = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
        let (cause, waited) = match timed_out {
            true => (FailureCause::HeartbeatTimeout, self.deadline),
            false => (FailureCause::ConnectionLost, Duration::ZERO),
        };
        self.rank_state.abort(FailureReport {
            rank: 0,
            host: self.rank_0.clone(),
            phase: "unknown".into(),
            operation: None,
            waited,
            cause,
        });
    }
}
