//! The in-process backend: ranks are threads. For tests and for runs without a launcher.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::{Link, Polling};
use crate::error::Result;
use crate::rank_state::{RankState, lock};

/// One message slot per rank. A round ends when every rank has read all slots.
#[derive(Debug)]
struct Round {
    slots: Vec<Option<Arc<[u8]>>>,
    readers: usize,
}

/// The memory through which the ranks of a group exchange data.
#[derive(Debug)]
pub(crate) struct Exchange {
    round: Mutex<Round>,
    changed: Condvar,
    /// The exchanges of subgroups, by their first rank.
    subgroups: Mutex<BTreeMap<usize, Arc<Exchange>>>,
}

impl Exchange {
    pub(crate) fn new(world_size: usize) -> Arc<Self> {
        let round = Round { slots: vec![None; world_size], readers: 0 };
        Arc::new(Self {
            round: Mutex::new(round),
            changed: Condvar::new(),
            subgroups: Mutex::default(),
        })
    }
}

/// A rank's end of an [`Exchange`].
#[derive(Debug)]
pub(crate) struct ThreadLink {
    exchange: Arc<Exchange>,
    rank_state: Arc<RankState>,
    rank: usize,
}

impl ThreadLink {
    /// Rank `rank` of the group that shares `exchange`.
    pub(crate) fn new(exchange: Arc<Exchange>, rank_state: Arc<RankState>, rank: usize) -> Self {
        Self { exchange, rank_state, rank }
    }

    fn wait<T>(&self, mut ready: impl FnMut(&mut Round) -> Option<T>) -> Result<T> {
        let mut round = lock(&self.exchange.round);
        loop {
            if let Some(value) = ready(&mut round) {
                self.exchange.changed.notify_all();
                return Ok(value);
            }
            self.rank_state.check()?;
            let woken = self.exchange.changed.wait_timeout(round, Duration::from_millis(20));
            round = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Gathers the messages of all ranks.
    fn gather(&self, mine: &[u8]) -> Result<Vec<Arc<[u8]>>> {
        let mine: Arc<[u8]> = mine.into();
        self.wait(|round| {
            let slot = &mut round.slots[self.rank];
            slot.is_none().then(|| *slot = Some(Arc::clone(&mine)))
        })?;
        self.wait(|round| {
            let all: Vec<_> = round.slots.iter().flatten().cloned().collect();
            if all.len() < round.slots.len() {
                return None;
            }
            round.readers += 1;
            if round.readers == all.len() {
                round.readers = 0;
                round.slots.fill(None);
            }
            Some(all)
        })
    }
}

impl Link for ThreadLink {
    fn all_gather(&mut self, mine: &[u8], all: &mut [u8], _polling: Polling) -> Result<()> {
        let messages = self.gather(mine)?;
        if !mine.is_empty() {
            for (chunk, message) in all.chunks_exact_mut(mine.len()).zip(messages) {
                chunk.copy_from_slice(&message);
            }
        }
        Ok(())
    }

    fn all_to_all(&mut self, sent: &[u8], received: &mut [u8]) -> Result<()> {
        let messages = self.gather(sent)?;
        let length = sent.len() / messages.len();
        if length > 0 {
            for (chunk, message) in received.chunks_exact_mut(length).zip(messages) {
                chunk.copy_from_slice(&message[self.rank * length..][..length]);
            }
        }
        Ok(())
    }

    fn broadcast(&mut self, data: &mut [u8], root: usize) -> Result<()> {
        let mine: &[u8] = if self.rank == root { data } else { &[] };
        let messages = self.gather(mine)?;
        data.copy_from_slice(&messages[root]);
        Ok(())
    }

    fn split(&mut self, first: usize, rank: usize, size: usize) -> Result<Box<dyn Link>> {
        let mut subgroups = lock(&self.exchange.subgroups);
        let exchange = Arc::clone(subgroups.entry(first).or_insert_with(|| Exchange::new(size)));
        Ok(Box::new(Self::new(exchange, Arc::clone(&self.rank_state), rank)))
    }

    fn close(self: Box<Self>) {}
}
