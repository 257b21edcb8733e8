//! Pages in the host's memory.

use candle_core::Tensor;
use embodied_r_kernels::attention::{Attended, Heads};
use embodied_r_kernels::memory;
use embodied_r_kernels::paged_attention::{self, PageLayout, Run};
use rayon::prelude::*;

use super::{CacheShape, Part, Write};
use crate::error::Result;

/// Rows beyond which it pays to store with several threads.
const MANY_ROWS: usize = 64;

/// Pages one by one, so that they can be made as they are needed.
pub(in super::super) struct HostCache {
    heads: Heads,
    layers: usize,
    /// Of each page all layers, end to end.
    pages: Vec<Box<[f32]>>,
}

impl HostCache {
    pub(super) fn new(CacheShape { heads, layers, .. }: CacheShape) -> Self {
        Self { heads, layers, pages: Vec::new() }
    }

    pub(super) fn add_page(&mut self) {
        let numbers = self.layers * PageLayout::new(self.heads).numbers();
        self.pages.push(vec![0.0; numbers].into_boxed_slice());
    }

    pub(super) fn copy_page(&mut self, from: usize, to: usize) {
        let numbers = std::mem::take(&mut self.pages[from]);
        self.pages[to].copy_from_slice(&numbers);
        self.pages[from] = numbers;
    }

    /// One layer's part of a page.
    fn layer(&self, page: usize, layer: usize) -> &[f32] {
        let numbers = PageLayout::new(self.heads).numbers();
        &self.pages[page][layer * numbers..(layer + 1) * numbers]
    }

    /// Stores a layer's keys and values; no page stands in two writes.
    pub(super) fn store(
        &mut self,
        layer: usize,
        writes: &[Write],
        (k, v): (&Tensor, &Tensor),
    ) -> Result<()> {
        let (k, v) = (memory::floats(k, "cache")?, memory::floats(v, "cache")?);
        let (layout, width) = (PageLayout::new(self.heads), self.heads.kv_width());
        let at = layer * layout.numbers()..(layer + 1) * layout.numbers();
        // Lent out for the time being, so that threads can write to them side by side.
        let mut lent: Vec<(&Write, Box<[f32]>)> = writes
            .iter()
            .map(|write| (write, std::mem::take(&mut self.pages[write.page])))
            .collect();
        let store = |(write, numbers): &mut (&Write, Box<[f32]>)| {
            let rows = write.rows.start * width..write.rows.end * width;
            layout.store(&mut numbers[at.clone()], write.slot, &k[rows.clone()], &v[rows])
        };
        let rows: usize = writes.iter().map(|write| write.rows.len()).sum();
        let stored = match rows > MANY_ROWS {
            true => lent.par_iter_mut().try_for_each(store),
            false => lent.iter_mut().try_for_each(store),
        };
        for (write, numbers) in lent {
            self.pages[write.page] = numbers;
        }
        Ok(stored?)
    }

    pub(super) fn attend(
        &self,
        layer: usize,
        q: &Tensor,
        parts: &[Part],
        window: Option<usize>,
    ) -> Result<Attended> {
        let run = |part: &Part| Run {
            rows: part.rows.clone(),
            position: part.position,
            pages: part.pages.iter().map(|page| self.layer(*page, layer)).collect(),
            causal: true,
        };
        let runs: Vec<Run<'_>> = parts.iter().map(run).collect();
        Ok(paged_attention::forward(q, &runs, self.heads, window)?)
    }
}
