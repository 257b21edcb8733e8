//! Causal attention over keys and values that lie in pages.
//!
//! A step computes one new token for many sequences, chunks of prompts for others, or both. A page that
//! neighbouring sequences share is read once for all of them. Scores exist for a tile of queries and a
//! page at a time. A query's result is summed up page
//! after page from its first key on: the same bits whoever else is in the step and however the prompt
//! was cut into chunks.

use std::ops::Range;

use multiversion::multiversion;
use pulp::Arch;
use rayon::prelude::*;

use crate::attention::Heads;
use crate::error::{Result, check};
use crate::math::{exp, exp_sum, max};
use crate::panels::{Shared, TILE_ROWS, accumulate};

const OP: &str = "paged_attention";

/// Tokens of a page.
pub const PAGE: usize = 64;

/// Rows of a task, at most, where a row is a token's query head: their results stay in the first
/// caches.
const TASK_ROWS: usize = 16 * TILE_ROWS;

/// How one layer's part of a page is laid out: for each key and value head the keys, turned
/// (dim, [`PAGE`]), then the values ([`PAGE`], dim made a multiple of 16).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageLayout {
    heads: Heads,
}

impl PageLayout {
    /// The layout for such heads.
    pub fn new(heads: Heads) -> Self {
        Self { heads }
    }

    /// Numbers of one layer's part of a page.
    pub fn numbers(&self) -> usize {
        self.heads.kv * self.head_numbers()
    }

    fn width(&self) -> usize {
        self.heads.dim.next_multiple_of(16)
    }

    fn head_numbers(&self) -> usize {
        PAGE * (self.heads.dim + self.width())
    }

    fn keys<'a>(&self, page: &'a [f32], head: usize) -> &'a [f32] {
        &page[head * self.head_numbers()..][..PAGE * self.heads.dim]
    }

    fn values<'a>(&self, page: &'a [f32], head: usize) -> &'a [f32] {
        let start = head * self.head_numbers() + PAGE * self.heads.dim;
        &page[start..start + PAGE * self.width()]
    }

    /// Puts the keys and values of consecutive tokens into the page, from slot `first` on.
    ///
    /// # Shapes
    /// `k` and `v` (tokens, kv heads · dim).
    ///
    /// # Errors
    /// The page is another layout's, or the tokens do not fit.
    pub fn store(&self, page: &mut [f32], first: usize, k: &[f32], v: &[f32]) -> Result<()> {
        let (dim, kv_width) = (self.heads.dim, self.heads.kv_width());
        let tokens = k.len() / kv_width.max(1);
        if tokens == 0 {
            return Ok(());
        }
        check(page.len() == self.numbers(), OP, || "the page is of another layout".into())?;
        check(k.len() == v.len() && k.len() == tokens * kv_width, OP, || {
            "a token's keys or values are not whole".into()
        })?;
        check(first + tokens <= PAGE, OP, || format!("{tokens} tokens do not fit the page"))?;
        let parts = page.chunks_mut(self.head_numbers().max(1));
        for (head, part) in parts.enumerate() {
            let (keys, values) = part.split_at_mut(PAGE * dim);
            for (d, keys) in keys.chunks_mut(PAGE).enumerate() {
                let of_head = k[head * dim + d..].iter().step_by(kv_width);
                for (key, k) in keys[first..first + tokens].iter_mut().zip(of_head) {
                    *key = *k;
                }
            }
            let values = values[first * self.width()..].chunks_mut(self.width());
            for (values, v) in values.zip(v.chunks(kv_width)) {
                values[..dim].copy_from_slice(&v[head * dim..(head + 1) * dim]);
            }
        }
        Ok(())
    }
}

/// Consecutive tokens of a sequence whose queries are computed.
pub struct Run<'a> {
    /// Their rows in the batch, and in the result.
    pub rows: Range<usize>,
    /// Position of the first in its sequence.
    pub position: usize,
    /// The sequence's pages, from its beginning up to the last of these tokens.
    pub pages: Vec<&'a [f32]>,
}

/// Attention of each run's queries over the keys of its sequence up to their own, or over the last
/// `window` of them. Runs that share pages should stand side by side.
///
/// # Shapes
/// `q` and the result (rows, query heads · dim), row-major. A page is one layer's part.
///
/// # Errors
/// A row lies outside the batch or stands in two runs, or a page is missing or of another layout.
pub fn forward(
    q: &[f32],
    runs: &[Run<'_>],
    heads: Heads,
    window: Option<usize>,
) -> Result<Vec<f32>> {
    let layout = PageLayout::new(heads);
    let rows = q.len() / heads.query_width().max(1);
    check_runs(runs, layout, rows)?;
    let mut out = vec![0.0; rows * heads.query_width()];
    let shared_out = Shared::new(&mut out);
    let tasks: Vec<Task<'_>> = tasks(runs, heads)
        .into_iter()
        .flat_map(|pieces| (0..heads.kv).map(move |head| Task { head, pieces: pieces.clone() }))
        .collect();
    tasks.par_iter().with_max_len(1).for_each_init(Work::default, |work, task| {
        task.run(work, q, layout, window, &shared_out);
    });
    Ok(out)
}

fn check_runs(runs: &[Run<'_>], layout: PageLayout, rows: usize) -> Result<()> {
    let mut taken = vec![false; rows];
    for run in runs {
        let tokens = run.position + run.rows.len();
        let pages = run.pages.len();
        check(tokens <= pages * PAGE, OP, || format!("{pages} pages for {tokens} tokens"))?;
        for row in run.rows.clone() {
            let free = row < rows && !std::mem::replace(&mut taken[row], true);
            check(free, OP, || format!("row {row} is not there, or there twice"))?;
        }
        let fit = run.pages.iter().all(|page| page.len() == layout.numbers());
        check(fit, OP, || "a page is of another layout".into())?;
    }
    Ok(())
}

/// Some tokens of a run.
#[derive(Clone)]
struct Piece<'a> {
    run: &'a Run<'a>,
    tokens: Range<usize>,
}

impl Piece<'_> {
    /// The page at `index`, if one of the tokens can see it.
    fn page(&self, index: usize) -> Option<&[f32]> {
        let last = (self.run.position + self.tokens.end - 1) / PAGE;
        self.run.pages[..=last].get(index).copied()
    }
}

/// Some rows, for one key and value head.
struct Task<'a> {
    pieces: Vec<Piece<'a>>,
    head: usize,
}

/// The runs in pieces for one task each.
fn tasks<'a>(runs: &'a [Run<'a>], heads: Heads) -> Vec<Vec<Piece<'a>>> {
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
struct Work {
    /// Scaled queries (rows, dim).
    q: Vec<f32>,
    /// Position of each row's token.
    positions: Vec<usize>,
    /// The largest score so far (rows).
    top: Vec<f32>,
    /// The sum of `e^(score - top)` so far (rows).
    sum: Vec<f32>,
    /// The values, weighted by `e^(score - top)`, so far (rows, width).
    out: Vec<f32>,
}

impl Task<'_> {
    fn run(
        &self,
        work: &mut Work,
        q: &[f32],
        layout: PageLayout,
        window: Option<usize>,
        out: &Shared<'_>,
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
                work.positions.extend(std::iter::repeat_n(run.position + token, shared));
            }
        }
        let rows = work.positions.len();
        work.top.clear();
        work.top.resize(rows, f32::NEG_INFINITY);
        work.sum.clear();
        work.sum.resize(rows, 0.0);
        work.out.clear();
        work.out.resize(rows * width, 0.0);
        let pages = self.pieces.iter().map(|piece| piece.run.pages.len()).max().unwrap_or(0);
        for index in 0..pages {
            let (mut first, mut end) = (0, 0);
            let mut current: Option<&[f32]> = None;
            for piece in &self.pieces {
                let page = piece.page(index);
                let same = match (current, page) {
                    (Some(a), Some(b)) => std::ptr::eq(a, b),
                    _ => false,
                };
                if !same {
                    if let Some(page) = current {
                        work.page(page, index, first..end, layout, self.head, window);
                    }
                    (first, current) = (end, page);
                }
                end += piece.tokens.len() * shared;
            }
            if let Some(page) = current {
                work.page(page, index, first..end, layout, self.head, window);
            }
        }
        let mut row = 0;
        for Piece { run, tokens } in &self.pieces {
            for token in tokens.clone() {
                let start =
                    (run.rows.start + token) * heads.query_width() + self.head * shared * dim;
                // SAFETY: each row of the batch stands in one run only, and tasks differ in their
                // rows or in their heads.
                #[allow(unsafe_code)]
                let out = unsafe { out.slice(start, shared * dim) };
                for out in out.chunks_mut(dim) {
                    divide(&work.out[row * width..][..dim], work.sum[row], out);
                    row += 1;
                }
            }
        }
    }
}

impl Work {
    /// Takes the page's keys and values into the results of the rows `rows`.
    fn page(
        &mut self,
        page: &[f32],
        index: usize,
        rows: Range<usize>,
        layout: PageLayout,
        head: usize,
        window: Option<usize>,
    ) {
        let (dim, width) = (layout.heads.dim, layout.width());
        let (keys, values) = (layout.keys(page, head), layout.values(page, head));
        let arch = Arch::new();
        for first in rows.clone().step_by(TILE_ROWS) {
            let tile = first..rows.end.min(first + TILE_ROWS);
            let visible = |row: usize| visible(self.positions[row], index * PAGE, window);
            let seen = tile.clone().map(|row| visible(row).end).max().unwrap_or(0);
            if tile.clone().all(|row| visible(row).is_empty()) {
                continue;
            }
            let mut scores = [0.0; TILE_ROWS * PAGE];
            let scores = &mut scores[..tile.len() * PAGE];
            accumulate(arch, scores, (&self.q[tile.start * dim..], dim), keys, PAGE);
            for (row, scores) in tile.clone().zip(scores.chunks_mut(PAGE)) {
                let visible = visible(row);
                let out = &mut self.out[row * width..(row + 1) * width];
                let (top, sum) = (&mut self.top[row], &mut self.sum[row]);
                weigh(scores, visible.start, visible.end, (top, sum), out);
            }
            let out = &mut self.out[tile.start * width..tile.end * width];
            accumulate(arch, out, (scores, PAGE), &values[..seen * width], width);
        }
    }
}

/// Which of a page's tokens the token at `position` sees.
fn visible(position: usize, page_start: usize, window: Option<usize>) -> Range<usize> {
    let end = (position + 1).saturating_sub(page_start).min(PAGE);
    let first = window.map_or(0, |window| (position + 1).saturating_sub(window));
    first.saturating_sub(page_start).min(end)..end
}

/// Turns a page's scores into weights relative to the largest score so far, which may have grown.
#[multiversion(targets = "simd")]
fn weigh(
    scores: &mut [f32],
    start: usize,
    end: usize,
    (top, sum): (&mut f32, &mut f32),
    out: &mut [f32],
) {
    if start < end {
        let seen = &mut scores[start..end];
        let grown = max(seen).max(*top);
        if grown > *top {
            // The first time there is nothing yet, and e^-inf would be taken for e^-87.
            let shrink = if *top == f32::NEG_INFINITY { 0.0 } else { exp(*top - grown) };
            *sum *= shrink;
            for out in out {
                *out *= shrink;
            }
            *top = grown;
        }
        *sum += exp_sum(seen, *top);
    }
    scores[..start].fill(0.0);
    scores[end..].fill(0.0);
}

#[multiversion(targets = "simd")]
fn divide(values: &[f32], by: f32, out: &mut [f32]) {
    let factor = 1.0 / by;
    for (out, value) in out.iter_mut().zip(values) {
        *out = value * factor;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADS: Heads = Heads { query: 6, kv: 2, dim: 20 };

    fn numbers(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7919 + seed * 104_729) % 1013) as f32 / 253.25 - 2.0).collect()
    }

    /// Keys and values of a sequence, row-major, and the pages that hold them.
    struct Sequence {
        q: Vec<f32>,
        k: Vec<f32>,
        v: Vec<f32>,
        pages: Vec<Vec<f32>>,
    }

    fn sequence(tokens: usize, seed: usize) -> Sequence {
        let width = HEADS.kv_width();
        let (k, v) = (numbers(tokens * width, seed), numbers(tokens * width, seed + 1));
        let layout = PageLayout::new(HEADS);
        let pages = k.chunks(PAGE * width).zip(v.chunks(PAGE * width)).map(|(k, v)| {
            // What a page had before must not matter.
            let mut page = vec![f32::NAN; layout.numbers()];
            let half = k.len() / width / 2 * width;
            layout.store(&mut page, 0, &k[..half], &v[..half]).unwrap();
            layout.store(&mut page, half / width, &k[half..], &v[half..]).unwrap();
            page
        });
        let pages = pages.collect();
        Sequence { q: numbers(tokens * HEADS.query_width(), seed + 2), k, v, pages }
    }

    /// One token's result in f64.
    fn naive(s: &Sequence, position: usize, window: Option<usize>) -> Vec<f64> {
        let Heads { dim, .. } = HEADS;
        let first = window.map_or(0, |w| (position + 1).saturating_sub(w));
        let mut out = Vec::new();
        for head in 0..HEADS.query {
            let q = &s.q[position * HEADS.query_width() + head * dim..][..dim];
            let kv = |x: &[f32], token: usize, d: usize| {
                f64::from(x[token * HEADS.kv_width() + head / HEADS.shared() * dim + d])
            };
            let score = |token| -> f64 {
                let products = (0..dim).map(|d| f64::from(q[d]) * kv(&s.k, token, d));
                products.sum::<f64>() / (dim as f64).sqrt()
            };
            let weights: Vec<f64> = (first..=position).map(|token| score(token).exp()).collect();
            let total: f64 = weights.iter().sum();
            out.extend((0..dim).map(|d| {
                let of = |(i, w): (usize, &f64)| w * kv(&s.v, first + i, d);
                weights.iter().enumerate().map(of).sum::<f64>() / total
            }));
        }
        out
    }

    fn pages(s: &Sequence, range: Range<usize>) -> Vec<&[f32]> {
        s.pages[range].iter().map(Vec::as_slice).collect()
    }

    /// The result for the tokens `tokens` of a sequence alone.
    fn alone(s: &Sequence, tokens: Range<usize>, window: Option<usize>) -> Vec<f32> {
        let width = HEADS.query_width();
        let last = tokens.end.div_ceil(PAGE);
        let run = Run { rows: 0..tokens.len(), position: tokens.start, pages: pages(s, 0..last) };
        forward(&s.q[tokens.start * width..tokens.end * width], &[run], HEADS, window).unwrap()
    }

    #[test]
    fn every_token_is_the_weighted_mean_of_the_values_before_it() {
        let s = sequence(200, 1);
        for window in [None, Some(1), Some(63), Some(70), Some(500)] {
            let ours = alone(&s, 0..200, window);
            for (position, ours) in ours.chunks(HEADS.query_width()).enumerate() {
                for (a, b) in ours.iter().zip(naive(&s, position, window)) {
                    assert!((f64::from(*a) - b).abs() < 1e-5, "{window:?}, {position}: {a}, {b}");
                }
            }
        }
    }

    #[test]
    fn chunks_of_a_prompt_give_the_same_bits_as_the_whole() {
        let s = sequence(150, 2);
        for window in [None, Some(80)] {
            let whole = alone(&s, 0..150, window);
            for cut in [1, 63, 64, 65, 149] {
                let parts = [alone(&s, 0..cut, window), alone(&s, cut..150, window)].concat();
                assert_eq!(whole, parts, "cut at {cut}");
            }
        }
    }

    #[test]
    fn sequences_that_share_pages_get_the_same_bits_as_each_alone() {
        let shared = sequence(128, 3);
        let extend = |seed: usize, more: usize| {
            let mut s = sequence(128 + more, seed);
            let width = HEADS.kv_width();
            s.k[..128 * width].copy_from_slice(&shared.k);
            s.v[..128 * width].copy_from_slice(&shared.v);
            s.pages[..2].clone_from_slice(&shared.pages);
            s
        };
        let all = [extend(10, 1), extend(20, 65), extend(30, 30)];
        let width = HEADS.query_width();
        let last = |s: &Sequence| s.q[s.q.len() - width..].to_vec();
        let q = all.iter().flat_map(last).collect::<Vec<f32>>();
        let runs = all.iter().enumerate().map(|(row, s)| {
            let position = s.q.len() / width - 1;
            let own = pages(s, 2..s.pages.len());
            Run { rows: row..row + 1, position, pages: [pages(&shared, 0..2), own].concat() }
        });
        let together = forward(&q, &runs.collect::<Vec<_>>(), HEADS, None).unwrap();
        for (s, together) in all.iter().zip(together.chunks(width)) {
            let tokens = s.q.len() / width;
            assert_eq!(alone(s, tokens - 1..tokens, None), together);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let s = sequence(70, 4);
        let q = vec![0.0; HEADS.query_width()];
        let run = |rows: Range<usize>, position, pages| Run { rows, position, pages };
        assert!(forward(&q, &[run(0..1, 70, pages(&s, 0..1))], HEADS, None).is_err());
        assert!(forward(&q, &[run(1..2, 3, pages(&s, 0..1))], HEADS, None).is_err());
        let twice = || run(0..1, 3, pages(&s, 0..1));
        assert!(forward(&q, &[twice(), twice()], HEADS, None).is_err());
        let short = [0.0; 7];
        assert!(forward(&q, &[run(0..1, 3, vec![&short[..]])], HEADS, None).is_err());
    }
}
