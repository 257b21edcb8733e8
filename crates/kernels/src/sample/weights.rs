//! The weights of a chunk's entries, and which of them are kept.

use std::cmp::Ordering;

use crate::math::exp;

/// Entries per chunk.
pub(crate) const CHUNK: usize = 256;

/// Lanes of the partial sums.
pub(super) const LANES: usize = 16;

/// The last entry kept, in order of descending logit, then index.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cutoff {
    pub(super) logit: f32,
    pub(super) index: u32,
}

impl Cutoff {
    /// Keeps all entries with a weight.
    pub(super) const NONE: Self = Self { logit: f32::NEG_INFINITY, index: u32::MAX };

    #[inline(always)]
    pub(super) fn keeps(self, index: u32, logit: f32) -> bool {
        (logit > self.logit) | ((logit == self.logit) & (index <= self.index))
    }
}

/// Descending logits, ties by index.
pub(super) fn larger_first(a: &(u32, f32), b: &(u32, f32)) -> Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

/// The scale in f32; finite, as ∞ times a difference of 0 would be NaN.
pub(crate) fn scale_f32(scale: f64) -> f32 {
    (scale as f32).min(f32::MAX)
}

/// `e^y` for y ≤ 0; 0 for subnormal results and NaN.
#[inline(always)]
pub(super) fn weight(y: f32) -> f32 {
    if y > -87.0 { exp(y) } else { 0.0 }
}

/// The sum of `e^((x - shift) · scale)`.
#[inline(always)]
pub(super) fn weight_sum(x: &[f32], shift: f32, scale: f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder();
    for x in chunks {
        for lane in 0..LANES {
            lanes[lane] += weight((x[lane] - shift) * scale);
        }
    }
    let rest: f32 = rest.iter().map(|x| weight((*x - shift) * scale)).sum();
    lanes.iter().sum::<f32>() + rest
}

/// The weights of a chunk that starts at index `first`; 0 beyond the cutoff.
#[inline(always)]
pub(super) fn fill_weights(
    x: &[f32],
    first: u32,
    scale: f32,
    shift: f32,
    cutoff: Cutoff,
    weights: &mut [f32],
) {
    for (i, (x, w)) in x.iter().zip(weights).enumerate() {
        let kept = weight((*x - shift) * scale);
        *w = if cutoff.keeps(first + i as u32, *x) { kept } else { 0.0 };
    }
}
