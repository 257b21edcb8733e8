//! KV-cache pages on the device.

use candle_core::{DType, Device, Tensor};
use embodied_r_kernels::attention::{AttentionOutput, Heads};
use embodied_r_kernels::paged_attention::{
    PagePool, PagedAttentionPlan, PooledQueryChunk, SlotMapping,
};

use super::shape::{KvCacheShape, PageWrite};
use crate::engine::chunk::SequenceChunk;
use crate::error::{Error, Result};

/// Minimum capacity of a pool in pages, so that pools rarely grow.
const MIN_PAGES: usize = 64;

/// One pool per layer, allocated on its first store and doubled as pages are added.
pub(in super::super) struct DeviceCache {
    heads: Heads,
    capacity: Option<usize>,
    device: Device,
    pages: usize,
    pools: Vec<Option<PagePool>>,
}

impl DeviceCache {
    pub(super) fn new(
        KvCacheShape { heads, layers, capacity }: KvCacheShape,
        device: &Device,
    ) -> Self {
        let pools = std::iter::repeat_with(|| None).take(layers).collect();
        Self { heads, capacity, device: device.clone(), pages: 0, pools }
    }

    pub(super) fn add_page(&mut self) {
        self.pages += 1;
    }

    pub(super) fn copy_page(&mut self, from: usize, to: usize) -> Result<()> {
        let room = self.room();
        for pool in self.pools.iter_mut().flatten() {
            if pool.pages() < self.pages {
                pool.grow(room)?;
            }
            pool.copy_page(from, to)?;
        }
        Ok(())
    }

    /// Capacity to allocate, in pages.
    fn room(&self) -> usize {
        let doubled = self.pages.next_power_of_two().max(MIN_PAGES);
        self.capacity.map_or(doubled, |capacity| doubled.min(capacity)).max(self.pages)
    }

    /// The pool of a layer, grown to hold all pages.
    fn pool(&mut self, layer: usize, dtype: DType) -> Result<&PagePool> {
        let room = self.room();
        let mut pool = match self.pools[layer].take() {
            None => PagePool::new(self.heads, room, dtype, &self.device)?,
            Some(pool) => pool,
        };
        if pool.pages() < self.pages {
            pool.grow(room)?;
        }
        Ok(self.pools[layer].insert(pool))
    }

    pub(super) fn slots(&self, writes: &[PageWrite]) -> Result<SlotMapping> {
        let positions = writes.iter().flat_map(|PageWrite { page, slot, rows }| {
            (0..rows.len()).map(move |token| (*page, slot + token))
        });
        Ok(SlotMapping::new(&positions.collect::<Vec<_>>(), &self.device)?)
    }

    pub(super) fn plan(&self, chunks: &[SequenceChunk], rows: usize) -> Result<PagedAttentionPlan> {
        let run = |chunk: &SequenceChunk| PooledQueryChunk {
            rows: chunk.rows.clone(),
            position: chunk.position,
            pages: chunk.pages.clone(),
            causal: true,
        };
        let runs: Vec<PooledQueryChunk> = chunks.iter().map(run).collect();
        Ok(PagedAttentionPlan::new(&runs, self.heads, rows, &self.device)?)
    }

    pub(super) fn store(
        &mut self,
        layer: usize,
        slots: &SlotMapping,
        (k, v): (&Tensor, &Tensor),
    ) -> Result<()> {
        Ok(self.pool(layer, k.dtype())?.store(k, v, slots)?)
    }

    pub(super) fn attend(
        &self,
        layer: usize,
        q: &Tensor,
        plan: Option<&PagedAttentionPlan>,
        window: Option<usize>,
    ) -> Result<AttentionOutput> {
        let empty = || Error::EmptyCache { layer };
        let (pool, plan) = self.pools[layer].as_ref().zip(plan).ok_or_else(empty)?;
        Ok(pool.forward(q, plan, window)?)
    }
}
