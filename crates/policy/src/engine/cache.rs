//! Where the keys and values of the pages stand: page by page in the host's memory, or in a pool a layer on
//! the device.

#[cfg(any(feature = "cuda", feature = "cuda-host"))]
mod device;
mod host;

use std::ops::Range;

use candle_core::{Device, Tensor};
use embodied_r_kernels::attention::{Attended, Heads};
use embodied_r_kernels::paged_attention::PAGE;
#[cfg(any(feature = "cuda", feature = "cuda-host"))]
use embodied_r_kernels::paged_attention::{Plan, Slots};

#[cfg(any(feature = "cuda", feature = "cuda-host"))]
use self::device::DeviceCache;
use self::host::HostCache;
use super::model::Part;
use crate::error::Result;

/// The keys and values of an engine's pages.
pub(super) enum Cache {
    Host(HostCache),
    #[cfg(any(feature = "cuda", feature = "cuda-host"))]
    Device(DeviceCache),
}

/// What the pages of a model hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct CacheShape {
    pub(super) heads: Heads,
    pub(super) layers: usize,
    /// Most pages that may be made.
    pub(super) capacity: Option<usize>,
}

/// Rows of a batch whose keys and values go to a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Write {
    pub(super) page: usize,
    pub(super) slot: usize,
    pub(super) rows: Range<usize>,
}

/// Where the keys and values of a step's tokens go, in every layer.
pub(super) struct Places {
    pub(super) writes: Vec<Write>,
    #[cfg(any(feature = "cuda", feature = "cuda-host"))]
    slots: Option<Slots>,
}

/// What the queries of a step see, in every layer.
pub(super) struct Seen<'a> {
    parts: &'a [Part],
    #[cfg(any(feature = "cuda", feature = "cuda-host"))]
    plan: Option<Plan>,
}

impl Cache {
    /// One without pages, where operations on tensors of `device` run.
    pub(super) fn new(shape: CacheShape, device: &Device) -> Self {
        #[cfg(any(feature = "cuda", feature = "cuda-host"))]
        if embodied_r_kernels::device::has_kernels(device) {
            return Self::Device(DeviceCache::new(shape, device));
        }
        let _ = device;
        Self::Host(HostCache::new(shape))
    }

    /// Makes one page more.
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

    /// Where the tokens of `parts` go.
    pub(super) fn places(&self, parts: &[Part]) -> Result<Places> {
        let writes = writes(parts);
        Ok(Places {
            #[cfg(any(feature = "cuda", feature = "cuda-host"))]
            slots: match self {
                Self::Host(_) => None,
                Self::Device(device) => Some(device.slots(&writes)?),
            },
            writes,
        })
    }

    /// What the tokens of `parts` see, queries of a batch of so many rows.
    pub(super) fn seen<'a>(&self, parts: &'a [Part], rows: usize) -> Result<Seen<'a>> {
        let _ = rows;
        Ok(Seen {
            parts,
            #[cfg(any(feature = "cuda", feature = "cuda-host"))]
            plan: match self {
                Self::Host(_) => None,
                Self::Device(device) => Some(device.plan(parts, rows)?),
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
        places: &Places,
        (k, v): (&Tensor, &Tensor),
    ) -> Result<()> {
        match self {
            Self::Host(host) => host.store(layer, &places.writes, (k, v)),
            #[cfg(any(feature = "cuda", feature = "cuda-host"))]
            Self::Device(device) => match &places.slots {
                Some(slots) => device.store(layer, slots, (k, v)),
                None => Ok(()),
            },
        }
    }

    /// What a layer's queries see of the values (queries, query heads · dim).
    pub(super) fn attend(
        &self,
        layer: usize,
        q: &Tensor,
        seen: &Seen<'_>,
        window: Option<usize>,
    ) -> Result<Attended> {
        match self {
            Self::Host(host) => host.attend(layer, q, seen.parts, window),
            #[cfg(any(feature = "cuda", feature = "cuda-host"))]
            Self::Device(device) => device.attend(layer, q, seen.plan.as_ref(), window),
        }
    }
}

/// Page by page what the parts' tokens write.
fn writes(parts: &[Part]) -> Vec<Write> {
    let mut writes = Vec::new();
    for Part { rows, position, pages, .. } in parts {
        let mut row = rows.start;
        while row < rows.end {
            let at = position + row - rows.start;
            let slot = at % PAGE;
            let end = rows.end.min(row + PAGE - slot);
            writes.push(Write { page: pages[at / PAGE], slot, rows: row..end });
            row = end;
        }
    }
    writes
}
