//! A task of paged attention: some rows of one KV head, page by page.

use std::ops::Range;

use multiversion::multiversion;
use pulp::{Simd, WithSimd};

use super::{PAGE_SIZE, PageLayout, QueryChunk};
use crate::attention::Heads;
use crate::math::{exp, exps, sum as total};
use crate::panels::{Prefetch, Shared, TILE_ROWS, accumulate};
use crate::simd_level::simd_level;

/// Maximum rows per task (a row is a token's query head): their results fit the L1 and L2 caches.
const TASK_ROWS: usize = 16 * TILE_ROWS;

/// Output buffers.
pub(super) struct Results<'a> {
    /// Attention output (rows, query heads · dim).
    pub(super) out: Shared<'a>,
    /// Log-sum-exp of each query's scores (rows, query heads).
    pub(super) log_sum_exp: Shared<'a>,
}

/// Some tokens of a query chunk.
#[derive(Clone)]
pub(super) struct Piece<'a> {
    chunk: &'a QueryChunk<'a>,
    tokens: Range<usize>,
}

impl<'a> Piece<'a> {
    /// The sequence's `index`-th page, if one of the tokens attends to it.
    fn page(&self, index: usize) -> Option<&'a [f32]> {
        let last = self.chunk.last_visible_to(self.tokens.end - 1) / PAGE_SIZE;
        self.chunk.pages[..=last].get(index).copied()
    }
}

/// Some rows of one KV head.
pub(super) struct Task<'a> {
    pub(super) pieces: Vec<Piece<'a>>,
    pub(super) head: usize,
}

/// Splits the chunks into tasks.
pub(super) fn split<'a>(chunks: &'a [QueryChunk<'a>], heads: Heads) -> Vec<Vec<Piece<'a>>> {
    let all: usize = chunks.iter().map(|chunk| chunk.rows.len()).sum();
    let target_tasks = (2 * rayon::current_num_threads()).div_ceil(heads.kv);
    let max_tokens =
        (TASK_ROWS / heads.queries_per_kv().max(1)).min(all.div_ceil(target_tasks)).max(1);
    let mut tasks = Vec::new();
    let (mut pieces, mut filled) = (Vec::new(), 0);
    for chunk in chunks {
        let mut start = 0;
        while start < chunk.rows.len() {
            let end = chunk.rows.len().min(start + max_tokens - filled);
            pieces.push(Piece { chunk, tokens: start..end });
            filled += end - start;
            start = end;
            if filled == max_tokens {
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

/// Per-thread workspace.
#[derive(Default)]
pub(super) struct Workspace {
    /// Scaled queries (rows, dim).
    q: Vec<f32>,
    /// Position of the last token that each row attends to.
    positions: Vec<usize>,
    /// The running reference score of the softmax (rows).
    base: Vec<f32>,
    /// Running sum of `e^(score - base)`, in lanes (rows, [`SUM`]).
    sum: Vec<f32>,
    /// Running sum of values weighted by `e^(score - base)` (rows, padded dim).
    out: Vec<f32>,
}

/// A page, and the rows of a task that attend to it.
struct Visit<'a> {
    page: &'a [f32],
    /// Its index in the sequence's pages.
    index: usize,
    rows: Range<usize>,
}

impl<'a> Task<'a> {
    /// The pages to visit, with `q_per_kv` rows per token: in order of the page index; a page shared by adjacent
    /// sequences is visited once.
    fn visits(&self, q_per_kv: usize) -> Vec<Visit<'a>> {
        let mut visits: Vec<Visit<'a>> = Vec::new();
        let pages = self.pieces.iter().map(|piece| piece.chunk.pages.len()).max().unwrap_or(0);
        for index in 0..pages {
            let mut end = 0;
            for piece in &self.pieces {
                let rows = end..end + piece.tokens.len() * q_per_kv;
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
        work: &mut Workspace,
        q: &[f32],
        layout: PageLayout,
        window: Option<usize>,
        results: &Results<'_>,
    ) {
        let heads = layout.heads;
        let (q_per_kv, dim, width) = (heads.queries_per_kv(), heads.dim, layout.padded_dim());
        let scale = 1.0 / (dim as f32).sqrt();
        work.q.clear();
        work.positions.clear();
        for Piece { chunk, tokens } in &self.pieces {
            for token in tokens.clone() {
                let start =
                    (chunk.rows.start + token) * heads.q_size() + self.head * q_per_kv * dim;
                work.q.extend(q[start..start + q_per_kv * dim].iter().map(|x| x * scale));
                work.positions.extend(std::iter::repeat_n(chunk.last_visible_to(token), q_per_kv));
            }
        }
        let rows = work.positions.len();
        work.base.clear();
        work.base.resize(rows, f32::NEG_INFINITY);
        work.sum.clear();
        work.sum.resize(rows * SUM, 0.0);
        work.out.clear();
        work.out.resize(rows * width, 0.0);
        let visits = self.visits(q_per_kv);
        for (visit, next) in visits.iter().zip(visits.iter().skip(1).map(Some).chain([None])) {
            work.page(visit, next.map(|next| next.page), layout, self.head, window);
        }
        let mut row = 0;
        for Piece { chunk, tokens } in &self.pieces {
            for token in tokens.clone() {
                let first = (chunk.rows.start + token) * heads.query + self.head * q_per_kv;
                // SAFETY: each row of the batch belongs to one chunk, and tasks differ in their rows or in their
                // heads.
                #[allow(unsafe_code)]
                let out = unsafe { results.out.slice(first * dim, q_per_kv * dim) };
                let sum = |row: usize| total(SUM, |i| work.sum[row * SUM + i]);
                for (out, row) in out.chunks_mut(dim).zip(row..) {
                    divide(&work.out[row * width..][..dim], sum(row), out);
                }
                // SAFETY: as above.
                #[allow(unsafe_code)]
                let all = unsafe { results.log_sum_exp.slice(first, q_per_kv) };
                for (log_sum_exp, row) in all.iter_mut().zip(row..) {
                    *log_sum_exp = work.base[row] + sum(row).ln();
                }
                row += q_per_kv;
            }
        }
    }
}

impl Workspace {
    /// Accumulates a page's keys and values into the results of its rows, and prefetches the `next` page.
    fn page(
        &mut self,
        Visit { page, index, rows }: &Visit<'_>,
        next: Option<&[f32]>,
        layout: PageLayout,
        head: usize,
        window: Option<usize>,
    ) {
        let (dim, width) = (layout.heads.dim, layout.padded_dim());
        let (keys, values) = (layout.keys(page, head), layout.values(page, head));
        let tiles = rows.len().div_ceil(TILE_ROWS);
        let prefetch = |part: &[f32], tile: usize| {
            let piece = part.len().div_ceil(tiles);
            let start = part.len().min(tile * piece);
            Prefetch::new(&part[start..part.len().min(start + piece)])
        };
        let arch = simd_level().arch();
        for (tile_index, first) in rows.clone().step_by(TILE_ROWS).enumerate() {
            let tile = first..rows.end.min(first + TILE_ROWS);
            let mut visible = [const { 0..0 }; TILE_ROWS];
            let visible = &mut visible[..tile.len()];
            for (visible, position) in visible.iter_mut().zip(&self.positions[tile.clone()]) {
                *visible = visible_slots(*position, index * PAGE_SIZE, window);
            }
            if visible.iter().all(Range::is_empty) {
                continue;
            }
            let union = visible_union(visible);
            let [next_keys, next_values] = match next {
                Some(next) => {
                    let (keys, values) = (layout.keys(next, head), layout.values(next, head));
                    [prefetch(keys, tile_index), prefetch(values, tile_index)]
                }
                None => [Prefetch::NONE; 2],
            };
            let mut scores = Scores([0.0; TILE_ROWS * PAGE_SIZE]);
            let scores = &mut scores.0[..tile.len() * PAGE_SIZE];
            let queries = (&self.q[tile.start * dim..], dim);
            accumulate(arch, scores, queries, (keys, PAGE_SIZE), next_keys);
            let out = &mut self.out[tile.start * width..tile.end * width];
            let sum = &mut self.sum[tile.start * SUM..tile.end * SUM];
            let base = &mut self.base[tile.clone()];
            arch.dispatch(OnlineSoftmax { scores, visible, base, sum, out });
            let values = (&values[union.start * width..union.end * width], width);
            accumulate(arch, out, (&scores[union.start..], PAGE_SIZE), values, next_values);
        }
    }
}

/// Visible slots of a page for a token that attends up to `position`.
pub(crate) fn visible_slots(
    position: usize,
    page_start: usize,
    window: Option<usize>,
) -> Range<usize> {
    let end = (position + 1).saturating_sub(page_start).min(PAGE_SIZE);
    let first = window.map_or(0, |window| (position + 1).saturating_sub(window));
    first.saturating_sub(page_start).min(end)..end
}

/// Smallest range of slots that covers all rows' visible slots.
pub(crate) fn visible_union(visible: &[Range<usize>]) -> Range<usize> {
    let some = || visible.iter().filter(|visible| !visible.is_empty());
    let first = some().map(|visible| visible.start).min().unwrap_or(0);
    first..some().map(|visible| visible.end).max().unwrap_or(first)
}

/// A tile's scores, aligned so that no SIMD register straddles two cache lines.
#[repr(align(64))]
struct Scores([f32; TILE_ROWS * PAGE_SIZE]);

/// Lanes of a row's sum of weights.
const SUM: usize = 16;

/// Rescale only if a score exceeds the row's base by more than this.
const REBASE_MARGIN: f32 = 8.0;

/// Online softmax: turns a tile's scores into weights `e^(score - base)`. A row's base is the largest score of its
/// first visible page, until a score exceeds it by [`REBASE_MARGIN`]; then the running sum and results are rescaled.
struct OnlineSoftmax<'a> {
    /// (rows, [`PAGE_SIZE`]).
    scores: &'a mut [f32],
    /// Visible slots of each row.
    visible: &'a [Range<usize>],
    base: &'a mut [f32],
    /// (rows, [`SUM`]).
    sum: &'a mut [f32],
    /// (rows, padded dim).
    out: &'a mut [f32],
}

impl WithSimd for OnlineSoftmax<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { scores, visible, base, sum, out } = self;
        let width = out.len() / visible.len();
        for (row, (scores, visible)) in scores.chunks_exact_mut(PAGE_SIZE).zip(visible).enumerate()
        {
            if visible.is_empty() {
                hide(scores, visible, 0.0);
                continue;
            }
            hide(scores, visible, f32::NEG_INFINITY);
            let (base, sum) = (&mut base[row], &mut sum[row * SUM..(row + 1) * SUM]);
            let (registers, _) = S::as_mut_simd_f32s(scores);
            let mut largest = simd.splat_f32s(f32::NEG_INFINITY);
            for x in &*registers {
                largest = simd.max_f32s(largest, *x);
            }
            let above = simd.greater_than_f32s(largest, simd.splat_f32s(*base + REBASE_MARGIN));
            // Rare, except for the first page.
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
            // Masked slots have added e^-87 to a sum of at least 1 (the base is one of its scores), which is nothing.
            hide(scores, visible, 0.0);
        }
    }
}

/// Replaces masked scores by `value`. Most pages are fully visible.
#[inline(always)]
pub(crate) fn hide(scores: &mut [f32], visible: &Range<usize>, value: f32) {
    if visible.len() < scores.len() {
        scores[..visible.start].fill(value);
        scores[visible.end..].fill(value);
    }
}

/// Rescales the running sum and results to a new base.
#[inline(always)]
fn rebase(base: &mut f32, score: f32, sum: &mut [f32], out: &mut [f32]) {
    // On the first page nothing is accumulated yet, and exp(-inf) would be clamped to e^-87.
    let shrink = if *base == f32::NEG_INFINITY { 0.0 } else { exp(*base - score) };
    for x in sum.iter_mut().chain(out) {
        *x *= shrink;
    }
    *base = score;
}

/// Divides the values by the sum of weights.
#[multiversion(targets = "simd")]
fn divide(values: &[f32], sum: f32, out: &mut [f32]) {
    let factor = 1.0 / sum;
    for (out, value) in out.iter_mut().zip(values) {
        *out = value * factor;
    }
}
