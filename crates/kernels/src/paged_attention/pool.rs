//! Paged KV cache on the device.

use candle_core::{DType, Device, Tensor};

use super::plan::PagedAttentionPlan;
use super::{OP, PAGE_SIZE};
use crate::attention::{AttentionOutput, Heads};
use crate::cuda;
use crate::error::{Result, check};

/// KV cache slots of a batch's tokens, for all layers of a step.
pub struct SlotMapping {
    slots: Tensor,
    count: usize,
    pages: usize,
}

impl SlotMapping {
    /// Each token's page and slot in it, uploaded to `device`; no two tokens may share a slot.
    ///
    /// # Errors
    /// A slot is outside its page, or out of memory.
    pub fn new(page_slots: &[(usize, usize)], device: &Device) -> Result<Self> {
        let outside = page_slots.iter().find(|(_, slot)| *slot >= PAGE_SIZE);
        check(outside.is_none(), OP, || format!("a page has {PAGE_SIZE} slots"))?;
        let slots: Vec<usize> =
            page_slots.iter().map(|(page, slot)| page * PAGE_SIZE + slot).collect();
        let pages = page_slots.iter().map(|(page, _)| page + 1).max().unwrap_or(0);
        Ok(Self { slots: cuda::upload(&slots, device, OP)?, count: page_slots.len(), pages })
    }
}

/// One layer's paged keys and values on the device, in f32 or bf16.
///
/// A page is (2, kv heads, [`PAGE_SIZE`], head size padded to a multiple of 8): keys, then values.
///
/// Decoding accumulates a query's result over splits of a fixed number of pages, so it is bit-identical for any batch
/// composition. Prefill chunks run as dense GEMMs, whose summation order depends on the chunking of the prompt.
pub struct PagePool {
    data: Tensor,
    heads: Heads,
    pages: usize,
}

impl PagePool {
    /// Allocates zeroed pages.
    ///
    /// # Errors
    /// The head size exceeds 128, `dtype` is neither f32 nor bf16, `device` has no kernels, or out of memory.
    pub fn new(heads: Heads, pages: usize, dtype: DType, device: &Device) -> Result<Self> {
        let fits = heads.kv > 0 && heads.query.is_multiple_of(heads.kv) && heads.query > 0;
        check(fits, OP, || {
            format!("{} query heads are not a multiple of {} KV heads", heads.query, heads.kv)
        })?;
        check((1..=128).contains(&heads.dim), OP, || {
            format!("a head size of {}, the kernels support at most 128", heads.dim)
        })?;
        let data = cuda::paged_attention::alloc_pages(heads, pages, dtype, device)?;
        Ok(Self { data, heads, pages })
    }

    /// Grows the pool to `pages` pages; existing pages keep their content.
    ///
    /// # Errors
    /// The pool is larger already, or out of memory.
    pub fn grow(&mut self, pages: usize) -> Result<()> {
        check(pages >= self.pages, OP, || {
            format!("cannot shrink to {pages} pages from {}", self.pages)
        })?;
        self.data = cuda::paged_attention::grown(&self.data, self.heads, pages)?;
        self.pages = pages;
        Ok(())
    }

    /// Number of pages.
    pub fn pages(&self) -> usize {
        self.pages
    }

    /// Writes keys and values of a batch to their slots.
    ///
    /// # Shapes
    /// `k` and `v` (tokens, kv heads · dim), in the pool's dtype.
    ///
    /// # Errors
    /// The shapes are inconsistent, or a page is out of range.
    pub fn store(&self, k: &Tensor, v: &Tensor, slots: &SlotMapping) -> Result<()> {
        let shape = [slots.count, self.heads.kv_size()];
        check(k.dims() == shape && v.dims() == shape, OP, || {
            "the shape of keys or values is wrong".into()
        })?;
        self.check_pages(slots.pages)?;
        cuda::paged_attention::store(&self.data, (k, v), &slots.slots, self.heads)
    }

    /// Copies a page (copy-on-write).
    ///
    /// # Errors
    /// A page is out of range.
    pub fn copy_page(&self, from: usize, to: usize) -> Result<()> {
        self.check_pages(from.max(to) + 1)?;
        match from == to {
            true => Ok(()),
            false => cuda::paged_attention::copy_page(&self.data, from, to),
        }
    }

    /// Attention of each chunk's queries over the keys of their sequence, causally or up to the chunk's last token,
    /// optionally within a sliding window.
    ///
    /// # Shapes
    /// `q` (rows of the plan, query heads · dim), in the pool's dtype.
    ///
    /// # Errors
    /// The queries or the plan belong to another pool, or the window is 0.
    pub fn forward(
        &self,
        q: &Tensor,
        plan: &PagedAttentionPlan,
        window: Option<usize>,
    ) -> Result<AttentionOutput> {
        check(plan.heads == self.heads, OP, || "the plan was made for other heads".into())?;
        check(q.dims() == [plan.rows, self.heads.q_size()], OP, || {
            format!("the plan has {} rows", plan.rows)
        })?;
        check(window != Some(0), OP, || "the sliding window must be at least 1".into())?;
        check(window.is_none() || plan.causal, OP, || {
            "a sliding window needs causal attention".into()
        })?;
        self.check_pages(plan.pages)?;
        cuda::paged_attention::forward(q, &self.data, plan, window)
    }

    fn check_pages(&self, required: usize) -> Result<()> {
        check(required <= self.pages, OP, || {
            format!(
                "page {} is out of range for a pool of {}",
                required.saturating_sub(1),
                self.pages
            )
        })
    }
}

#[cfg(feature = "cuda-host")]
#[cfg(test)]
mod tests;
