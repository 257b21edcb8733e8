//! Attention over a paged KV cache.
//!
//! A step decodes one token for many sequences, prefills chunks of prompts, or both. A page shared by neighboring
//! sequences is read once for all of them. Scores exist for a tile of queries and one page at a time. A query's
//! result is accumulated page by page from its first key on (online softmax), so it is bit-identical for any batch
//! composition and any chunking of the prompt.

#[cfg(device)]
mod decode_kernel;
#[cfg(device)]
mod plan;
#[cfg(device)]
mod pool;
mod task;

use std::ops::Range;

use candle_core::Tensor;
use rayon::prelude::*;

use crate::attention::{AttentionOutput, Heads};
use crate::error::{Result, check};
use crate::memory::{floats, tensor};
use crate::panels::Shared;
#[cfg(device)]
pub use decode_kernel::DecodeKernel;
#[cfg(device)]
pub use plan::PagedAttentionPlan;
#[cfg(device)]
pub(crate) use plan::{DecodeBatch, PrefillChunk};
#[cfg(device)]
pub use pool::{PagePool, PooledQueryChunk, SlotMapping};
use task::{Results, Task, Workspace, split};
pub(crate) use task::{hide, visible_slots, visible_union};

const OP: &str = "paged_attention";

/// Tokens per page.
pub const PAGE_SIZE: usize = 64;

/// Layout of one layer's part of a page. For each KV head: transposed keys (dim, [`PAGE_SIZE`]), then values
/// ([`PAGE_SIZE`], dim padded to a multiple of 16).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageLayout {
    heads: Heads,
}

impl PageLayout {
    /// The layout for `heads`.
    pub fn new(heads: Heads) -> Self {
        Self { heads }
    }

    /// Elements of one layer's part of a page.
    pub fn elements(&self) -> usize {
        self.heads.kv * self.head_elements()
    }

    /// Elements of a token's value in one head, with padding.
    pub(crate) fn padded_dim(&self) -> usize {
        self.heads.dim.next_multiple_of(16)
    }

    fn head_elements(&self) -> usize {
        PAGE_SIZE * (self.heads.dim + self.padded_dim())
    }

    /// A head's keys, transposed (dim, [`PAGE_SIZE`]).
    pub(crate) fn keys<'a>(&self, page: &'a [f32], head: usize) -> &'a [f32] {
        &page[head * self.head_elements()..][..PAGE_SIZE * self.heads.dim]
    }

    /// A head's values ([`PAGE_SIZE`], padded dim).
    pub(crate) fn values<'a>(&self, page: &'a [f32], head: usize) -> &'a [f32] {
        let start = head * self.head_elements() + PAGE_SIZE * self.heads.dim;
        &page[start..start + PAGE_SIZE * self.padded_dim()]
    }

    /// Writes keys and values of consecutive tokens to the page, from slot `first` on.
    ///
    /// # Shapes
    /// `k` and `v` (tokens, kv heads · dim).
    ///
    /// # Errors
    /// The page's size differs from the layout's, or the tokens do not fit.
    pub fn store(&self, page: &mut [f32], first: usize, k: &[f32], v: &[f32]) -> Result<()> {
        let (dim, kv_size) = (self.heads.dim, self.heads.kv_size());
        let tokens = k.len() / kv_size.max(1);
        if tokens == 0 {
            return Ok(());
        }
        check(page.len() == self.elements(), OP, || {
            "the page size differs from the layout's".into()
        })?;
        check(k.len() == v.len() && k.len() == tokens * kv_size, OP, || {
            "keys and values must be whole tokens of equal number".into()
        })?;
        check(first + tokens <= PAGE_SIZE, OP, || format!("{tokens} tokens do not fit the page"))?;
        let parts = page.chunks_mut(self.head_elements().max(1));
        for (head, part) in parts.enumerate() {
            let (keys, values) = part.split_at_mut(PAGE_SIZE * dim);
            for (d, keys) in keys.chunks_mut(PAGE_SIZE).enumerate() {
                let of_head = k[head * dim + d..].iter().step_by(kv_size);
                for (key, k) in keys[first..first + tokens].iter_mut().zip(of_head) {
                    *key = *k;
                }
            }
            let values = values[first * self.padded_dim()..].chunks_mut(self.padded_dim());
            for (values, v) in values.zip(v.chunks(kv_size)) {
                values[..dim].copy_from_slice(&v[head * dim..(head + 1) * dim]);
            }
        }
        Ok(())
    }
}

/// Consecutive tokens of a sequence whose queries are computed: one token when decoding, a chunk of the prompt in
/// prefill.
pub struct QueryChunk<'a> {
    /// Their rows in the batch and in the output.
    pub rows: Range<usize>,
    /// Position of the first token in its sequence.
    pub position: usize,
    /// The sequence's pages, from its start up to the last of these tokens.
    pub pages: Vec<&'a [f32]>,
    /// Whether attention is causal. Otherwise each token attends up to the last token of the chunk.
    pub causal: bool,
}

impl QueryChunk<'_> {
    /// Position of the last token that `token` of this chunk attends to.
    fn last_visible_to(&self, token: usize) -> usize {
        last_visible(self.position, token, self.rows.len(), self.causal)
    }
}

/// Position of the last token that `token` attends to, in a chunk of `tokens` tokens that starts at `position`.
pub(crate) fn last_visible(position: usize, token: usize, tokens: usize, causal: bool) -> usize {
    position + if causal { token } else { tokens - 1 }
}

/// Attention of each chunk's queries over the keys of their sequence, causally or up to the chunk's last token,
/// optionally within a sliding window. Chunks that share pages should be adjacent.
///
/// # Shapes
/// `q` (rows, query heads · dim). A page is one layer's part.
///
/// # Errors
/// A row is out of range or in two chunks, a page is missing, or a page has another layout.
pub fn forward(
    q: &Tensor,
    chunks: &[QueryChunk<'_>],
    heads: Heads,
    window: Option<usize>,
) -> Result<AttentionOutput> {
    let (rows, width) = q.dims2()?;
    check(width == heads.q_size(), OP, || "the query size differs from the heads'".into())?;
    check_chunks(chunks, PageLayout::new(heads), rows)?;
    let mut out = vec![0.0; rows * heads.q_size()];
    let mut log_sum_exp = vec![0.0; rows * heads.query];
    let results =
        Results { out: Shared::new(&mut out), log_sum_exp: Shared::new(&mut log_sum_exp) };
    attend(&floats(q, OP)?, chunks, heads, window, &results);
    Ok(AttentionOutput {
        out: tensor(out, (rows, heads.q_size()))?,
        log_sum_exp: tensor(log_sum_exp, (rows, heads.query))?,
    })
}

fn attend(
    q: &[f32],
    chunks: &[QueryChunk<'_>],
    heads: Heads,
    window: Option<usize>,
    results: &Results<'_>,
) {
    let layout = PageLayout::new(heads);
    let tasks: Vec<Task<'_>> = split(chunks, heads)
        .into_iter()
        .flat_map(|pieces| (0..heads.kv).map(move |head| Task { head, pieces: pieces.clone() }))
        .collect();
    tasks.par_iter().with_max_len(1).for_each_init(Workspace::default, |work, task| {
        task.run(work, q, layout, window, results);
    });
}

fn check_chunks(chunks: &[QueryChunk<'_>], layout: PageLayout, rows: usize) -> Result<()> {
    let mut taken = vec![false; rows];
    for chunk in chunks {
        let tokens = chunk.position + chunk.rows.len();
        let pages = chunk.pages.len();
        check(tokens <= pages * PAGE_SIZE, OP, || format!("{pages} pages for {tokens} tokens"))?;
        for row in chunk.rows.clone() {
            let free = row < rows && !std::mem::replace(&mut taken[row], true);
            check(free, OP, || format!("row {row} is out of range or in two chunks"))?;
        }
        let fit = chunk.pages.iter().all(|page| page.len() == layout.elements());
        check(fit, OP, || "the page size differs from the layout's".into())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
