//! Rank 0's door: lets in who knows the token, and turns strangers away without harm.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use super::frame::{self, HELLO_LIMIT, LIMIT, Until};
use super::handshake;
use super::message::{FromRank, Hello};
use super::token::Token;
use crate::error::{Error, Result};

/// How long a handshake and a hello may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes at a time, beside one for every rank; whoever comes then is sent away.
const STRANGERS_AT_ONCE: usize = 64;
/// How often it is looked whether somebody stands before the door.
const GLANCE: Duration = Duration::from_millis(20);

/// What comes in through the door, by connection.
#[derive(Debug)]
pub(super) enum Event {
    /// Somebody who knows the token.
    Came { connection: usize, hello: Hello, stream: TcpStream },
    /// It says something.
    Said { connection: usize, message: FromRank },
    /// Its connection ended.
    Gone { connection: usize },
    /// Somebody who does not know the token.
    Stranger,
}

/// The door is closed when this is dropped; who came in stays.
#[derive(Debug)]
pub(super) struct Reception(Arc<Door>);

#[derive(Debug)]
struct Door {
    token: Token,
    closed: AtomicBool,
    greeting: AtomicUsize,
    most: usize,
}

impl Drop for Reception {
    fn drop(&mut self) {
        self.0.closed.store(true, Ordering::Relaxed);
    }
}

impl Reception {
    /// Opens the door of a job of `world_size` ranks.
    pub(super) fn open(
        listener: TcpListener,
        token: Token,
        world_size: usize,
        events: Sender<Event>,
    ) -> Result<Self> {
        let system = |source| Error::System { what: "open the rendezvous", source };
        listener.set_nonblocking(true).map_err(system)?;
        let most = world_size.saturating_add(STRANGERS_AT_ONCE);
        let greeting = AtomicUsize::new(0);
        let door = Arc::new(Door { token, closed: AtomicBool::new(false), greeting, most });
        let inside = Arc::clone(&door);
        let body = move || inside.stand(&listener, &events);
        thread::Builder::new().name("dist-door".into()).spawn(body).map_err(system)?;
        Ok(Self(door))
    }
}

impl Door {
    fn stand(self: Arc<Self>, listener: &TcpListener, events: &Sender<Event>) {
        let mut connection = 0;
        while !self.closed.load(Ordering::Relaxed) {
            let Ok((stream, from)) = listener.accept() else {
                thread::sleep(GLANCE);
                continue;
            };
            if self.greeting.load(Ordering::Relaxed) >= self.most {
                tracing::warn!(%from, "too many connections at once, one is dropped");
                continue;
            }
            connection += 1;
            self.greeting.fetch_add(1, Ordering::Relaxed);
            let (door, events) = (Arc::clone(&self), events.clone());
            let body = move || door.receive(stream, connection, &events);
            if let Err(error) = thread::Builder::new().name("dist-rank".into()).spawn(body) {
                self.greeting.fetch_sub(1, Ordering::Relaxed);
                tracing::warn!(%from, %error, "cannot receive a connection");
            }
        }
    }

    /// Receives one connection, and listens to it until it ends.
    fn receive(&self, stream: TcpStream, connection: usize, events: &Sender<Event>) {
        let greeted = self.greet(&stream);
        self.greeting.fetch_sub(1, Ordering::Relaxed);
        let hello = match greeted {
            Ok(hello) => hello,
            Err(why) => {
                let from = stream.peer_addr().ok();
                tracing::warn!(?from, %why, "a stranger at the rendezvous is turned away");
                let _ = events.send(Event::Stranger);
                return;
            }
        };
        let Ok(writer) = stream.try_clone() else { return };
        if events.send(Event::Came { connection, hello, stream: writer }).is_err() {
            return;
        }
        while let Ok(message) = frame::read(&stream, LIMIT) {
            if events.send(Event::Said { connection, message }).is_err() {
                return;
            }
        }
        let _ = events.send(Event::Gone { connection });
    }

    fn greet(&self, stream: &TcpStream) -> Result<Hello, handshake::Failure> {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(HANDSHAKE))?;
        let until = Instant::now() + HANDSHAKE;
        handshake::receive(stream, &self.token, until)?;
        let hello = frame::read(Until { stream, until }, HELLO_LIMIT)?;
        stream.set_read_timeout(None)?;
        Ok(hello)
    }
}
