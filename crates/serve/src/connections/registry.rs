//! The open connections and what each waits for.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::pace::{GRACE, MIN_BYTES_PER_SECOND, Pace};
use crate::budget::Budget;
use crate::client::Client;
use crate::limits::HttpLimits;
use crate::refusal::Refusal;

/// Connections that may wait for another to make room; further ones are refused at once.
const MAX_QUEUED: usize = 64;

/// How long they wait: until a body that began before them can be slow, and a little more.
const QUEUE_TIMEOUT: Duration = GRACE.saturating_add(Duration::from_millis(250));

/// How long a body must be slow before it is evicted for its memory. Requests in use return theirs within seconds.
const MEMORY_GRACE: Duration = Duration::from_secs(10);

/// The open connections.
#[derive(Debug)]
pub(super) struct Connections {
    most: usize,
    /// A permit is a connection. Those in the queue get them in order.
    slots: Arc<Semaphore>,
    queue: Arc<Semaphore>,
    /// A response has been sent, so its connection may make room.
    sent: Notify,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The last id or place.
    last: u64,
    entries: HashMap<u64, Entry>,
    /// Connections without a request in progress, those that wait for longest first.
    waiting: BTreeMap<u64, u64>,
}

#[derive(Debug)]
struct Entry {
    /// The key in `waiting`.
    place: Option<u64>,
    connection: Arc<Connection>,
    _slot: OwnedSemaphorePermit,
}

/// What the registry and a connection's task share.
#[derive(Debug)]
struct Connection {
    client: Client,
    snapshot: Mutex<Snapshot>,
    changed: Notify,
}

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The first byte of its first request.
    New { since: Instant },
    /// The rest of a request's header.
    Header { since: Instant },
    /// The rest of a request's body.
    Body(Pace),
    /// Its response.
    Busy,
    /// Its client, to read the rest of a complete response.
    Sending,
    /// The first byte of another request.
    Idle { since: Instant },
}

/// A connection's phase, and whether the connection must make room for another.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    pub(super) phase: Phase,
    /// An earlier response is not sent yet; its client has sent the next request without waiting for it.
    is_sending: bool,
    /// The rest of a body was not waited for.
    has_unread: bool,
    /// The response of an evicted connection.
    evicted: Option<Refusal>,
}

/// Why a connection is closed before its client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    TimedOut,
    Evicted,
    Closing,
}

impl Snapshot {
    /// Why the connection must be closed now, if it must.
    pub(super) fn ended(&self, limits: &HttpLimits, is_closing: bool) -> Option<Reason> {
        if matches!(self.phase, Phase::Busy | Phase::Sending) {
            return None;
        }
        if self.evicted.is_some() {
            return Some(Reason::Evicted);
        }
        let is_late = Instant::now() >= self.deadline(limits)?;
        match (is_closing, is_late) {
            (true, _) => Some(Reason::Closing),
            (_, true) => Some(Reason::TimedOut),
            _ => None,
        }
    }

    /// When the client will have taken too long; `None` once it has sent a request's header. The time limit of a body is
    /// that of its handler.
    pub(super) fn deadline(&self, limits: &HttpLimits) -> Option<Instant> {
        match self.phase {
            Phase::New { since } | Phase::Header { since } => Some(since + limits.timeout_header),
            Phase::Idle { since } => Some(since + limits.timeout_keep_alive),
            Phase::Body(_) | Phase::Busy | Phase::Sending => None,
        }
    }

    /// The response if the client has begun a request.
    pub(super) fn refusal(&self, reason: Reason, limits: &HttpLimits) -> Option<Refusal> {
        match (self.phase, reason) {
            (Phase::Header { .. } | Phase::Body(_), Reason::Evicted) => self.evicted.clone(),
            (Phase::Header { .. }, Reason::TimedOut) => {
                Some(Refusal::header_timeout(limits.timeout_header))
            }
            (Phase::Header { .. }, Reason::Closing) => Some(Refusal::stopping()),
            _ => None,
        }
    }
}

/// A connection in the registry, until it is dropped.
#[derive(Debug)]
pub(super) struct Member {
    connections: Arc<Connections>,
    id: u64,
    connection: Arc<Connection>,
}

/// A request in progress, until it is dropped.
#[derive(Debug)]
pub(super) struct Busy(Arc<Member>);

/// What becomes of a new connection.
#[derive(Debug)]
pub(super) enum Entered {
    Member(Member),
    /// Another connection may soon make room.
    Queued(Queued),
    /// All have requests in progress.
    Full,
}

/// A new connection that waits for another to make room.
#[derive(Debug)]
pub(super) struct Queued {
    connections: Arc<Connections>,
    client: Client,
    _place: OwnedSemaphorePermit,
}

/// A body of which a part has arrived.
#[derive(Debug, Clone, Copy)]
struct Upload {
    id: u64,
    client: Client,
    pace: Pace,
}

impl Upload {
    fn is_slow(&self, grace: Duration) -> bool {
        self.pace.slow_at + grace <= Instant::now()
    }

    fn slow(&self) -> Refusal {
        Refusal::slow_body(self.pace.bytes, self.pace.began.elapsed(), MIN_BYTES_PER_SECOND)
    }
}

impl Connections {
    /// A registry of up to `most` connections.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            slots: Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS))),
            queue: Arc::new(Semaphore::new(MAX_QUEUED)),
            sent: Notify::new(),
            state: Mutex::default(),
        }
    }

    /// Adds a connection, in place of another if the limit is reached.
    pub(super) fn enter(self: &Arc<Self>, client: Client) -> Entered {
        let slot = || self.slots.clone().try_acquire_owned().ok();
        if let Some(slot) = slot().or_else(|| self.evict().then(slot).flatten()) {
            return Entered::Member(self.admit(client, slot));
        }
        let may_make_room = self.next_slow().is_some() || self.is_any_sending();
        match self.queue.clone().try_acquire_owned() {
            Ok(place) if may_make_room => {
                Entered::Queued(Queued { connections: self.clone(), client, _place: place })
            }
            _ => Entered::Full,
        }
    }

    fn admit(self: &Arc<Self>, client: Client, slot: OwnedSemaphorePermit) -> Member {
        let phase = Phase::New { since: Instant::now() };
        let snapshot = Snapshot { phase, is_sending: false, has_unread: false, evicted: None };
        let (snapshot, changed) = (Mutex::new(snapshot), Notify::new());
        let connection = Arc::new(Connection { client, snapshot, changed });
        let mut state = self.lock();
        let id = state.ticket();
        let entry = Entry { place: None, connection: connection.clone(), _slot: slot };
        state.entries.insert(id, entry);
        state.wait(id);
        drop(state);
        Member { connections: self.clone(), id, connection }
    }

    /// Closes the connection that has been without a request in progress for longest, or else the one whose body is
    /// slowest. Whether there is one.
    pub(super) fn evict(&self) -> bool {
        let mut state = self.lock();
        if state.evict_waiting(Refusal::too_many_connections(self.most)) {
            return true;
        }
        let key = |upload: &Upload| upload.is_slow(Duration::ZERO).then_some(upload.pace.slow_at);
        state.evict_upload(key, Upload::slow).is_some()
    }

    /// When the next body is slow, unless more of it arrives.
    fn next_slow(&self) -> Option<Instant> {
        self.lock().uploads().map(|upload| upload.pace.slow_at).min()
    }

    /// Whether a connection has a complete response of which, for all that is known here, bytes are left to send. A client
    /// that has read all of it may connect anew before this changes.
    fn is_any_sending(&self) -> bool {
        self.lock().entries.values().any(|entry| entry.connection.lock().phase == Phase::Sending)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queued {
    /// Waits for another connection to end or to make room.
    pub(super) async fn member(self) -> Option<Member> {
        let Self { connections, client, _place } = self;
        let deadline = Instant::now() + QUEUE_TIMEOUT;
        let mut slot = Box::pin(connections.slots.clone().acquire_owned());
        loop {
            let next = connections.next_slow().map_or(deadline, |next| next.min(deadline));
            tokio::select! {
                biased;
                slot = &mut slot => return Some(connections.admit(client, slot.ok()?)),
                () = connections.sent.notified() => {}
                () = sleep_until(next) => {}
            }
            // The slot goes to the first in the queue; the others have evicted one each, too.
            if connections.evict() {
                let slot = timeout_at(deadline + QUEUE_TIMEOUT, slot).await.ok()?;
                return Some(connections.admit(client, slot.ok()?));
            }
            if Instant::now() >= deadline {
                return None;
            }
        }
    }
}

impl State {
    fn ticket(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Removes the connection that waits for longest, which then closes.
    fn evict_waiting(&mut self, refusal: Refusal) -> bool {
        let Some((_, id)) = self.waiting.pop_first() else { return false };
        if let Some(entry) = self.entries.remove(&id) {
            entry.connection.change(|snapshot| snapshot.evicted = Some(refusal));
        }
        true
    }

    /// The bodies that are arriving.
    fn uploads(&self) -> impl Iterator<Item = Upload> {
        self.entries.iter().filter_map(|(id, entry)| {
            let pace = entry.connection.lock().upload()?;
            Some(Upload { id: *id, client: entry.connection.client, pace })
        })
    }

    /// Removes the connection whose body has the least key, which then closes.
    fn evict_upload<K: Ord>(
        &mut self,
        key: impl Fn(&Upload) -> Option<K>,
        refusal: impl Fn(&Upload) -> Refusal,
    ) -> Option<Upload> {
        loop {
            let keys = self.uploads().filter_map(|upload| Some((key(&upload)?, upload)));
            let (_, upload) = keys.min_by(|(first, _), (second, _)| first.cmp(second))?;
            let entry = self.entries.get(&upload.id)?;
            // Its last bytes may just have arrived.
            if entry.connection.evict_upload(refusal(&upload)) {
                self.entries.remove(&upload.id);
                return Some(upload);
            }
        }
    }

    /// Puts a connection at the end of those that wait.
    fn wait(&mut self, id: u64) {
        let place = self.ticket();
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.place = Some(place);
            self.waiting.insert(place, id);
        }
    }

    fn stop_waiting(&mut self, id: u64) {
        let place = self.entries.get_mut(&id).and_then(|entry| entry.place.take());
        if let Some(place) = place {
            self.waiting.remove(&place);
        }
    }
}

impl Snapshot {
    /// The pace of a body for whose rest the connection waits, if it may be evicted.
    fn upload(&self) -> Option<Pace> {
        match self.phase {
            Phase::Body(pace) if !self.is_sending && self.evicted.is_none() => Some(pace),
            _ => None,
        }
    }
}

impl Connection {
    fn lock(&self) -> MutexGuard<'_, Snapshot> {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Snapshot)) {
        change(&mut self.lock());
        self.changed.notify_one();
    }

    /// Evicts the connection unless its body has arrived; whether it did.
    fn evict_upload(&self, refusal: Refusal) -> bool {
        let mut snapshot = self.lock();
        if snapshot.upload().is_none() {
            return false;
        }
        snapshot.evicted = Some(refusal);
        self.changed.notify_one();
        true
    }
}

impl Member {
    /// Waits until the phase changes.
    pub(super) async fn changed(&self) {
        self.connection.changed.notified().await;
    }

    /// The current phase, and whether it is evicted.
    pub(super) fn snapshot(&self) -> Snapshot {
        self.connection.lock().clone()
    }

    /// Whether the rest of a body was not waited for.
    pub(super) fn has_unread(&self) -> bool {
        self.connection.lock().has_unread
    }

    pub(super) fn client(&self) -> Client {
        self.connection.client
    }

    /// Bytes have arrived.
    pub(super) fn received(&self) {
        if matches!(self.phase(), Phase::New { .. } | Phase::Idle { .. }) {
            let phase = Phase::Header { since: Instant::now() };
            self.connection.change(|snapshot| snapshot.phase = phase);
        }
    }

    /// All bytes written so far have been sent.
    pub(super) fn flushed(&self) {
        self.connection.lock().is_sending = false;
        if self.phase() == Phase::Sending {
            self.connections.lock().wait(self.id);
            let phase = Phase::Idle { since: Instant::now() };
            self.connection.change(|snapshot| snapshot.phase = phase);
            self.connections.sent.notify_one();
        }
    }

    /// A request's header is complete.
    pub(super) fn begin(self: &Arc<Self>) -> Busy {
        self.connections.lock().stop_waiting(self.id);
        self.connection.change(|snapshot| {
            snapshot.is_sending |= snapshot.phase == Phase::Sending;
            snapshot.phase = Phase::Busy;
        });
        Busy(self.clone())
    }

    /// The request has a body, which arrives from now on.
    pub(super) fn expect_body(&self) {
        self.connection.lock().phase = Phase::Body(Pace::new(Instant::now()));
    }

    /// Bytes of the body have arrived.
    pub(super) fn received_body(&self, bytes: u64) {
        if let Phase::Body(pace) = &mut self.connection.lock().phase {
            pace.received(Instant::now(), bytes);
        }
    }

    /// The body has arrived if `is_whole`, or its rest is not waited for.
    pub(super) fn complete(&self, is_whole: bool) {
        let mut snapshot = self.connection.lock();
        snapshot.has_unread |= !is_whole;
        if matches!(snapshot.phase, Phase::Body(_)) && snapshot.evicted.is_none() {
            snapshot.phase = Phase::Busy;
        }
    }

    /// Closes connections whose bodies have these bytes of the memory for requests: bodies that have long been slow, and
    /// if this member's client is within its share, bodies of clients that are not. Whether there are enough.
    pub(super) fn make_room(&self, memory: &Budget, bytes: u64) -> bool {
        let is_entitled = memory.is_within_share(self.client(), bytes);
        let slow = |upload: &Upload| {
            let is_slow = upload.is_slow(MEMORY_GRACE) && upload.pace.bytes > 0;
            (is_slow && upload.id != self.id).then_some(upload.pace.slow_at)
        };
        let over_share = |upload: &Upload| {
            let is_over_share = is_entitled && !memory.is_within_share(upload.client, 0);
            is_over_share.then_some(Reverse(upload.pace.bytes))
        };
        let mut state = self.connections.lock();
        let mut freed = 0;
        while freed < bytes {
            let evicted = state.evict_upload(slow, Upload::slow);
            let evicted =
                evicted.or_else(|| state.evict_upload(over_share, |_| Refusal::over_share()));
            let Some(evicted) = evicted else { return false };
            freed += evicted.pace.bytes;
        }
        true
    }

    fn phase(&self) -> Phase {
        self.connection.lock().phase
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.connection.change(|snapshot| snapshot.phase = Phase::Sending);
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut state = self.connections.lock();
        state.stop_waiting(self.id);
        state.entries.remove(&self.id);
    }
}

#[cfg(test)]
mod tests;
