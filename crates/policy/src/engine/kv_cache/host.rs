//! KV-cache pages in host memory.

use candle_core::Tensor;
use embodied_r_kernels::attention::{AttentionOutput, Heads};
use embodied_r_kernels::memory;
use embodied_r_kernels::paged_attention::{self, PageLayout, QueryChunk};
use rayon::prelude::*;

use super::shape::{KvCacheShape, PageWrite};
use crate::engine::chunk::SequenceChunk;
use crate::error::Result;

/// Number of rows from which storing with several threads pays off.
const MANY_ROWS: usize = 64;

/// Pages are allocated one by one, on demand.
pub(in super::super) struct HostCache {
    heads: Heads,
    layers: usize,
    /// Each page holds all layers, contiguously.
    pages: Vec<Box<[f32]>>,
}

impl HostCache {
    pub(super) fn new(KvCacheShape { heads, layers, .. }: KvCacheShape) -> Self {
        Self { heads, layers, pages: Vec::new() }
    }

    pub(super) fn add_page(&mut self) {
        let elements = self.layers * PageLayout::new(self.heads).elements();
        self.pages.push(vec![0.0; elements].into_boxed_slice());
    }

    pub(super) fn copy_page(&mut self, from: usize, to: usize) {
        let elements = std::mem::take(&mut self.pages[from]);
        self.pages[to].copy_from_slice(&elements);
        self.pages[from] = elements;
    }

    /// The section of a page that belongs to one layer.
    fn layer(&self, page: usize, layer: usize) -> &[f32] {
        let elements = PageLayout::new(self.heads).elements();
        &self.pages[page][layer * elements..(layer + 1) * elements]
    }

    /// Stores a layer's keys and values; each page occurs in at most one write.
    pub(super) fn store(
        &mut self,
        layer: usize,
        writes: &[PageWrite],
        (k, v): (&Tensor, &Tensor),
    ) -> Result<()> {
        let (k, v) = (memory::floats(k, "cache")?, memory::floats(v, "cache")?);
        let (layout, width) = (PageLayout::new(self.heads), self.heads.kv_size());
        let at = layer * layout.elements()..(layer + 1) * layout.elements();
        // Taken out of the cache so that threads can write to different pages in parallel.
        let mut taken: Vec<(&PageWrite, Box<[f32]>)> = writes
            .iter()
            .map(|write| (write, std::mem::take(&mut self.pages[write.page])))
            .collect();
        let store = |(write, elements): &mut (&PageWrite, Box<[f32]>)| {
            let rows = write.rows.start * width..write.rows.end * width;
            layout.store(&mut elements[at.clone()], write.slot, &k[rows.clone()], &v[rows])
        };
        let rows: usize = writes.iter().map(|write| write.rows.len()).sum();
        let stored = match rows > MANY_ROWS {
            true => taken.par_iter_mut().try_for_each(store),
            false => taken.iter_mut().try_for_each(store),
        };
        for (write, elements) in taken {
            self.pages[write.page] = elements;
        }
        Ok(stored?)
    }

    pub(super) fn attend(
        &self,
        layer: usize,
        q: &Tensor,
        chunks: &[SequenceChunk],
        window: Option<usize>,
    ) -> Result<AttentionOutput> {
        let run = |chunk: &SequenceChunk| QueryChunk {
            rows: chunk.rows.clone(),
            position: chunk.position,
            pages: chunk.pages.iter().map(|page| self.layer(*page, layer)).collect(),
            causal: true,
        };
        let runs: Vec<QueryChunk<'_>> = chunks.iter().map(run).collect();
        Ok(paged_attention::forward(q, &runs, self.heads, window)?)
    }
}
