//! Causal attention with grouped queries over packed sequences that share prompts.
//!
//! The tokens of a batch lie end to end: for each group its prompt, then its completions. Every
//! completion sees the whole prompt and its own tokens up to itself, or the part of them that lies
//! in a sliding window. Scores exist for one block of
//! queries at a time; the backward computes them again from the log-sum-exp that the forward keeps.

mod backward;
mod block;

use std::ops::Range;

use candle_core::Tensor;
use rayon::prelude::*;

use crate::error::{Error, Result, check};
use crate::memory::{floats, tensor};
use crate::parallel;
pub use backward::{Gradients, backward};
use block::{Block, Segment};

const OP: &str = "attention";

/// Queries of a block: their scores against some thousand keys stay in the cache.
const BLOCK: usize = 64;

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
}

impl Pattern {
    /// The first position that the query at `position` sees.
    fn first_seen(&self, position: usize) -> usize {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }
}

/// Where the tokens of a group lie in the batch: the prompt, and behind it the completions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSpan {
    /// Rows of the prompt.
    pub prompt: Range<usize>,
    /// Rows of each completion, end to end behind the prompt.
    pub completions: Vec<Range<usize>>,
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

    /// The prompt, then the completions behind it, as rows within the group.
    fn segments(&self) -> impl Iterator<Item = Segment> + '_ {
        let start = self.prompt.start;
        let prompt = self.prompt.end - start;
        let of = move |own: &Range<usize>, context| Segment {
            context,
            own: own.start - start..own.end - start,
        };
        std::iter::once(of(&self.prompt, 0))
            .chain(self.completions.iter().map(move |own| of(own, prompt)))
            .filter(|segment| !segment.own.is_empty())
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
/// Where a single group's prompt was computed before, its queries may be left out: then `q` and the
/// output begin with the first completion, and `k` and `v` with the prompt.
///
/// # Shapes
/// `q` (tokens, query heads · dim), `k` and `v` (tokens, kv heads · dim); `spans` cover the tokens,
/// end to end.
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
    let rows = check_shapes(q, k, v, spans, pattern)?;
    let (q, k, v) = (floats(q, OP)?, floats(k, OP)?, floats(v, OP)?);
    let parts: Vec<Part> = tasks(spans, heads)
        .map(|(span, kv_head)| attend(span, kv_head, (&q, &k, &v), pattern, rows))
        .collect();
    let (shared, dim) = (heads.shared(), heads.dim);
    let out = assemble(&parts, spans, heads, (shared * dim, rows.silent), |part| &part.out);
    let log_sum_exp = assemble(&parts, spans, heads, (shared, rows.silent), |p| &p.log_sum_exp);
    Ok(Attended {
        out: tensor(out, (rows.queries(), heads.query_width()))?,
        log_sum_exp: tensor(log_sum_exp, (rows.queries(), heads.query))?,
    })
}

/// Rows of keys and values, and how many of the first have no query.
#[derive(Debug, Clone, Copy)]
struct Rows {
    tokens: usize,
    silent: usize,
}

impl Rows {
    fn queries(self) -> usize {
        self.tokens - self.silent
    }
}

/// The result for one group and one key and value head, rows within the group.
struct Part {
    out: Vec<f32>,
    log_sum_exp: Vec<f32>,
}

fn attend(
    span: &GroupSpan,
    kv_head: usize,
    (q, k, v): (&[f32], &[f32], &[f32]),
    pattern: Pattern,
    Rows { silent, .. }: Rows,
) -> Part {
    let heads = pattern.heads;
    let (rows, width) = (span.rows(), heads.shared() * heads.dim);
    let mut part = Part {
        out: vec![0.0; (rows.len() - silent) * width],
        log_sum_exp: vec![0.0; (rows.len() - silent) * heads.shared()],
    };
    let mut block = Block::new(pattern, kv_head, rows.start, silent);
    for segment in span.segments().filter(|segment| segment.own.start >= silent) {
        for queries in segment.blocks(BLOCK) {
            block.scores(q, k, &segment, queries.clone());
            let (first, end) = (queries.start - silent, queries.end - silent);
            let lse = first * heads.shared()..end * heads.shared();
            block.softmax(&segment, &mut part.log_sum_exp[lse]);
            let out = &mut part.out[first * width..end * width];
            block.weighted(v, &segment, out);
        }
    }
    part
}

/// Every (group, kv head), in parallel, in order.
fn tasks(
    spans: &[GroupSpan],
    heads: Heads,
) -> impl IndexedParallelIterator<Item = (&GroupSpan, usize)> {
    (0..spans.len() * heads.kv)
        .into_par_iter()
        .with_max_len(1)
        .map(move |task| (&spans[task / heads.kv], task % heads.kv))
}

/// Puts the heads' parts side by side: `width` numbers a token and kv head, without the first `silent`
/// tokens.
fn assemble<P: Sync>(
    parts: &[P],
    spans: &[GroupSpan],
    heads: Heads,
    (width, silent): (usize, usize),
    of: impl Fn(&P) -> &Vec<f32> + Sync,
) -> Vec<f32> {
    let row_width = heads.kv * width;
    let tokens = spans.last().map_or(0, |span| span.rows().end);
    parallel::filled(tokens - silent, row_width, |first, rows| {
        let first = first + silent;
        let mut group = spans.partition_point(|span| span.rows().end <= first);
        for (i, row) in rows.chunks_mut(row_width).enumerate() {
            while spans[group].rows().end <= first + i {
                group += 1;
            }
            let local = first + i - spans[group].prompt.start - silent;
            for (kv_head, out) in row.chunks_mut(width).enumerate() {
                let part = of(&parts[group * heads.kv + kv_head]);
                out.copy_from_slice(&part[local * width..(local + 1) * width]);
            }
        }
    })
}

fn check_shapes(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    spans: &[GroupSpan],
    Pattern { heads, window }: Pattern,
) -> Result<Rows> {
    let ((queries, width), (tokens, _)) = (q.dims2()?, k.dims2()?);
    check(heads.kv > 0 && heads.query.is_multiple_of(heads.kv), OP, || {
        format!("{} query heads cannot share {} key heads", heads.query, heads.kv)
    })?;
    check(window != Some(0), OP, || "a window of 0 tokens shows nothing".into())?;
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
    let silent = tokens.checked_sub(queries);
    let prompt = match spans {
        [span] => span.prompt.len(),
        _ => 0,
    };
    match silent {
        Some(silent) if silent == 0 || silent == prompt => Ok(Rows { tokens, silent }),
        _ => {
            let what =
                format!("{queries} queries for {tokens} keys, of which the prompt has {prompt}");
            Err(Error::Shape { op: OP, what })
        }
    }
}

#[cfg(test)]
mod tests;
