//! The open connections and what each waits for.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::limits::HttpLimits;
use crate::refusal::Refusal;

/// The open connections.
#[derive(Debug)]
pub(super) struct Connections {
    most: usize,
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
}

/// What the registry and a connection's task share.
#[derive(Debug)]
struct Connection {
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
    /// The rest of a request's body, or of its response.
    Busy,
    /// Its client, to read the rest of a complete response.
    Sending,
    /// The first byte of another request.
    Idle { since: Instant },
}

/// A connection's phase, and whether the connection must make room for another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Snapshot {
    pub(super) phase: Phase,
    is_evicted: bool,
}

/// Why a connection is closed before its client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    TimedOut,
    Evicted,
    Closing,
}

impl Reason {
    /// The response if the client has begun a request.
    pub(super) fn refusal(self, limits: &HttpLimits) -> Refusal {
        match self {
            Self::TimedOut => Refusal::header_timeout(limits.timeout_header),
            Self::Evicted => Refusal::too_many_connections(limits.limit_concurrency),
            Self::Closing => Refusal::stopping(),
        }
    }
}

impl Snapshot {
    /// Why the connection must be closed now, if it must.
    pub(super) fn ended(&self, limits: &HttpLimits, is_closing: bool) -> Option<Reason> {
        let is_late = Instant::now() >= self.deadline(limits)?;
        match (self.is_evicted, is_closing, is_late) {
            (true, _, _) => Some(Reason::Evicted),
            (_, true, _) => Some(Reason::Closing),
            (_, _, true) => Some(Reason::TimedOut),
            _ => None,
        }
    }

    /// When the client will have taken too long; `None` during a request.
    pub(super) fn deadline(&self, limits: &HttpLimits) -> Option<Instant> {
        match self.phase {
            Phase::New { since } | Phase::Header { since } => Some(since + limits.timeout_header),
            Phase::Idle { since } => Some(since + limits.timeout_keep_alive),
            Phase::Busy | Phase::Sending => None,
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

impl Connections {
    /// A registry of up to `most` connections.
    pub(super) fn new(most: usize) -> Self {
        Self { most, state: Mutex::default() }
    }

    /// Adds a connection, in place of another if the limit is reached. `None` if all have requests in progress.
    pub(super) fn enter(self: &Arc<Self>) -> Option<Member> {
        let mut state = self.lock();
        if state.entries.len() >= self.most && !state.evict() {
            return None;
        }
        let phase = Phase::New { since: Instant::now() };
        let snapshot = Mutex::new(Snapshot { phase, is_evicted: false });
        let connection = Arc::new(Connection { snapshot, changed: Notify::new() });
        let id = state.ticket();
        state.entries.insert(id, Entry { place: None, connection: connection.clone() });
        state.wait(id);
        drop(state);
        Some(Member { connections: self.clone(), id, connection })
    }

    /// Closes the connection that has been without a request in progress for longest.
    pub(super) fn evict(&self) {
        self.lock().evict();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn ticket(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Removes an entry, whose connection then closes.
    fn evict(&mut self) -> bool {
        let Some((_, id)) = self.waiting.pop_first() else { return false };
        if let Some(entry) = self.entries.remove(&id) {
            entry.connection.change(|snapshot| snapshot.is_evicted = true);
        }
        true
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

impl Connection {
    fn lock(&self) -> MutexGuard<'_, Snapshot> {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Snapshot)) {
        change(&mut self.lock());
        self.changed.notify_one();
    }
}

impl Member {
    /// Waits until the phase changes.
    pub(super) async fn changed(&self) {
        self.connection.changed.notified().await;
    }

    /// The current phase, and whether it is evicted.
    pub(super) fn snapshot(&self) -> Snapshot {
        *self.connection.lock()
    }

    /// Bytes have arrived.
    pub(super) fn received(&self) {
        if matches!(self.snapshot().phase, Phase::New { .. } | Phase::Idle { .. }) {
            let phase = Phase::Header { since: Instant::now() };
            self.connection.change(|snapshot| snapshot.phase = phase);
        }
    }

    /// All bytes written so far have been sent.
    pub(super) fn flushed(&self) {
        if self.snapshot().phase == Phase::Sending {
            self.connections.lock().wait(self.id);
            let phase = Phase::Idle { since: Instant::now() };
            self.connection.change(|snapshot| snapshot.phase = phase);
        }
    }

    /// A request's header is complete.
    pub(super) fn begin(self: &Arc<Self>) -> Busy {
        self.connections.lock().stop_waiting(self.id);
        self.connection.change(|snapshot| snapshot.phase = Phase::Busy);
        Busy(self.clone())
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
mod tests {
    use std::time::Duration;

    use super::*;

    fn is_evicted(member: &Member) -> bool {
        member.snapshot().is_evicted
    }

    #[test]
    fn a_new_connection_replaces_the_one_that_waits_for_longest() {
        let connections = Arc::new(Connections::new(3));
        let [first, second, third] =
            std::array::from_fn(|_| Arc::new(connections.enter().unwrap()));
        let busy = first.begin();
        let fourth = connections.enter().unwrap();
        assert_eq!(
            [&first, &second, &third].map(|member| is_evicted(member)),
            [false, true, false]
        );
        drop(busy);
        first.flushed();
        let _fifth = connections.enter().unwrap();
        assert_eq!([&first, &third].map(|member| is_evicted(member)), [false, true]);
        assert!(!is_evicted(&fourth));
    }

    #[test]
    fn a_connection_is_refused_while_all_have_requests_in_progress() {
        let connections = Arc::new(Connections::new(1));
        let member = Arc::new(connections.enter().unwrap());
        let busy = member.begin();
        assert!(connections.enter().is_none());
        // Until its response is sent, a client must not be disconnected.
        drop(busy);
        assert!(connections.enter().is_none());
        drop(member);
        assert!(connections.enter().is_some());
    }

    #[test]
    fn a_header_is_timed_from_its_first_byte_and_an_idle_connection_from_its_last_response() {
        let limits = HttpLimits {
            limit_concurrency: 1,
            timeout_header: Duration::from_secs(10),
            timeout_body: Duration::from_secs(30),
            timeout_send: Duration::from_secs(60),
            timeout_keep_alive: Duration::from_secs(75),
            request_memory_bytes: 1 << 20,
            max_prompt_pixels: 1,
        };
        let connections = Arc::new(Connections::new(1));
        let member = Arc::new(connections.enter().unwrap());
        let until = |member: &Member| member.snapshot().deadline(&limits).unwrap() - Instant::now();
        assert!(until(&member) <= limits.timeout_header);
        drop(member.begin());
        assert_eq!(member.snapshot().deadline(&limits), None);
        member.flushed();
        assert!(matches!(member.snapshot().phase, Phase::Idle { .. }));
        assert!(until(&member) > limits.timeout_header);
        member.received();
        assert!(matches!(member.snapshot().phase, Phase::Header { .. }));
        assert!(until(&member) <= limits.timeout_header);
        assert!(member.snapshot().ended(&limits, false).is_none());
        assert_eq!(member.snapshot().ended(&limits, true), Some(Reason::Closing));
    }
}
