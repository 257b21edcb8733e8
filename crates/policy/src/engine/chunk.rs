//! The part of a sequence in a batch.

use std::ops::Range;

/// Consecutive tokens of one sequence in a batch.
#[derive(Clone)]
pub(super) struct SequenceChunk {
    /// Their rows in the batch.
    pub(super) rows: Range<usize>,
    /// Position of the first.
    pub(super) position: usize,
    /// The sequence's pages, from its start up to the last of these tokens.
    pub(super) pages: Vec<usize>,
    /// How many of the last tokens' logits are needed.
    pub(super) logits: usize,
}
