//! The sizes of a panel.

use crate::simd_level::SimdLevel;

/// Outputs per panel.
pub(crate) const PANEL: usize = 64;

/// Default words of a panel's row per chunk: a chunk fits the L1 cache.
pub(crate) const CHUNK: usize = 128;

/// Outputs of a strip: a chunk of f32 is stored strip by strip, as wide as a tile's accumulators, so that a tile reads it
/// contiguously. With 32 registers that is the whole panel, with 16 it is two registers of eight.
pub(crate) fn strip(level: SimdLevel) -> usize {
    if level >= SimdLevel::Avx512 { PANEL } else { 16 }
}
