//! Grouped-query attention over packed sequences that share prompts, causal or bidirectional.
//!
//! A batch is packed: for each group its prompt, then its completions. Each completion attends to the whole prompt
//! and causally to itself, optionally within a sliding window. Keys and values are stored in pages; the completions
//! of a group share their prompt's pages, so training runs the forward of sampling. Only the scores of a few queries
//! with one page exist at a time; the backward recomputes them from the saved log-sum-exp.

mod backward;
mod pages;

use std::ops::Range;

use candle_core::Tensor;

use crate::device::on_device;
use crate::error::{Result, check};
use crate::memory::floats;
use crate::paged_attention;
pub use backward::{AttentionGradients, backward, workspace_elements};
use pages::{PageData, PageTable};

const OP: &str = "attention";

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

    fn is_contiguous(&self) -> bool {
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

/// Attention with scores `q · k / sqrt(dim)` under `pattern`.
///
/// # Shapes
/// `q` (tokens without the `kv_only` ones, query heads · dim), `k` and `v` (tokens, kv heads · dim); `spans` cover
/// the tokens contiguously.
///
/// # Errors
/// The shapes or spans do not fit, the window is 0, or a tensor is not contiguous `f32` on the CPU.
pub fn forward(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    spans: &[GroupSpan],
    pattern: Pattern,
) -> Result<AttentionOutput> {
    let heads = pattern.heads;
    check_shapes(q, k, v, spans, pattern)?;
    on_device!(q, attention::forward(q, k, v, spans, pattern));
    let table = PageTable::new(spans, heads);
    let pages = PageData::new(&table, &floats(k, OP)?, &floats(v, OP)?)?;
    let chunks = table.chunks(&pages, pattern.causal);
    paged_attention::forward(q, &chunks, heads, pattern.window)
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
        format!("{} query heads are not a multiple of {} KV heads", heads.query, heads.kv)
    })?;
    check(window != Some(0), OP, || "the sliding window must be at least 1".into())?;
    check(causal || window.is_none(), OP, || "a sliding window needs causal attention".into())?;
    check(width == heads.q_size(), OP, || "the query size differs from the heads'".into())?;
    let kv = [tokens, heads.kv_size()];
    check(k.dims() == kv && v.dims() == kv, OP, || "the shape of keys or values is wrong".into())?;
    let mut end = 0;
    let contiguous = spans.iter().all(|span| {
        let follows = span.prompt.start == end && span.is_contiguous();
        end = span.rows().end;
        follows
    });
    check(contiguous && end == tokens, OP, || "the spans do not cover the tokens".into())?;
    let kv_only: usize = spans.iter().map(|span| span.kv_only).sum();
    check(spans.iter().all(|span| span.kv_only <= span.prompt.len()), OP, || {
        "`kv_only` exceeds the prompt length".into()
    })?;
    check(queries + kv_only == tokens, OP, || {
        format!("{queries} queries for {tokens} tokens, {kv_only} of them keys and values only")
    })
}

#[cfg(test)]
mod tests;
