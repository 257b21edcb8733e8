//! Pages of keys and values on the device.

use std::ops::Range;

use candle_core::{DType, Device, Tensor};

use super::plan::Plan;
use super::{OP, PAGE};
use crate::attention::{Attended, Heads};
use crate::cuda;
use crate::error::{Result, check};

/// Consecutive tokens of a sequence whose queries are computed, with the sequence's pages by their index in a
/// [`PagePool`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolRun {
    /// Their rows in the batch, and in the result.
    pub rows: Range<usize>,
    /// Position of the first in its sequence.
    pub position: usize,
    /// The sequence's pages, from its beginning up to the last of these tokens.
    pub pages: Vec<usize>,
    /// Whether a token sees itself and those before it alone, and not up to the last of these.
    pub causal: bool,
}

/// Where the tokens of a batch go in a pool, for all layers of a step.
pub struct Slots {
    slots: Tensor,
    count: usize,
    pages: usize,
}

impl Slots {
    /// Each token's page and its place in it, on `device`; no two tokens have the same.
    ///
    /// # Errors
    /// A place lies outside its page, or there is no room.
    pub fn new(places: &[(usize, usize)], device: &Device) -> Result<Self> {
        let outside = places.iter().find(|(_, place)| *place >= PAGE);
        check(outside.is_none(), OP, || format!("a page has {PAGE} places"))?;
        let slots: Vec<usize> = places.iter().map(|(page, place)| page * PAGE + place).collect();
        let pages = places.iter().map(|(page, _)| page + 1).max().unwrap_or(0);
        Ok(Self { slots: cuda::upload(&slots, device, OP)?, count: places.len(), pages })
    }
}

/// One layer's pages of keys and values on the device, in f32 or bf16.
///
/// A page lies as (2, kv heads, [`PAGE`], head size made a multiple of 8): keys, then values.
///
/// A query's result is summed up in pieces of pages of a fixed length from its first key on: the same bits
/// whoever else is in the step. Runs of many queries go through dense products instead, whose sums depend on
/// how a prompt is cut into runs.
pub struct PagePool {
    numbers: Tensor,
    heads: Heads,
    pages: usize,
}

impl PagePool {
    /// Room for so many pages, with nothing in them.
    ///
    /// # Errors
    /// A head is larger than 128, `dtype` is neither f32 nor bf16, `device` is not one with kernels, or there is
    /// no room.
    pub fn new(heads: Heads, pages: usize, dtype: DType, device: &Device) -> Result<Self> {
        let fits = heads.kv > 0 && heads.query.is_multiple_of(heads.kv) && heads.query > 0;
        check(fits, OP, || format!("{} query heads, {} key heads", heads.query, heads.kv))?;
        check((1..=128).contains(&heads.dim), OP, || {
            format!("heads of {} numbers, the kernels take at most 128", heads.dim)
        })?;
        let numbers = cuda::paged_attention::room(heads, pages, dtype, device)?;
        Ok(Self { numbers, heads, pages })
    }

    /// Makes room for so many pages, of which the first are those that it has.
    ///
    /// # Errors
    /// There are more already, or there is no room.
    pub fn grow(&mut self, pages: usize) -> Result<()> {
        check(pages >= self.pages, OP, || format!("{pages} pages are fewer than {}", self.pages))?;
        self.numbers = cuda::paged_attention::grown(&self.numbers, self.heads, pages)?;
        self.pages = pages;
        Ok(())
    }

    /// Bytes of a page.
    pub fn page_bytes(heads: Heads, dtype: DType) -> usize {
        cuda::paged_attention::page_numbers(heads) * dtype.size_in_bytes()
    }

    /// Pages that it has room for.
    pub fn pages(&self) -> usize {
        self.pages
    }

    /// Puts keys and values of a batch into their places.
    ///
    /// # Shapes
    /// `k` and `v` (tokens, kv heads · dim), held as the pool is.
    ///
    /// # Errors
    /// The shapes do not fit, or a page is not there.
    pub fn store(&self, k: &Tensor, v: &Tensor, slots: &Slots) -> Result<()> {
        let shape = [slots.count, self.heads.kv_width()];
        check(k.dims() == shape && v.dims() == shape, OP, || "keys or values misfit".into())?;
        self.check_pages(slots.pages)?;
        cuda::paged_attention::store(&self.numbers, (k, v), &slots.slots, self.heads)
    }

    /// Copies a page over another.
    ///
    /// # Errors
    /// A page is not there.
    pub fn copy_page(&self, from: usize, to: usize) -> Result<()> {
        self.check_pages(from.max(to) + 1)?;
        match from == to {
            true => Ok(()),
            false => cuda::paged_attention::copy_page(&self.numbers, from, to),
        }
    }

    /// Attention of each run's queries over the keys of its sequence up to their own (or to the run's last), or
    /// over the last `window` of them.
    ///
    /// # Shapes
    /// `q` (rows of the plan, query heads · dim), held as the pool is.
    ///
    /// # Errors
    /// The queries or the plan are another pool's, or the window is 0.
    pub fn forward(&self, q: &Tensor, plan: &Plan, window: Option<usize>) -> Result<Attended> {
        check(plan.heads == self.heads, OP, || "the plan is one for other heads".into())?;
        check(q.dims() == [plan.rows, self.heads.query_width()], OP, || {
            format!("the plan has {} rows", plan.rows)
        })?;
        check(window != Some(0), OP, || "a window of 0 tokens shows nothing".into())?;
        check(window.is_none() || plan.causal, OP, || "a window looks back, not around".into())?;
        self.check_pages(plan.pages)?;
        cuda::paged_attention::forward(q, &self.numbers, plan, window)
    }

    fn check_pages(&self, wanted: usize) -> Result<()> {
        check(wanted <= self.pages, OP, || {
            format!("page {} of a pool of {}", wanted.saturating_sub(1), self.pages)
        })
    }
}
