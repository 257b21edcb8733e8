//! Which logits of a step belong to which sequences.

/// The logits of a chunk.
pub(super) struct LogitRows {
    /// Index of its group among the running ones.
    pub(super) group: usize,
    /// Position of its first token.
    pub(super) position: usize,
    /// Number of logit rows; those of all its tokens if the group's prompt log-probabilities are requested.
    pub(super) rows: usize,
    /// Whether the next token is sampled from the last row.
    pub(super) is_ready: bool,
}
