//! What went over the wire, as counted.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::operation::Operation;
use crate::watch::lock;

/// What one kind of operation cost this rank so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Traffic {
    /// How often it was called.
    pub calls: u64,
    /// Bytes that this rank gave for other ranks: what goes to several counts for each. Padding and the
    /// agreement before each call are in it; what a backend adds by itself is not.
    pub bytes_sent: u64,
}

/// Traffic by operation.
#[derive(Debug, Default)]
pub(crate) struct Counters(Mutex<BTreeMap<Operation, Traffic>>);

impl Counters {
    pub(crate) fn call(&self, operation: Operation) {
        lock(&self.0).entry(operation).or_default().calls += 1;
    }

    pub(crate) fn sent(&self, operation: Operation, bytes: usize) {
        lock(&self.0).entry(operation).or_default().bytes_sent += bytes as u64;
    }

    pub(crate) fn read(&self) -> BTreeMap<Operation, Traffic> {
        lock(&self.0).clone()
    }
}
