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

use crate::error::{Result, check};
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
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupSpan {
    /// Rows of the prompt.
    pub prompt: Range<usize>,
    /// Rows of each completion, end to end behind the prompt.
    pub completions: Vec<Range<usize>>,
    /// The prompt's first tokens that are only looked at: they have no rows among queries and results.
    pub silent: usize,
}

impl GroupSpan {
    /// Tokens that have queries.
    fn queries(&self) -> usize {
        self.rows().len() - self.silent
    }

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
        let (start, silent) = (self.prompt.start, self.silent);
        let prompt = self.prompt.end - start;
        let of = move |own: &Range<usize>, context| Segment {
            context,
            own: own.start - start..own.end - start,
        };
        std::iter::once(of(&self.prompt, 0))
            .chain(self.completions.iter().map(move |own| of(own, prompt)))
            .filter(move |segment| segment.own.end > segment.own.start.max(silent))
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
    let (q, k, v) = (floats(q, OP)?, floats(k, OP)?, floats(v, OP)?);
    let groups = groups(spans);
    let parts: Vec<Part> = tasks(&groups, heads)
        .map(|(group, kv_head)| attend(group, kv_head, (&q, &k, &v), pattern))
        .collect();
    let (shared, dim) = (heads.shared(), heads.dim);
    let out =
        assemble(&parts, &groups, heads, shared * dim, |group| group.queries(), |part| &part.out);
    let lse =
        assemble(&parts, &groups, heads, shared, |group| group.queries(), |part| &part.log_sum_exp);
    let queries = lse.len() / heads.query.max(1);
    Ok(Attended {
        out: tensor(out, (queries, heads.query_width()))?,
        log_sum_exp: tensor(lse, (queries, heads.query))?,
    })
}

/// A group's span, and where its queries begin.
#[derive(Clone, Copy)]
struct Group<'a> {
    span: &'a GroupSpan,
    first_query: usize,
}

impl Group<'_> {
    /// Rows of its queries.
    fn queries(&self) -> Range<usize> {
        self.first_query..self.first_query + self.span.queries()
    }

    /// Rows of its keys.
    fn keys(&self) -> Range<usize> {
        self.span.rows()
    }
}

fn groups(spans: &[GroupSpan]) -> Vec<Group<'_>> {
    let of = |next: &mut usize, span| {
        let first_query = *next;
        *next += GroupSpan::queries(span);
        Some(Group { span, first_query })
    };
    spans.iter().scan(0, of).collect()
}

/// The result for one group and one key and value head, rows within the group.
struct Part {
    out: Vec<f32>,
    log_sum_exp: Vec<f32>,
}

fn attend(
    group: &Group<'_>,
    kv_head: usize,
    (q, k, v): (&[f32], &[f32], &[f32]),
    pattern: Pattern,
) -> Part {
    let heads = pattern.heads;
    let (silent, queries) = (group.span.silent, group.span.queries());
    let width = heads.shared() * heads.dim;
    let mut part =
        Part { out: vec![0.0; queries * width], log_sum_exp: vec![0.0; queries * heads.shared()] };
    let mut block = Block::new(pattern, kv_head, group);
    for segment in group.span.segments() {
        for queries in segment.blocks(BLOCK, silent) {
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
fn tasks<'a>(
    groups: &'a [Group<'a>],
    heads: Heads,
) -> impl IndexedParallelIterator<Item = (&'a Group<'a>, usize)> {
    (0..groups.len() * heads.kv)
        .into_par_iter()
        .with_max_len(1)
        .map(move |task| (&groups[task / heads.kv], task % heads.kv))
}

/// Puts the heads' parts side by side: `width` numbers a kv head for each of the groups' rows.
fn assemble<P: Sync>(
    parts: &[P],
    groups: &[Group<'_>],
    heads: Heads,
    width: usize,
    rows: impl Fn(&Group<'_>) -> Range<usize> + Sync,
    of: impl Fn(&P) -> &Vec<f32> + Sync,
) -> Vec<f32> {
    let row_width = heads.kv * width;
    let all = groups.last().map_or(0, |group| rows(group).end);
    parallel::filled(all, row_width, |first, filled| {
        let mut group = groups.partition_point(|group| rows(group).end <= first);
        for (i, row) in filled.chunks_mut(row_width).enumerate() {
            while rows(&groups[group]).end <= first + i {
                group += 1;
            }
            let local = first + i - rows(&groups[group]).start;
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
) -> Result<()> {
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
