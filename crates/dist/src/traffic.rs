//! Traffic counters.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::operation::Operation;
use crate::rank_state::lock;

/// The traffic of one kind of operation on this rank so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Traffic {
    /// The number of calls.
    pub calls: u64,
    /// Bytes that this rank sent, counted once per receiver. Includes padding and the header exchange before each
    /// call, but no overhead of the backend.
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
