//! Accepts connections on rank 0: authenticates ranks and drops all other connections.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use super::frame::{self, DeadlineReader, HELLO_LIMIT, LIMIT};
use super::handshake;
use super::message::{FromRank, Hello};
use super::token::JobToken;
use crate::error::{Error, Result};

/// The time limit of a handshake and hello.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// The limit of concurrent handshakes, in addition to one per rank; further connections are dropped.
const SPARE_HANDSHAKES: usize = 64;
/// The poll interval of the listener.
const POLL: Duration = Duration::from_millis(20);

/// An event of a connection.
#[derive(Debug)]
pub(super) enum Event {
    /// A rank has authenticated.
    Joined { connection: usize, hello: Hello, stream: TcpStream },
    /// A rank sent a message.
    Message { connection: usize, message: FromRank },
    /// A rank's connection ended.
    Disconnected { connection: usize },
    /// A connection failed to authenticate.
    Unauthenticated,
}

/// Accepts connections until dropped; authenticated connections remain.
#[derive(Debug)]
pub(super) struct Acceptor(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    token: JobToken,
    closed: AtomicBool,
    handshakes: AtomicUsize,
    max_handshakes: usize,
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.0.closed.store(true, Ordering::Relaxed);
    }
}

impl Acceptor {
    /// Starts to accept the ranks of a job of `world_size`.
    pub(super) fn start(
        listener: TcpListener,
        token: JobToken,
        world_size: usize,
        events: Sender<Event>,
    ) -> Result<Self> {
        let system = |source| Error::System { what: "open the rendezvous", source };
        listener.set_nonblocking(true).map_err(system)?;
        let max_handshakes = world_size.saturating_add(SPARE_HANDSHAKES);
        let (closed, handshakes) = (AtomicBool::new(false), AtomicUsize::new(0));
        let shared = Arc::new(Shared { token, closed, handshakes, max_handshakes });
        let own = Arc::clone(&shared);
        let body = move || own.accept(&listener, &events);
        thread::Builder::new().name("dist-accept".into()).spawn(body).map_err(system)?;
        Ok(Self(shared))
    }
}

impl Shared {
    fn accept(self: Arc<Self>, listener: &TcpListener, events: &Sender<Event>) {
        let mut connection = 0;
        while !self.closed.load(Ordering::Relaxed) {
            let Ok((stream, from)) = listener.accept() else {
                thread::sleep(POLL);
                continue;
            };
            if self.handshakes.load(Ordering::Relaxed) >= self.max_handshakes {
                tracing::warn!(%from, "dropped a connection: too many handshakes at once");
                continue;
            }
            connection += 1;
            self.handshakes.fetch_add(1, Ordering::Relaxed);
            let (shared, events) = (Arc::clone(&self), events.clone());
            let body = move || shared.serve(stream, connection, &events);
            if let Err(error) = thread::Builder::new().name("dist-rank".into()).spawn(body) {
                self.handshakes.fetch_sub(1, Ordering::Relaxed);
                tracing::warn!(%from, %error, "cannot accept a connection");
            }
        }
    }

    /// Authenticates one connection and forwards its messages until it ends.
    fn serve(&self, stream: TcpStream, connection: usize, events: &Sender<Event>) {
        let authenticated = self.authenticate(&stream);
        self.handshakes.fetch_sub(1, Ordering::Relaxed);
        let hello = match authenticated {
            Ok(hello) => hello,
            Err(why) => {
                let from = stream.peer_addr().ok();
                tracing::warn!(?from, %why, "rejected an unauthenticated connection");
                let _ = events.send(Event::Unauthenticated);
                return;
            }
        };
        let Ok(writer) = stream.try_clone() else { return };
        if events.send(Event::Joined { connection, hello, stream: writer }).is_err() {
            return;
        }
        while let Ok(message) = frame::read(&stream, LIMIT) {
            if events.send(Event::Message { connection, message }).is_err() {
                return;
            }
        }
        let _ = events.send(Event::Disconnected { connection });
    }

    fn authenticate(&self, stream: &TcpStream) -> Result<Hello, handshake::HandshakeError> {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(HANDSHAKE))?;
        let until = Instant::now() + HANDSHAKE;
        handshake::accept(stream, &self.token, until)?;
        let hello = frame::read(DeadlineReader { stream, until }, HELLO_LIMIT)?;
        stream.set_read_timeout(None)?;
        Ok(hello)
    }
}
