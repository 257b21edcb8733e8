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
use crate::panels::{Ahead, Shared, TILE_ROWS, accumulate};

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
            accumulate(
                arch,
                scores,
                (&self.q[tile.start * dim..], dim),
                (keys, PAGE),
                Ahead::NOTHING,
            );
            for (row, scores) in tile.clone().zip(scores.chunks_mut(PAGE)) {
                let visible = visible(row);
                let out = &mut self.out[row * width..(row + 1) * width];
                let (top, sum) = (&mut self.top[row], &mut self.sum[row]);
                weigh(scores, visible.start, visible.end, (top, sum), out);
            }
            let out = &mut self.out[tile.start * width..tile.end * width];
            accumulate(arch, out, (scores, PAGE), (&values[..seen * width], width), Ahead::NOTHING);
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
mod tests;
