//! Packed f16 weights, widened to f32 without loss.

use std::ops::Range;

use multiversion::multiversion;
use rayon::prelude::*;

#[cfg(target_arch = "x86_64")]
use super::widen;
use super::{
    Aligned, CHUNK, PANEL, Prefetch, SimdLevel, UnpackedWeight, following_chunk, packed_chunk,
    strip,
};
use crate::quantized::blocks::half;

/// A weight (outputs, inputs), packed as f16. Products have the bits of the f32 weight's.
#[derive(Debug, Clone)]
pub(crate) struct PackedF16 {
    inputs: usize,
    /// (panels, inputs, [`PANEL`]).
    bits: Aligned<u16>,
}

impl PackedF16 {
    /// Packs a weight.
    ///
    /// # Shapes
    /// `weight` (outputs, inputs), row-major, little-endian.
    pub(crate) fn from_bytes(weight: &[[u8; 2]], outputs: usize, inputs: usize) -> Self {
        assert!(weight.len() == outputs * inputs, "the weight's length differs from its shape");
        let mut bits = Aligned::new(outputs.div_ceil(PANEL) * inputs * PANEL);
        let panels = bits.par_chunks_mut((inputs * PANEL).max(1));
        panels.zip(weight.par_chunks((PANEL * inputs).max(1))).for_each(|(out, rows)| {
            // Block by block, so that a block stays in the L1 cache.
            for (first, out) in (0..inputs).step_by(CHUNK).zip(out.chunks_mut(CHUNK * PANEL)) {
                for (output, row) in rows.chunks(inputs).enumerate() {
                    let column = out[output..].iter_mut().step_by(PANEL);
                    column.zip(&row[first..]).for_each(|(out, x)| *out = u16::from_le_bytes(*x));
                }
            }
        });
        Self { inputs, bits }
    }

    /// Unpacks a row as f32.
    pub(crate) fn read_row(&self, row: usize, out: &mut [f32]) {
        let column = packed_chunk(&self.bits, self.inputs, row, 0..self.inputs);
        let column = column.iter().skip(row % PANEL).step_by(PANEL);
        out.iter_mut().zip(column).for_each(|(out, bits)| *out = half(*bits));
    }
}

impl UnpackedWeight for PackedF16 {
    fn pack_chunk(
        &self,
        level: SimdLevel,
        outputs: Range<usize>,
        inputs: Range<usize>,
        out: &mut [f32],
    ) {
        let bits = packed_chunk(&self.bits, self.inputs, outputs.start, inputs);
        #[cfg(target_arch = "x86_64")]
        if widen::f16_chunk(level, bits, out) {
            return;
        }
        let strip = strip(level);
        let depth = out.len() / PANEL;
        for (out, first) in out.chunks_mut((depth * strip).max(1)).zip((0..PANEL).step_by(strip)) {
            widen_strip(bits, first, (out, strip));
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn skinny(&self, level: SimdLevel, sums: &mut [f32], x: &[f32], outputs: Range<usize>) -> bool {
        let panel = packed_chunk(&self.bits, self.inputs, outputs.start, 0..self.inputs);
        widen::f16_rows(level, sums, x, panel)
    }

    fn next_chunk(&self, outputs: Range<usize>, depth: Range<usize>) -> Prefetch {
        following_chunk(&self.bits, self.inputs, outputs.start, depth)
    }
}

/// Widens the strip of `width` outputs from `first` on.
///
/// # Shapes
/// `bits` (depth, [`PANEL`]), `out` (depth, `width`).
#[multiversion(targets = "simd")]
fn widen_strip(bits: &[u16], first: usize, (out, width): (&mut [f32], usize)) {
    for (bits, out) in bits.chunks_exact(PANEL).zip(out.chunks_exact_mut(width)) {
        for (bits, out) in bits[first..].iter().zip(out) {
            *out = half(*bits);
        }
    }
}
