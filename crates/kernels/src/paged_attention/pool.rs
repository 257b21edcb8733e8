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

#[cfg(feature = "cuda-host")]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::through_kernels;

    const HEADS: Heads = Heads { query: 6, kv: 2, dim: 12 };
    const PAGES: usize = 24;

    fn noise(seed: u32, rows: usize, width: usize) -> Tensor {
        let number = |i: u32| ((i * 7919 + seed * 104_729) % 1013) as f32 / 253.25 - 2.0;
        let numbers: Vec<f32> = (0..(rows * width) as u32).map(number).collect();
        Tensor::from_vec(numbers, (rows, width), &Device::Cpu).unwrap()
    }

    fn pool() -> PagePool {
        let pool = PagePool::new(HEADS, PAGES, DType::F32, &Device::Cpu).unwrap();
        let places: Vec<(usize, usize)> =
            (0..PAGES * PAGE).map(|token| (token / PAGE, token % PAGE)).collect();
        let (k, v) =
            (noise(1, PAGES * PAGE, HEADS.kv_width()), noise(2, PAGES * PAGE, HEADS.kv_width()));
        pool.store(&k, &v, &Slots::new(&places, &Device::Cpu).unwrap()).unwrap();
        pool
    }

    fn attended(pool: &PagePool, q: &Tensor, runs: &[PoolRun]) -> Vec<Vec<f32>> {
        let plan = Plan::new(runs, HEADS, q.dims()[0], &Device::Cpu).unwrap();
        let Attended { out, log_sum_exp } = pool.forward(q, &plan, None).unwrap();
        Tensor::cat(&[out, log_sum_exp], 1).unwrap().to_vec2().unwrap()
    }

    #[test]
    fn a_decoded_row_has_the_same_bits_alone_and_beside_others_that_share_its_pages() {
        through_kernels(|| {
            let (pool, q) = (pool(), noise(3, 12, HEADS.query_width()));
            // Nine pages that all begin with, more than one piece; then a page or two of their own.
            let run = |row: usize| PoolRun {
                rows: row..row + 1,
                position: 9 * PAGE + 10 * row,
                pages: (0..9).chain([9 + row, 21]).collect(),
                causal: true,
            };
            let runs: Vec<PoolRun> = (0..12).map(run).collect();
            let together = attended(&pool, &q, &runs);
            for (row, run) in runs.into_iter().enumerate() {
                let alone = q.narrow(0, row, 1).unwrap().contiguous().unwrap();
                let alone = attended(&pool, &alone, &[PoolRun { rows: 0..1, ..run }]);
                assert_eq!(alone[0], together[row], "row {row}");
            }
        });
    }

    #[test]
    fn rows_that_stand_in_no_run_are_0() {
        through_kernels(|| {
            let run = PoolRun { rows: 1..2, position: 3, pages: vec![0], causal: true };
            let found = attended(&pool(), &noise(3, 3, HEADS.query_width()), &[run]);
            assert!(found[0].iter().chain(&found[2]).all(|x| *x == 0.0));
            assert!(found[1].iter().any(|x| *x != 0.0));
        });
    }

    #[test]
    fn what_a_pool_does_not_have_is_refused() {
        through_kernels(|| {
            let wide = Heads { dim: 129, ..HEADS };
            assert!(PagePool::new(wide, 1, DType::F32, &Device::Cpu).is_err());
            assert!(PagePool::new(HEADS, 1, DType::F64, &Device::Cpu).is_err());
            assert!(Slots::new(&[(0, PAGE)], &Device::Cpu).is_err());
            let pool = PagePool::new(HEADS, 2, DType::F32, &Device::Cpu).unwrap();
            assert!(pool.copy_page(0, 2).is_err());
            let (k, slots) = (noise(1, 1, HEADS.kv_width()), [(2, 0)]);
            assert!(pool.store(&k, &k, &Slots::new(&slots, &Device::Cpu).unwrap()).is_err());
            let run = PoolRun { rows: 0..1, position: 0, pages: vec![2], causal: true };
            let plan = Plan::new(&[run], HEADS, 1, &Device::Cpu).unwrap();
            let q = noise(3, 1, HEADS.query_width());
            assert!(pool.forward(&q, &plan, None).is_err());
        });
    }
}
