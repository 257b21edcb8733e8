//! A rank's side of the control plane.

use std::collections::BTreeMap;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::frame::{self, LIMIT, Until};
use super::handshake::{self, Failure};
use super::meeting::Meeting;
use super::message::{FromRank, Hello, ToRank};
use super::{coordinator, token::Token};
use crate::error::{Error, Result};
use crate::options::Options;
use crate::verdict::{Verdict, Why};
use crate::watch::{Unmet, Watch, lock, lost};

/// How long one attempt to connect, and one handshake, may take.
const ATTEMPT: Duration = Duration::from_secs(5);
/// How much longer than the coordinator a rank waits for the others.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a rank that ends waits until the others were told.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What the thread that speaks is to do.
#[derive(Debug)]
enum Word {
    Say(FromRank),
    HangUp,
}

/// What came from the coordinator and is waited for.
#[derive(Debug, Default)]
struct Inbox {
    all_done: bool,
    all_parted: bool,
    shared: BTreeMap<u64, Vec<u8>>,
}

/// A rank's connection to the coordinator, with a thread that speaks and one that listens.
#[derive(Debug)]
pub(crate) struct Client {
    speak: Sender<Word>,
    /// Ends when everything was said.
    silence: Mutex<Receiver<()>>,
    inbox: Arc<Mutex<Inbox>>,
    watch: Arc<Watch>,
    shares: AtomicU64,
    hosts: Vec<String>,
}

impl Client {
    /// Comes together with the other ranks; returns when all of them are there and alike. Rank 0 brings
    /// the `listener` of the meeting's address.
    pub(crate) fn join(
        meeting: &Meeting,
        listener: Option<TcpListener>,
        world_size: usize,
        host: &str,
        options: &Options,
        watch: Arc<Watch>,
    ) -> Result<Self> {
        let hello = Hello {
            rank: watch.rank(),
            world_size,
            host: host.to_owned(),
            pid: std::process::id(),
            version: options.version.clone(),
            digest: options.digest.clone(),
            settings: options.settings.clone(),
        };
        if let Some(listener) = listener {
            coordinator::start(listener, meeting.token.clone(), hello.clone(), options)?;
        }
        let began = Instant::now();
        let unreachable = |why: String| Error::Unreachable {
            rank: hello.rank,
            address: meeting.address,
            waited: began.elapsed(),
            why,
        };
        let until = began + options.join_within;
        let stream =
            connect(meeting.address, &meeting.token, until).map_err(|failure| match failure {
                Failure::Token => Error::Token { rank: hello.rank, address: meeting.address },
                Failure::Other(error) => unreachable(error.to_string()),
            })?;
        let hosts = enter(&stream, &hello, until + PATIENCE)
            .map_err(|error| unreachable(error.to_string()))?
            .map_err(|faults| Error::Refused { faults })?;
        Self::start(stream, hosts, options, watch)
    }

    fn start(
        stream: TcpStream,
        hosts: Vec<String>,
        options: &Options,
        watch: Arc<Watch>,
    ) -> Result<Self> {
        let system = |source| Error::System { what: "start the control plane", source };
        let inbox = Arc::new(Mutex::new(Inbox::default()));
        let (speak, words) = channel();
        let (speaking, silence) = channel();
        stream.set_read_timeout(Some(options.deadline)).map_err(system)?;
        stream.set_write_timeout(Some(options.deadline)).map_err(system)?;
        let reader = stream.try_clone().map_err(system)?;
        let rank_0 = hosts.first().cloned().unwrap_or_default();
        let listener = Listener {
            watch: Arc::clone(&watch),
            inbox: Arc::clone(&inbox),
            rank_0,
            deadline: options.deadline,
        };
        let (signs, pulse) = (Arc::clone(&watch), options.pulse());
        let spawn = |name: &str, body: Box<dyn FnOnce() + Send>| {
            thread::Builder::new().name(name.into()).spawn(body).map(drop).map_err(system)
        };
        let speaker = move || {
            speak_up(&stream, &words, &signs, pulse);
            let _ = stream.shutdown(Shutdown::Both);
            drop(speaking);
        };
        spawn("dist-speaker", Box::new(speaker))?;
        spawn("dist-listener", Box::new(move || listener.listen(&reader)))?;
        let tell = speak.clone();
        watch.on_lost(Box::new(move |verdict| {
            // This rank alone may have found it; the coordinator knows its own verdicts.
            let _ = tell.send(Word::Say(FromRank::Found(verdict.clone())));
        }));
        let silence = Mutex::new(silence);
        Ok(Self { speak, silence, inbox, watch, shares: AtomicU64::new(0), hosts })
    }

    fn say(&self, message: FromRank) {
        let _ = self.speak.send(Word::Say(message));
    }

    /// Tells the signs of this rank now.
    pub(crate) fn pulse(&self) {
        self.say(FromRank::Pulse(self.watch.signs()));
    }

    /// The hosts of the ranks, in order.
    pub(crate) fn hosts(&self) -> &[String] {
        &self.hosts
    }

    /// Rank 0's `bytes` on every rank; what others give is not looked at. All ranks call it in the same
    /// order.
    pub(crate) fn share(&self, bytes: Vec<u8>, within: Duration) -> Result<Vec<u8>> {
        let number = self.shares.fetch_add(1, Ordering::Relaxed);
        if self.watch.rank() == 0 {
            self.say(FromRank::Share { number, bytes });
        }
        let got = self.watch.wait(Some(within), || lock(&self.inbox).shared.remove(&number));
        got.map_err(|unmet| unmet.into_error(self.watch.rank(), "handing round", within))
    }

    /// Says that all work of this rank is done, and waits until all say so.
    pub(crate) fn finish(&self, within: Duration) -> Result<()> {
        self.say(FromRank::Done);
        let done = self.watch.wait(Some(within), || lock(&self.inbox).all_done.then_some(()));
        done.map_err(|unmet| unmet.into_error(self.watch.rank(), "finish", within))
    }

    /// Whether all ranks said that all is done.
    pub(crate) fn is_finished(&self) -> bool {
        lock(&self.inbox).all_done
    }

    /// Tells all ranks that this one failed; returns when they were told, or after a short while.
    pub(crate) fn fail(&self, words: &str) -> Error {
        let own = self.watch.own_verdict(Why::Failed(words.to_owned()));
        let said = FromRank::Failed { words: words.to_owned(), signs: self.watch.signs() };
        self.end(said, own)
    }

    /// Says that this rank has told why the job ended, and waits a moment for the others to do so.
    pub(crate) fn part(&self) {
        self.say(FromRank::Parted);
        let until = Instant::now() + LAST_WORDS;
        while !lock(&self.inbox).all_parted && Instant::now() < until {
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Tells all ranks that this one leaves.
    pub(crate) fn leave(&self) {
        self.end(FromRank::Left(self.watch.signs()), self.watch.own_verdict(Why::Left));
    }

    fn end(&self, said: FromRank, own: Verdict) -> Error {
        self.say(said);
        match self.watch.wait(Some(LAST_WORDS), || None::<()>) {
            Err(Unmet::Lost(verdict)) => lost(&verdict),
            _ => {
                self.watch.condemn(own.clone());
                lost(&own)
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // The hook that tells it may come later than whom it woke: then all would learn of a broken connection.
        if let Some(verdict) = self.watch.verdict() {
            self.say(FromRank::Found((*verdict).clone()));
        }
        let _ = self.speak.send(Word::HangUp);
        let _ = lock(&self.silence).recv_timeout(LAST_WORDS);
    }
}

/// Connects until it works, the token is found wrong, or the time is over.
fn connect(address: SocketAddr, token: &Token, until: Instant) -> Result<TcpStream, Failure> {
    let mut pause = Duration::from_millis(20);
    loop {
        let error = match attempt(address, token) {
            Ok(stream) => return Ok(stream),
            Err(Failure::Token) => return Err(Failure::Token),
            Err(error) => error,
        };
        if Instant::now() + pause >= until {
            return Err(error);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}

fn attempt(address: SocketAddr, token: &Token) -> Result<TcpStream, Failure> {
    let stream = TcpStream::connect_timeout(&address, ATTEMPT)?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(ATTEMPT))?;
    handshake::present(&stream, token, Instant::now() + ATTEMPT)?;
    Ok(stream)
}

/// Says hello; the hosts of all ranks when they are there, or the faults.
fn enter(
    stream: &TcpStream,
    hello: &Hello,
    until: Instant,
) -> io::Result<Result<Vec<String>, Vec<super::Fault>>> {
    frame::write(stream, hello)?;
    match frame::read(Until { stream, until }, LIMIT)? {
        ToRank::Welcome { hosts } => Ok(Ok(hosts)),
        ToRank::Refused { faults } => Ok(Err(faults)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "rank 0 does not welcome its ranks")),
    }
}

/// Says what is to be said, and the signs of life in between.
fn speak_up(stream: &TcpStream, words: &Receiver<Word>, watch: &Watch, pulse: Duration) {
    let mut message = FromRank::Pulse(watch.signs());
    // A connection that broke is found by the thread that listens.
    while frame::write(stream, &message).is_ok() {
        message = match words.recv_timeout(pulse) {
            Ok(Word::Say(message)) => message,
            Err(RecvTimeoutError::Timeout) => FromRank::Pulse(watch.signs()),
            Ok(Word::HangUp) | Err(RecvTimeoutError::Disconnected) => return,
        };
    }
}

struct Listener {
    watch: Arc<Watch>,
    inbox: Arc<Mutex<Inbox>>,
    rank_0: String,
    deadline: Duration,
}

impl Listener {
    fn listen(&self, stream: &TcpStream) {
        loop {
            match frame::read(stream, LIMIT) {
                Ok(message) => self.heed(message),
                Err(error) => return self.lose_rank_0(&error),
            }
        }
    }

    fn heed(&self, message: ToRank) {
        match message {
            ToRank::Lost(verdict) => self.watch.condemn(verdict),
            ToRank::AllDone => {
                lock(&self.inbox).all_done = true;
                self.watch.wake();
            }
            ToRank::AllParted => lock(&self.inbox).all_parted = true,
            ToRank::Share { number, bytes } => {
                lock(&self.inbox).shared.insert(number, bytes);
                self.watch.wake();
            }
            ToRank::Pulse | ToRank::Welcome { .. } | ToRank::Refused { .. } => {}
        }
    }

    fn lose_rank_0(&self, error: &io::Error) {
        if lock(&self.inbox).all_done {
            return;
        }
        let silent = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
        let (why, waited) =
            if silent { (Why::Silent, self.deadline) } else { (Why::Broken, Duration::ZERO) };
        self.watch.condemn(Verdict {
            rank: 0,
            host: self.rank_0.clone(),
            phase: "unknown".into(),
            operation: None,
            waited,
            why,
        });
    }
}
