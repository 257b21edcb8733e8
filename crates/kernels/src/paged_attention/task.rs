//! A part of attention over pages: some rows of one key and value head, page after page.

use std::ops::Range;

use multiversion::multiversion;
use pulp::{Arch, Simd, WithSimd};

use super::{PAGE, PageLayout, Run};
use crate::attention::Heads;
use crate::math::{exp, exps, sum as total};
use crate::panels::{Ahead, Shared, TILE_ROWS, accumulate};

/// Rows of a task, at most, where a row is a token's query head: their results stay in the first
/// caches.
const TASK_ROWS: usize = 16 * TILE_ROWS;

/// Where results go.
pub(super) struct Results<'a> {
    /// The values as each query sees them (rows, query heads · dim).
    pub(super) out: Shared<'a>,
    /// The log of the sum of the exponentials of a query's scores (rows, query heads).
    pub(super) log_sum_exp: Shared<'a>,
}

/// Some tokens of a run.
#[derive(Clone)]
pub(super) struct Piece<'a> {
    run: &'a Run<'a>,
    tokens: Range<usize>,
}

impl<'a> Piece<'a> {
    /// The page at `index`, if one of the tokens can see it.
    fn page(&self, index: usize) -> Option<&'a [f32]> {
        let last = self.run.sees(self.tokens.end - 1) / PAGE;
        self.run.pages[..=last].get(index).copied()
    }
}

/// Some rows, for one key and value head.
pub(super) struct Task<'a> {
    pub(super) pieces: Vec<Piece<'a>>,
    pub(super) head: usize,
}

/// The runs in pieces for one task each.
pub(super) fn split<'a>(runs: &'a [Run<'a>], heads: Heads) -> Vec<Vec<Piece<'a>>> {
    let all: usize = runs.iter().map(|run| run.rows.len()).sum();
    let wanted = (2 * rayon::current_num_threads()).div_ceil(heads.kv);
    let most = (TASK_ROWS / heads.shared().max(1)).min(all.div_ceil(wanted)).max(1);
    let mut tasks = Vec::new();
    let (mut pieces, mut filled) = (Vec::new(), 0);
    for run in runs {
        let mut start = 0;
        while start < run.rows.len() {
            let end = run.rows.len().min(start + most - filled);
            pieces.push(Piece { run, tokens: start..end });
            filled += end - start;
            start = end;
            if filled == most {
                tasks.push(std::mem::take(&mut pieces));
                filled = 0;
            }
        }
    }
    if filled > 0 {
        tasks.push(pieces);
    }
    tasks
}

/// Working memory of a thread.
#[derive(Default)]
pub(super) struct Work {
    /// Scaled queries (rows, dim).
    q: Vec<f32>,
    /// Position of the last token that each row sees.
    positions: Vec<usize>,
    /// The score that weights are relative to (rows).
    base: Vec<f32>,
    /// The sum of `e^(score - base)` so far, in parts (rows, [`SUM`]).
    sum: Vec<f32>,
    /// The values, weighted by `e^(score - base)`, so far (rows, width).
    out: Vec<f32>,
}

/// A page, and the rows of a task that see some of its tokens.
struct Visit<'a> {
    page: &'a [f32],
    /// Its place among its sequence's pages.
    index: usize,
    rows: Range<usize>,
}

impl<'a> Task<'a> {
    /// The pages, where there are `shared` rows for each token: page after page of all sequences, one that
    /// neighbours share once.
    fn visits(&self, shared: usize) -> Vec<Visit<'a>> {
        let mut visits: Vec<Visit<'a>> = Vec::new();
        let pages = self.pieces.iter().map(|piece| piece.run.pages.len()).max().unwrap_or(0);
        for index in 0..pages {
            let mut end = 0;
            for piece in &self.pieces {
                let rows = end..end + piece.tokens.len() * shared;
                end = rows.end;
                let Some(page) = piece.page(index) else { continue };
                match visits.last_mut() {
                    Some(last)
                        if std::ptr::eq(last.page, page)
                            && (last.index, last.rows.end) == (index, rows.start) =>
                    {
                        last.rows.end = rows.end;
                    }
                    _ => visits.push(Visit { page, index, rows }),
                }
            }
        }
        visits
    }

    pub(super) fn run(
        &self,
        work: &mut Work,
        q: &[f32],
        layout: PageLayout,
        window: Option<usize>,
        results: &Results<'_>,
    ) {
        let heads = layout.heads;
        let (shared, dim, width) = (heads.shared(), heads.dim, layout.width());
        let scale = 1.0 / (dim as f32).sqrt();
        work.q.clear();
        work.positions.clear();
        for Piece { run, tokens } in &self.pieces {
            for token in tokens.clone() {
                let start =
                    (run.rows.start + token) * heads.query_width() + self.head * shared * dim;
                work.q.extend(q[start..start + shared * dim].iter().map(|x| x * scale));
                work.positions.extend(std::iter::repeat_n(run.sees(token), shared));
            }
        }
        let rows = work.positions.len();
        work.base.clear();
        work.base.resize(rows, f32::NEG_INFINITY);
        work.sum.clear();
        work.sum.resize(rows * SUM, 0.0);
        work.out.clear();
        work.out.resize(rows * width, 0.0);
        let visits = self.visits(shared);
        for (visit, next) in visits.iter().zip(visits.iter().skip(1).map(Some).chain([None])) {
            work.page(visit, next.map(|next| next.page), layout, self.head, window);
        }
        let mut row = 0;
        for Piece { run, tokens } in &self.pieces {
            for token in tokens.clone() {
                let first = (run.rows.start + token) * heads.query + self.head * shared;
                // SAFETY: each row of the batch stands in one run only, and tasks differ in their
                // rows or in their heads.
                #[allow(unsafe_code)]
                let out = unsafe { results.out.slice(first * dim, shared * dim) };
                let sum = |row: usize| total(SUM, |i| work.sum[row * SUM + i]);
                for (out, row) in out.chunks_mut(dim).zip(row..) {
                    divide(&work.out[row * width..][..dim], sum(row), out);
                }
                // SAFETY: as above.
                #[allow(unsafe_code)]
                let all = unsafe { results.log_sum_exp.slice(first, shared) };
                for (log_sum_exp, row) in all.iter_mut().zip(row..) {
                    *log_sum_exp = work.base[row] + sum(row).ln();
                }
                row += shared;
            }
        }
    }
}

impl Work {
    /// Takes the page's keys and values into the results of its rows. Meanwhile those of the `next` page are
    /// asked for.
    fn page(
        &mut self,
        Visit { page, index, rows }: &Visit<'_>,
        next: Option<&[f32]>,
        layout: PageLayout,
        head: usize,
        window: Option<usize>,
    ) {
        let (dim, width) = (layout.heads.dim, layout.width());
        let (keys, values) = (layout.keys(page, head), layout.values(page, head));
        let tiles = rows.len().div_ceil(TILE_ROWS);
        let ahead = |part: &[f32], tile: usize| {
            let piece = part.len().div_ceil(tiles);
            let start = part.len().min(tile * piece);
            Ahead::new(&part[start..part.len().min(start + piece)])
        };
        let arch = Arch::new();
        for (number, first) in rows.clone().step_by(TILE_ROWS).enumerate() {
            let tile = first..rows.end.min(first + TILE_ROWS);
            let mut seen = [const { 0..0 }; TILE_ROWS];
            let seen = &mut seen[..tile.len()];
            for (seen, position) in seen.iter_mut().zip(&self.positions[tile.clone()]) {
                *seen = visible(*position, index * PAGE, window);
            }
            if seen.iter().all(Range::is_empty) {
                continue;
            }
            let looked_at = all_seen(seen);
            let [soon_keys, soon_values] = match next {
                Some(next) => {
                    let (keys, values) = (layout.keys(next, head), layout.values(next, head));
                    [ahead(keys, number), ahead(values, number)]
                }
                None => [Ahead::NOTHING; 2],
            };
            let mut scores = Scores([0.0; TILE_ROWS * PAGE]);
            let scores = &mut scores.0[..tile.len() * PAGE];
            let queries = (&self.q[tile.start * dim..], dim);
            accumulate(arch, scores, queries, (keys, PAGE), soon_keys);
            let out = &mut self.out[tile.start * width..tile.end * width];
            let sum = &mut self.sum[tile.start * SUM..tile.end * SUM];
            let base = &mut self.base[tile.clone()];
            arch.dispatch(Weigh { scores, seen, base, sum, out });
            let values = (&values[looked_at.start * width..looked_at.end * width], width);
            accumulate(arch, out, (&scores[looked_at.start..], PAGE), values, soon_values);
        }
    }
}

/// Which of a page's tokens a token sees that sees those up to `position`.
pub(crate) fn visible(position: usize, page_start: usize, window: Option<usize>) -> Range<usize> {
    let end = (position + 1).saturating_sub(page_start).min(PAGE);
    let first = window.map_or(0, |window| (position + 1).saturating_sub(window));
    first.saturating_sub(page_start).min(end)..end
}

/// Tokens of a page from the first to the last one that a row sees.
pub(crate) fn all_seen(seen: &[Range<usize>]) -> Range<usize> {
    let some = || seen.iter().filter(|seen| !seen.is_empty());
    let first = some().map(|seen| seen.start).min().unwrap_or(0);
    first..some().map(|seen| seen.end).max().unwrap_or(first)
}

/// A tile's scores, so that no register of them lies in two lines of the cache.
#[repr(align(64))]
struct Scores([f32; TILE_ROWS * PAGE]);

/// Numbers of a row's sum of weights, which are added up in the end.
const SUM: usize = 16;

/// How far a score may lie above the one that a row's weights are relative to.
const MARGIN: f32 = 8.0;

/// A tile's scores with a page, which become weights `e^(score - base)`. A row's base is the largest score of the
/// page that it saw first, or of a later one with a much larger score; the row's sum of weights and its results
/// so far go with it.
struct Weigh<'a> {
    /// (rows, [`PAGE`]).
    scores: &'a mut [f32],
    /// Which of them each row sees.
    seen: &'a [Range<usize>],
    base: &'a mut [f32],
    /// (rows, [`SUM`]).
    sum: &'a mut [f32],
    /// (rows, width).
    out: &'a mut [f32],
}

impl WithSimd for Weigh<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { scores, seen, base, sum, out } = self;
        let width = out.len() / seen.len();
        for (row, (scores, seen)) in scores.chunks_exact_mut(PAGE).zip(seen).enumerate() {
            if seen.is_empty() {
                hide(scores, seen, 0.0);
                continue;
            }
            hide(scores, seen, f32::NEG_INFINITY);
            let (base, sum) = (&mut base[row], &mut sum[row * SUM..(row + 1) * SUM]);
            let (registers, _) = S::as_mut_simd_f32s(scores);
            let mut largest = simd.splat_f32s(f32::NEG_INFINITY);
            for x in &*registers {
                largest = simd.max_f32s(largest, *x);
            }
            let above = simd.greater_than_f32s(largest, simd.splat_f32s(*base + MARGIN));
            // Seldom, beside the first time.
            if simd.first_true_m32s(above) < S::F32_LANES {
                let largest = simd.reduce_max_f32s(largest);
                rebase(base, largest, sum, &mut out[row * width..(row + 1) * width]);
            }
            let shift = simd.splat_f32s(*base);
            let (sums, _) = S::as_mut_simd_f32s(sum);
            for x in registers.chunks_mut(sums.len()) {
                for (x, sum) in x.iter_mut().zip(&mut *sums) {
                    *x = exps(simd, simd.sub_f32s(*x, shift));
                    *sum = simd.add_f32s(*sum, *x);
                }
            }
            // What is hidden has added e^-87 to a sum of 1 or more, as the base is one of its scores: nothing.
            hide(scores, seen, 0.0);
        }
    }
}

/// Puts `value` in the place of scores that are not `seen`. Most pages are seen whole.
#[inline(always)]
pub(crate) fn hide(scores: &mut [f32], seen: &Range<usize>, value: f32) {
    if seen.len() < scores.len() {
        scores[..seen.start].fill(value);
        scores[seen.end..].fill(value);
    }
}

/// Makes weights and results so far relative to another score.
#[inline(always)]
fn rebase(base: &mut f32, score: f32, sum: &mut [f32], out: &mut [f32]) {
    // The first time there is nothing yet, and e^-inf would be taken for e^-87.
    let shrink = if *base == f32::NEG_INFINITY { 0.0 } else { exp(*base - score) };
    for x in sum.iter_mut().chain(out) {
        *x *= shrink;
    }
    *base = score;
}

/// The values divided by the sum of weights.
#[multiversion(targets = "simd")]
fn divide(values: &[f32], sum: f32, out: &mut [f32]) {
    let factor = 1.0 / sum;
    for (out, value) in out.iter_mut().zip(values) {
        *out = value * factor;
    }
}
