//! A block of queries of one key and value head: scores, softmax and weighted values.

use std::ops::Range;

use multiversion::multiversion;

use super::{Group, Heads, Pattern};
use crate::math::{exp, exp_sum, max};
use crate::matmul::{Into, Threads, View, ViewMut, product};

/// A run of tokens that see `context` tokens at the group's start, and themselves causally.
/// Rows count within the group.
pub(super) struct Segment {
    pub(super) context: usize,
    pub(super) own: Range<usize>,
}

impl Segment {
    /// The rows in blocks of `size`, without the group's first `silent` ones.
    pub(super) fn blocks(
        &self,
        size: usize,
        silent: usize,
    ) -> impl Iterator<Item = Range<usize>> + use<> {
        let own = self.own.start.max(silent)..self.own.end;
        own.clone().step_by(size).map(move |start| start..own.end.min(start + size))
    }

    /// Tokens before the one in row `row`.
    fn position(&self, row: usize) -> usize {
        self.context + row - self.own.start
    }
}

/// Working memory for the blocks of one task. A row of a block is a (token, query head) pair.
pub(super) struct Block {
    pattern: Pattern,
    kv_head: usize,
    /// Row of the group's first key.
    first_key: usize,
    /// Row of its first query, and the rows before it that have none.
    first_query: usize,
    silent: usize,
    queries: Range<usize>,
    /// Positions of the keys that any of the queries sees.
    keys: Range<usize>,
    /// Scaled queries (rows, dim).
    pub(super) q: Vec<f32>,
    /// Scores, then probabilities (rows, keys).
    pub(super) p: Vec<f32>,
}

impl Block {
    pub(super) fn new(pattern: Pattern, kv_head: usize, group: &Group<'_>) -> Self {
        let (q, p) = (Vec::new(), Vec::new());
        let (first_key, first_query) = (group.span.prompt.start, group.first_query);
        let silent = group.span.silent;
        Self { pattern, kv_head, first_key, first_query, silent, queries: 0..0, keys: 0..0, q, p }
    }

    /// The row in the batch of the queries of a token, which has the row `row` in its group.
    pub(super) fn query_row(&self, row: usize) -> usize {
        self.first_query + row - self.silent
    }

    fn heads(&self) -> Heads {
        self.pattern.heads
    }

    pub(super) fn rows(&self) -> usize {
        self.queries.len() * self.heads().shared()
    }

    pub(super) fn keys(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn scale(&self) -> f32 {
        1.0 / (self.heads().dim as f32).sqrt()
    }

    /// The part of a token's queries (or of anything as wide) that belongs to this kv head.
    pub(super) fn query_part(&self, row: usize) -> Range<usize> {
        let width = self.heads().shared() * self.heads().dim;
        let start = self.query_row(row) * self.heads().query_width() + self.kv_head * width;
        start..start + width
    }

    /// `rows` keys (or values) of this head from `first` on.
    pub(super) fn kv<'a>(&self, kv: &'a [f32], first: usize, rows: usize) -> View<'a> {
        let (width, dim) = (self.heads().kv_width(), self.heads().dim);
        let start = (self.first_key + first) * width + self.kv_head * dim;
        View::strided(&kv[start.min(kv.len())..], rows, dim, width)
    }

    /// The keys in two runs, `(column of the first, row of the first, number)`: context and own.
    /// A run that lies outside the window has none.
    pub(super) fn runs(&self, segment: &Segment) -> [(usize, usize, usize); 2] {
        let (first, end) = (self.keys.start, self.keys.end);
        let context = segment.context.saturating_sub(first);
        let own = first.max(segment.context);
        [(0, first, context), (context, segment.own.start + own - segment.context, end - own)]
    }

    /// `out (rows, keys) = lhs (rows, dim) · kvᵀ` over both runs.
    pub(super) fn against(&self, lhs: &[f32], kv: &[f32], segment: &Segment, out: &mut [f32]) {
        let rows = self.rows();
        for (column, first, n) in self.runs(segment) {
            if n > 0 {
                product(
                    ViewMut::strided(&mut out[column..], rows, n, self.keys()),
                    Into::Replace,
                    View::new(lhs, rows, self.heads().dim),
                    self.kv(kv, first, n).t(),
                    Threads::One,
                );
            }
        }
    }

    /// `out (rows, dim) = weights (rows, keys) · kv` over both runs.
    pub(super) fn combine(&self, weights: &[f32], kv: &[f32], segment: &Segment, out: &mut [f32]) {
        let (rows, dim) = (self.rows(), self.heads().dim);
        let mut into = Into::Replace;
        for (column, first, n) in self.runs(segment) {
            if n > 0 {
                product(
                    ViewMut::new(out, rows, dim),
                    into,
                    View::strided(&weights[column..], rows, n, self.keys()),
                    self.kv(kv, first, n),
                    Threads::One,
                );
                into = Into::Add;
            }
        }
    }

    /// Scores of the queries in rows `queries` against all keys that any of them sees.
    pub(super) fn scores(
        &mut self,
        q: &[f32],
        k: &[f32],
        segment: &Segment,
        queries: Range<usize>,
    ) {
        self.queries = queries;
        let first = self.pattern.first_seen(segment.position(self.queries.start));
        self.keys = first..segment.position(self.queries.end);
        let scale = self.scale();
        self.q.clear();
        for row in self.queries.clone() {
            self.q.extend(q[self.query_part(row)].iter().map(|x| x * scale));
        }
        let mut p = std::mem::take(&mut self.p);
        p.resize(self.rows() * self.keys(), 0.0);
        self.against(&self.q, k, segment, &mut p);
        self.p = p;
    }

    /// Turns scores into probabilities and writes each row's log-sum-exp.
    pub(super) fn softmax(&mut self, segment: &Segment, log_sum_exp: &mut [f32]) {
        let mut scores = std::mem::take(&mut self.p);
        let shared = self.heads().shared();
        for (i, (p, lse)) in scores.chunks_mut(self.keys()).zip(log_sum_exp).enumerate() {
            *lse = softmax(p, self.seen(segment, self.queries.start + i / shared));
        }
        self.p = scores;
    }

    /// Turns scores into the probabilities that the forward had, from its log-sum-exp.
    pub(super) fn softmax_again(
        &mut self,
        segment: &Segment,
        log_sum_exp: impl Fn(usize, usize) -> f32,
    ) {
        let mut scores = std::mem::take(&mut self.p);
        let shared = self.heads().shared();
        for (i, p) in scores.chunks_mut(self.keys()).enumerate() {
            let row = self.queries.start + i / shared;
            softmax_known(p, self.seen(segment, row), log_sum_exp(row, i % shared));
        }
        self.p = scores;
    }

    /// Columns that the query in row `row` sees.
    fn seen(&self, segment: &Segment, row: usize) -> Range<usize> {
        let position = segment.position(row);
        self.pattern.first_seen(position) - self.keys.start..position + 1 - self.keys.start
    }

    /// The values weighted by the probabilities (rows, dim).
    pub(super) fn weighted(&self, v: &[f32], segment: &Segment, out: &mut [f32]) {
        self.combine(&self.p, v, segment, out);
    }
}

/// Softmax over the scores in `seen`, 0 around them; gives their log-sum-exp.
#[multiversion(targets = "simd")]
fn softmax(p: &mut [f32], seen: Range<usize>) -> f32 {
    hide(p, &seen);
    let seen = &mut p[seen];
    let top = max(seen);
    let sum = exp_sum(seen, top);
    let scale = 1.0 / sum;
    for x in seen {
        *x *= scale;
    }
    top + sum.ln()
}

/// [`softmax`] with the log-sum-exp known.
#[multiversion(targets = "simd")]
fn softmax_known(p: &mut [f32], seen: Range<usize>, log_sum_exp: f32) {
    hide(p, &seen);
    for x in &mut p[seen] {
        *x = exp(*x - log_sum_exp);
    }
}

fn hide(p: &mut [f32], seen: &Range<usize>) {
    p[..seen.start].fill(0.0);
    p[seen.end..].fill(0.0);
}
