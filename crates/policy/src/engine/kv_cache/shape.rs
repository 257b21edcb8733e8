//! Dimensions of the KV cache, and where tokens are written.

use std::ops::Range;

use embodied_r_kernels::attention::Heads;

/// Dimensions of the KV cache.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct KvCacheShape {
    pub(in crate::engine) heads: Heads,
    pub(in crate::engine) layers: usize,
    /// Maximum number of pages.
    pub(in crate::engine) capacity: Option<usize>,
}

/// Consecutive rows of a batch whose keys and values go to one page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engine) struct PageWrite {
    pub(in crate::engine) page: usize,
    pub(in crate::engine) slot: usize,
    pub(in crate::engine) rows: Range<usize>,
}
