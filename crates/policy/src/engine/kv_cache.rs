//! Storage of the paged KV cache: page by page in host memory, or in one pool per layer on the device.

#[cfg(any(feature = "cuda", feature = "cuda-host"))]
mod device;
mod host;
mod shape;

use candle_core::{Device, Tensor};
use embodied_r_kernels::attention::AttentionOutput;
use embodied_r_kernels::paged_attention::PAGE_SIZE;
#[cfg(any(feature = "cuda", feature = "cuda-host"))]
use embodied_r_kernels::paged_attention::{PagedAttentionPlan, SlotMapping};

#[cfg(any(feature = "cuda", feature = "cuda-host"))]
use self::device::DeviceCache;
use self::host::HostCache;
pub(super) use self::shape::{KvCacheShape, PageWrite};
use super::chunk::SequenceChunk;
use crate::error::Result;

/// The paged KV cache of an engine.
pub(super) enum KvCache {
    Host(HostCache),
    #[cfg(any(feature = "cuda", feature = "cuda-host"))]
    Device(DeviceCache),
}

/// Where a step stores its tokens' keys and values, for every layer.
pub(super) struct StepWrites {
    pub(super) writes: Vec<PageWrite>,
    #[cfg(any(feature = "cuda", feature = "cuda-host"))]
    slots: Option<SlotMapping>,
}

/// Which pages a step's queries attend to, for every layer.
pub(super) struct AttentionMetadata<'a> {
    chunks: &'a [SequenceChunk],
    #[cfg(any(feature = "cuda", feature = "cuda-host"))]
    plan: Option<PagedAttentionPlan>,
}

impl KvCache {
    /// An empty cache in the memory of `device`.
    pub(super) fn new(shape: KvCacheShape, device: &Device) -> Self {
        #[cfg(any(feature = "cuda", feature = "cuda-host"))]
        if embodied_r_kernels::device::has_kernels(device) {
            return Self::Device(DeviceCache::new(shape, device));
        }
        let _ = device;
        Self::Host(HostCache::new(shape))
    }

    /// Adds a page.
    pub(super) fn add_page(&mut self) {
        match self {
            Self::Host(host) => host.add_page(),
            #[cfg(any(feature = "cuda", feature = "cuda-host"))]
            Self::Device(device) => device.add_page(),
        }
    }

    /// Copies a page over another.
    pub(super) fn copy_page(&mut self, from: usize, to: usize) -> Result<()> {
        match self {
            Self::Host(host) => host.copy_page(from, to),
            #[cfg(any(feature = "cuda", feature = "cuda-host"))]
            Self::Device(device) => device.copy_page(from, to)?,
        }
        Ok(())
    }

    /// The slots of the tokens of `chunks`.
    pub(super) fn step_writes(&self, chunks: &[SequenceChunk]) -> Result<StepWrites> {
        let writes = writes(chunks);
        Ok(StepWrites {
            #[cfg(any(feature = "cuda", feature = "cuda-host"))]
            slots: match self {
                Self::Host(_) => None,
                Self::Device(device) => Some(device.slots(&writes)?),
            },
            writes,
        })
    }

    /// The attention metadata for the tokens of `chunks`, queries of a batch of `rows` rows.
    pub(super) fn attention_metadata<'a>(
        &self,
        chunks: &'a [SequenceChunk],
        rows: usize,
    ) -> Result<AttentionMetadata<'a>> {
        let _ = rows;
        Ok(AttentionMetadata {
            chunks,
            #[cfg(any(feature = "cuda", feature = "cuda-host"))]
            plan: match self {
                Self::Host(_) => None,
                Self::Device(device) => Some(device.plan(chunks, rows)?),
            },
        })
    }

    /// Stores a layer's keys and values.
    ///
    /// # Shapes
    /// `k` and `v` (rows of the batch, kv heads · dim).
    pub(super) fn store(
        &mut self,
        layer: usize,
        step_writes: &StepWrites,
        (k, v): (&Tensor, &Tensor),
    ) -> Result<()> {
        match self {
            Self::Host(host) => host.store(layer, &step_writes.writes, (k, v)),
            #[cfg(any(feature = "cuda", feature = "cuda-host"))]
            Self::Device(device) => match &step_writes.slots {
                Some(slots) => device.store(layer, slots, (k, v)),
                None => Ok(()),
            },
        }
    }

    /// The attention output of a layer's queries (queries, query heads · dim).
    pub(super) fn attend(
        &self,
        layer: usize,
        q: &Tensor,
        metadata: &AttentionMetadata<'_>,
        window: Option<usize>,
    ) -> Result<AttentionOutput> {
        match self {
            Self::Host(host) => host.attend(layer, q, metadata.chunks, window),
            #[cfg(any(feature = "cuda", feature = "cuda-host"))]
            Self::Device(device) => device.attend(layer, q, metadata.plan.as_ref(), window),
        }
    }
}

/// Splits the chunks' tokens by page.
fn writes(chunks: &[SequenceChunk]) -> Vec<PageWrite> {
    let mut writes = Vec::new();
    for SequenceChunk { rows, position, pages, .. } in chunks {
        let mut row = rows.start;
        while row < rows.end {
            let at = position + row - rows.start;
            let slot = at % PAGE_SIZE;
            let end = rows.end.min(row + PAGE_SIZE - slot);
            writes.push(PageWrite { page: pages[at / PAGE_SIZE], slot, rows: row..end });
            row = end;
        }
    }
    writes
}
