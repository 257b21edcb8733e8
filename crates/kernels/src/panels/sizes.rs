//! The sizes of a panel.

/// Outputs per panel.
pub(crate) const PANEL: usize = 64;

/// Default words of a panel's row per chunk: a chunk fits the L1 cache.
pub(crate) const CHUNK: usize = 128;
