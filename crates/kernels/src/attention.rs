//! Grouped-query attention over packed sequences that share prompts, causal or bidirectional.
//!
//! A batch is packed: for each group its prompt, then its completions. Each completion attends to the whole prompt
//! and causally to itself, optionally within a sliding window. Keys and values are stored in pages; the completions
//! of a group share their prompt's pages, so training runs the forward of sampling. Only the scores of a few queries
//! with one page exist at a time; the backward recomputes them from the saved log-sum-exp.

mod backward;
mod packed;
mod pages;

use candle_core::Tensor;

use crate::device::on_device;
use crate::error::{Result, check};
use crate::memory::floats;
use crate::paged_attention;
pub use backward::{AttentionGradients, backward, workspace_elements};
pub use packed::{AttentionOutput, GroupSpan, Heads, Pattern};
use pages::{PageData, PageTable};

const OP: &str = "attention";

/// Attention with scores `q · k / sqrt(dim)` under `pattern`.
///
/// # Shapes
/// `q` (tokens without the `kv_only` ones, query heads · dim), `k` and `v` (tokens, kv heads · dim); `spans` cover
/// the tokens contiguously.
///
/// # Errors
/// The shapes or spans do not fit, the window is 0, or a tensor is not contiguous `f32` on the CPU.
pub fn forward(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    spans: &[GroupSpan],
    pattern: Pattern,
) -> Result<AttentionOutput> {
    let heads = pattern.heads;
    check_shapes(q, k, v, spans, pattern)?;
    on_device!(q, attention::forward(q, k, v, spans, pattern));
    let table = PageTable::new(spans, heads);
    let pages = PageData::new(&table, &floats(k, OP)?, &floats(v, OP)?)?;
    let chunks = table.chunks(&pages, pattern.causal);
    paged_attention::forward(q, &chunks, heads, pattern.window)
}

fn check_shapes(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    spans: &[GroupSpan],
    Pattern { heads, window, causal }: Pattern,
) -> Result<()> {
    let ((queries, width), (tokens, _)) = (q.dims2()?, k.dims2()?);
    check(heads.kv > 0 && heads.query.is_multiple_of(heads.kv), OP, || {
        format!("{} query heads are not a multiple of {} KV heads", heads.query, heads.kv)
    })?;
    check(window != Some(0), OP, || "the sliding window must be at least 1".into())?;
    check(causal || window.is_none(), OP, || "a sliding window needs causal attention".into())?;
    check(width == heads.q_size(), OP, || "the query size differs from the heads'".into())?;
    let kv = [tokens, heads.kv_size()];
    check(k.dims() == kv && v.dims() == kv, OP, || "the shape of keys or values is wrong".into())?;
    let mut end = 0;
    let contiguous = spans.iter().all(|span| {
        let follows = span.prompt.start == end && span.is_contiguous();
        end = span.rows().end;
        follows
    });
    check(contiguous && end == tokens, OP, || "the spans do not cover the tokens".into())?;
    let kv_only: usize = spans.iter().map(|span| span.kv_only).sum();
    check(spans.iter().all(|span| span.kv_only <= span.prompt.len()), OP, || {
        "`kv_only` exceeds the prompt length".into()
    })?;
    check(queries + kv_only == tokens, OP, || {
        format!("{queries} queries for {tokens} tokens, {kv_only} of them keys and values only")
    })
}

#[cfg(test)]
mod tests;
