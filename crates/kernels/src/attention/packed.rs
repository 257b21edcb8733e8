//! Heads, patterns, and where groups are in a packed batch.

use std::ops::Range;

use candle_core::Tensor;

/// Head counts and head size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// Query heads; a multiple of `kv`.
    pub query: usize,
    /// Key and value heads.
    pub kv: usize,
    /// Head size.
    pub dim: usize,
}

impl Heads {
    /// Query heads per key and value head.
    pub fn queries_per_kv(&self) -> usize {
        self.query / self.kv
    }

    /// Size of a token's queries, over all heads.
    pub fn q_size(&self) -> usize {
        self.query * self.dim
    }

    /// Size of a token's keys, and of its values, over all heads.
    pub fn kv_size(&self) -> usize {
        self.kv * self.dim
    }
}

/// Attention pattern: heads, sliding window, causality.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pattern {
    /// The heads.
    pub heads: Heads,
    /// Sliding-window size: the most recent tokens that a query attends to, including itself; `None` is full
    /// attention. A completion's window extends into its prompt.
    pub window: Option<usize>,
    /// Whether attention is causal. Otherwise a query attends to its whole sequence: its prompt and, for completions,
    /// its own tokens.
    pub causal: bool,
}

/// Rows of a group in the batch: the prompt, followed by the completions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSpan {
    /// Rows of the prompt.
    pub prompt: Range<usize>,
    /// Rows of each completion, contiguous after the prompt.
    pub completions: Vec<Range<usize>>,
    /// Leading prompt tokens that contribute keys and values only: they have no rows in the queries and the output.
    pub kv_only: usize,
}

impl GroupSpan {
    /// All rows of the group.
    pub fn rows(&self) -> Range<usize> {
        let end = self.completions.last().map_or(self.prompt.end, |last| last.end);
        self.prompt.start..end
    }

    pub(super) fn is_contiguous(&self) -> bool {
        let mut end = self.prompt.end;
        self.completions.iter().all(|c| {
            let follows = c.start == end && c.end >= c.start;
            end = c.end;
            follows
        })
    }
}

/// Attention output, with what the backward needs.
pub struct AttentionOutput {
    /// Attention output (tokens, query heads · dim).
    pub out: Tensor,
    /// Log-sum-exp of each query's scores (tokens, query heads).
    pub log_sum_exp: Tensor,
}
