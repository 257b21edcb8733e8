//! Attention over a paged KV cache.
//!
//! A step decodes one token for many sequences, prefills chunks of prompts, or both. A page shared by neighboring
//! sequences is read once for all of them. Scores exist for a tile of queries and one page at a time. A query's
//! result is accumulated page by page from its first key on (online softmax), so it is bit-identical for any batch
//! composition and any chunking of the prompt.

#[cfg(device)]
mod decode_kernel;
mod layout;
#[cfg(device)]
mod plan;
#[cfg(device)]
mod pool;
mod task;

use candle_core::Tensor;
use rayon::prelude::*;

use crate::attention::{AttentionOutput, Heads};
use crate::error::{Result, check};
use crate::memory::{floats, tensor};
use crate::panels::Shared;
use crate::parallel;
#[cfg(device)]
pub use decode_kernel::DecodeKernel;
pub(crate) use layout::last_visible;
pub use layout::{PAGE_SIZE, PageLayout, QueryChunk};
#[cfg(device)]
pub(crate) use plan::{DecodeBatch, PrefillChunk};
#[cfg(device)]
pub use plan::{PagedAttentionPlan, PooledQueryChunk};
#[cfg(device)]
pub use pool::{PagePool, SlotMapping};
use task::{Results, Task, Workspace, split};
pub(crate) use task::{hide, visible_slots, visible_union};

const OP: &str = "paged_attention";

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
    let mut out = parallel::zeros(rows * heads.q_size());
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
