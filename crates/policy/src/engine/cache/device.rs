//! Pages on the device.

use candle_core::{DType, Device, Tensor};
use embodied_r_kernels::attention::{Attended, Heads};
use embodied_r_kernels::paged_attention::{PagePool, Plan, PoolRun, Slots};

use super::{CacheShape, Part, Write};
use crate::error::{Error, Result};

/// Pages that there is room for at least, so that pools grow seldom.
const FEW: usize = 64;

/// A pool for each layer. Its memory is asked for with the first keys that it takes, and doubles as pages come.
pub(in super::super) struct DeviceCache {
    heads: Heads,
    capacity: Option<usize>,
    device: Device,
    pages: usize,
    pools: Vec<Option<PagePool>>,
}

impl DeviceCache {
    pub(super) fn new(CacheShape { heads, layers, capacity }: CacheShape, device: &Device) -> Self {
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

    /// Pages to make room for.
    fn room(&self) -> usize {
        let doubled = self.pages.next_power_of_two().max(FEW);
        self.capacity.map_or(doubled, |capacity| doubled.min(capacity)).max(self.pages)
    }

    /// The pool of a layer, with room for all pages.
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

    pub(super) fn slots(&self, writes: &[Write]) -> Result<Slots> {
        let places = writes.iter().flat_map(|Write { page, slot, rows }| {
            (0..rows.len()).map(move |token| (*page, slot + token))
        });
        Ok(Slots::new(&places.collect::<Vec<_>>(), &self.device)?)
    }

    pub(super) fn plan(&self, parts: &[Part], rows: usize) -> Result<Plan> {
        let run = |part: &Part| PoolRun {
            rows: part.rows.clone(),
            position: part.position,
            pages: part.pages.clone(),
            causal: true,
        };
        let runs: Vec<PoolRun> = parts.iter().map(run).collect();
        Ok(Plan::new(&runs, self.heads, rows, &self.device)?)
    }

    pub(super) fn store(
        &mut self,
        layer: usize,
        slots: &Slots,
        (k, v): (&Tensor, &Tensor),
    ) -> Result<()> {
        Ok(self.pool(layer, k.dtype())?.store(k, v, slots)?)
    }

    pub(super) fn attend(
        &self,
        layer: usize,
        q: &Tensor,
        plan: Option<&Plan>,
        window: Option<usize>,
    ) -> Result<Attended> {
        let empty = || Error::EmptyCache { layer };
        let (pool, plan) = self.pools[layer].as_ref().zip(plan).ok_or_else(empty)?;
        Ok(pool.forward(q, plan, window)?)
    }
}
