//! Attention over keys and values that lie in pages.
//!
//! A step computes one new token for many sequences, chunks of prompts for others, or both. A page that
//! neighbouring sequences share is read once for all of them. Scores exist for a tile of queries and a
//! page at a time. A query's result is summed up page
//! after page from its first key on: the same bits whoever else is in the step and however the prompt
//! was cut into chunks.

#[cfg(device)]
mod plan;
#[cfg(device)]
mod pool;
mod task;

use std::ops::Range;

use candle_core::Tensor;
use rayon::prelude::*;

use crate::attention::{Attended, Heads};
use crate::error::{Result, check};
use crate::memory::{floats, tensor};
use crate::panels::Shared;
#[cfg(device)]
pub use plan::Plan;
#[cfg(device)]
pub(crate) use plan::{Few, Many};
#[cfg(device)]
pub use pool::{PagePool, PoolRun, Slots};
use task::{Results, Task, Work, split};
pub(crate) use task::{all_seen, hide, visible};

const OP: &str = "paged_attention";

/// Tokens of a page.
pub const PAGE: usize = 64;

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

    /// Numbers of a token's value in one head.
    pub(crate) fn width(&self) -> usize {
        self.heads.dim.next_multiple_of(16)
    }

    fn head_numbers(&self) -> usize {
        PAGE * (self.heads.dim + self.width())
    }

    /// A head's keys, turned (dim, [`PAGE`]).
    pub(crate) fn keys<'a>(&self, page: &'a [f32], head: usize) -> &'a [f32] {
        &page[head * self.head_numbers()..][..PAGE * self.heads.dim]
    }

    /// A head's values ([`PAGE`], width).
    pub(crate) fn values<'a>(&self, page: &'a [f32], head: usize) -> &'a [f32] {
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
    /// Whether a token sees itself and those before it alone, and not up to the last of these.
    pub causal: bool,
}

impl Run<'_> {
    /// Position of the last token that the one at `token` of these sees.
    fn sees(&self, token: usize) -> usize {
        last_seen(self.position, token, self.rows.len(), self.causal)
    }
}

/// Position of the last token that one of `tokens` consecutive tokens sees, of which the first stands at
/// `position`.
pub(crate) fn last_seen(position: usize, token: usize, tokens: usize, causal: bool) -> usize {
    position + if causal { token } else { tokens - 1 }
}

/// Attention of each run's queries over the keys of its sequence up to their own (or to the run's last), or
/// over the last `window` of them. Runs that share pages should stand side by side.
///
/// # Shapes
/// `q` (rows, query heads · dim). A page is one layer's part.
///
/// # Errors
/// A row lies outside the batch or stands in two runs, or a page is missing or of another layout.
pub fn forward(
    q: &Tensor,
    runs: &[Run<'_>],
    heads: Heads,
    window: Option<usize>,
) -> Result<Attended> {
    let (rows, width) = q.dims2()?;
    check(width == heads.query_width(), OP, || "the queries do not fit the heads".into())?;
    check_runs(runs, PageLayout::new(heads), rows)?;
    let mut out = vec![0.0; rows * heads.query_width()];
    let mut log_sum_exp = vec![0.0; rows * heads.query];
    let results =
        Results { out: Shared::new(&mut out), log_sum_exp: Shared::new(&mut log_sum_exp) };
    attend(&floats(q, OP)?, runs, heads, window, &results);
    Ok(Attended {
        out: tensor(out, (rows, heads.query_width()))?,
        log_sum_exp: tensor(log_sum_exp, (rows, heads.query))?,
    })
}

fn attend(q: &[f32], runs: &[Run<'_>], heads: Heads, window: Option<usize>, results: &Results<'_>) {
    let layout = PageLayout::new(heads);
    let tasks: Vec<Task<'_>> = split(runs, heads)
        .into_iter()
        .flat_map(|pieces| (0..heads.kv).map(move |head| Task { head, pieces: pieces.clone() }))
        .collect();
    tasks.par_iter().with_max_len(1).for_each_init(Work::default, |work, task| {
        task.run(work, q, layout, window, results);
    });
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

#[cfg(test)]
mod tests;
