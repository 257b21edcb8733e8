//! Ranks that are threads of one process: for tests, and for trying out what needs several.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::{Link, Others};
use crate::error::Result;
use crate::watch::{Watch, lock};

/// Where the ranks lay down what they send. A round ends when everybody has read it.
#[derive(Debug)]
struct Table {
    places: Vec<Option<Arc<[u8]>>>,
    readers: usize,
}

/// What the ranks share.
#[derive(Debug)]
pub(crate) struct Hub {
    table: Mutex<Table>,
    changed: Condvar,
    /// Those of parts, by their first rank.
    parts: Mutex<BTreeMap<usize, Arc<Hub>>>,
}

impl Hub {
    pub(crate) fn new(world_size: usize) -> Arc<Self> {
        let table = Table { places: vec![None; world_size], readers: 0 };
        Arc::new(Self {
            table: Mutex::new(table),
            changed: Condvar::new(),
            parts: Mutex::default(),
        })
    }
}

/// A rank's place at the table.
#[derive(Debug)]
pub(crate) struct ThreadLink {
    hub: Arc<Hub>,
    watch: Arc<Watch>,
    rank: usize,
}

impl ThreadLink {
    /// The place of the rank with the number `rank` among those who share `hub`.
    pub(crate) fn new(hub: Arc<Hub>, watch: Arc<Watch>, rank: usize) -> Self {
        Self { hub, watch, rank }
    }

    fn wait<T>(&self, mut ready: impl FnMut(&mut Table) -> Option<T>) -> Result<T> {
        let mut table = lock(&self.hub.table);
        loop {
            if let Some(value) = ready(&mut table) {
                self.hub.changed.notify_all();
                return Ok(value);
            }
            self.watch.check()?;
            let woken = self.hub.changed.wait_timeout(table, Duration::from_millis(20));
            table = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Lays `mine` down and takes what all have laid down.
    fn exchange(&self, mine: &[u8]) -> Result<Vec<Arc<[u8]>>> {
        let mine: Arc<[u8]> = mine.into();
        self.wait(|table| {
            let place = &mut table.places[self.rank];
            place.is_none().then(|| *place = Some(Arc::clone(&mine)))
        })?;
        self.wait(|table| {
            let all: Vec<_> = table.places.iter().flatten().cloned().collect();
            if all.len() < table.places.len() {
                return None;
            }
            table.readers += 1;
            if table.readers == all.len() {
                table.readers = 0;
                table.places.fill(None);
            }
            Some(all)
        })
    }
}

impl Link for ThreadLink {
    fn all_gather(&mut self, mine: &[u8], all: &mut [u8], _others: Others) -> Result<()> {
        let laid = self.exchange(mine)?;
        if !mine.is_empty() {
            for (place, data) in all.chunks_exact_mut(mine.len()).zip(laid) {
                place.copy_from_slice(&data);
            }
        }
        Ok(())
    }

    fn all_to_all(&mut self, sent: &[u8], received: &mut [u8]) -> Result<()> {
        let laid = self.exchange(sent)?;
        let part = sent.len() / laid.len();
        if part > 0 {
            for (place, data) in received.chunks_exact_mut(part).zip(laid) {
                place.copy_from_slice(&data[self.rank * part..][..part]);
            }
        }
        Ok(())
    }

    fn broadcast(&mut self, data: &mut [u8], root: usize) -> Result<()> {
        let mine: &[u8] = if self.rank == root { data } else { &[] };
        let laid = self.exchange(mine)?;
        data.copy_from_slice(&laid[root]);
        Ok(())
    }

    fn split(&mut self, first: usize, rank: usize, size: usize) -> Result<Box<dyn Link>> {
        let mut parts = lock(&self.hub.parts);
        let hub = Arc::clone(parts.entry(first).or_insert_with(|| Hub::new(size)));
        Ok(Box::new(Self::new(hub, Arc::clone(&self.watch), rank)))
    }

    fn close(self: Box<Self>) {}
}
