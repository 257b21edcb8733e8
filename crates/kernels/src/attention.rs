//! Attention with grouped queries over packed sequences that share prompts, causal or not.
//!
//! The tokens of a batch lie end to end: for each group its prompt, then its completions. Every
//! completion sees the whole prompt and its own tokens up to itself, or the part of them that lies
//! in a sliding window. Keys and values are put into pages, of which the completions of a group share
//! those of their prompt: the forward is that of sampling. Scores exist for a few queries and a page at a
//! time; the backward computes them again from the log-sum-exp that the forward keeps.

mod backward;
mod pages;

use std::ops::Range;

use candle_core::Tensor;

use crate::device::on_device;
use crate::error::{Result, check};
use crate::memory::floats;
use crate::paged_attention;
pub use backward::{Gradients, backward, working_numbers};
use pages::{Layout, Pages};

const OP: &str = "attention";

/// Numbers of heads and their size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// Query heads; a multiple of `kv`.
    pub query: usize,
    /// Key and value heads.
    pub kv: usize,
    /// Size of a head.
    pub dim: usize,
}

impl Heads {
    /// Query heads that share a key and value head.
    pub fn shared(&self) -> usize {
        self.query / self.kv
    }

    /// Width of a token's queries.
    pub fn query_width(&self) -> usize {
        self.query * self.dim
    }

    /// Width of a token's keys, and of its values.
    pub fn kv_width(&self) -> usize {
        self.kv * self.dim
    }
}

/// Which keys a query attends to, in which heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pattern {
    /// The heads.
    pub heads: Heads,
    /// The number of most recent tokens that a query sees, its own included; `None` means all. A
    /// completion's window reaches back into its prompt.
    pub window: Option<usize>,
    /// Whether a query sees its own token and those before it alone. Otherwise it sees the whole of its
    /// sequence: its prompt, and of the completions its own.
    pub causal: bool,
}

/// Where the tokens of a group lie in the batch: the prompt, and behind it the completions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSpan {
    /// Rows of the prompt.
    pub prompt: Range<usize>,
    /// Rows of each completion, end to end behind the prompt.
    pub completions: Vec<Range<usize>>,
    /// The prompt's first tokens that are only looked at: they have no rows among queries and results.
    pub silent: usize,
}

impl GroupSpan {
    /// All rows of the group.
    pub fn rows(&self) -> Range<usize> {
        let end = self.completions.last().map_or(self.prompt.end, |last| last.end);
        self.prompt.start..end
    }

    fn is_end_to_end(&self) -> bool {
        let mut end = self.prompt.end;
        self.completions.iter().all(|c| {
            let follows = c.start == end && c.end >= c.start;
            end = c.end;
            follows
        })
    }
}

/// What attention gives, and what its backward needs.
pub struct Attended {
    /// The values as each query sees them (tokens, query heads · dim).
    pub out: Tensor,
    /// The log of the sum of the exponentials of a query's scores (tokens, query heads).
    pub log_sum_exp: Tensor,
}

/// Attention with scores `q · k / sqrt(dim)` over the keys that `pattern` shows.
///
/// # Shapes
/// `q` (tokens that are not silent, query heads · dim), `k` and `v` (tokens, kv heads · dim); `spans` cover
/// the tokens, end to end.
///
/// # Errors
/// The shapes or spans do not fit, the window is 0, or a tensor is not contiguous `f32` on the CPU.
pub fn forward(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    spans: &[GroupSpan],
    pattern: Pattern,
) -> Result<Attended> {
    let heads = pattern.heads;
    check_shapes(q, k, v, spans, pattern)?;
    on_device!(q, attention::forward(q, k, v, spans, pattern));
    let layout = Layout::new(spans, heads);
    let pages = Pages::new(&layout, &floats(k, OP)?, &floats(v, OP)?)?;
    let runs = layout.runs(&pages, pattern.causal);
    paged_attention::forward(q, &runs, heads, pattern.window)
}

fn check_shapes(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    spans: &[GroupSpan],
    Pattern { heads, window, causal }: Pattern,
) -> Result<()> {
    let ((queries, width), (tokens, _)) = (q.dims2()?, k.dims2()?);
    check(heads.kv > 0 && heads.query.is_multiple_of(heads.kv), OP, || {
        format!("{} query heads cannot share {} key heads", heads.query, heads.kv)
    })?;
    check(window != Some(0), OP, || "a window of 0 tokens shows nothing".into())?;
    check(causal || window.is_none(), OP, || "a window looks back, not around".into())?;
    check(width == heads.query_width(), OP, || "the queries do not fit the heads".into())?;
    let kv = [tokens, heads.kv_width()];
    check(k.dims() == kv && v.dims() == kv, OP, || "keys or values misfit the queries".into())?;
    let mut end = 0;
    let end_to_end = spans.iter().all(|span| {
        let follows = span.prompt.start == end && span.is_end_to_end();
        end = span.rows().end;
        follows
    });
    check(end_to_end && end == tokens, OP, || "the spans do not cover the tokens".into())?;
    let silent: usize = spans.iter().map(|span| span.silent).sum();
    check(spans.iter().all(|span| span.silent <= span.prompt.len()), OP, || {
        "more tokens of a prompt are silent than it has".into()
    })?;
    check(queries + silent == tokens, OP, || {
        format!("{queries} queries for {tokens} tokens, of which {silent} are silent")
    })
}

#[cfg(test)]
mod tests;
