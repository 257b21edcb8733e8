//! bf16 rounding, and words of two bf16 values.

use std::ops::Range;

use multiversion::multiversion;
use rayon::prelude::*;

use crate::panels::{PANEL, simd_level, transpose};

/// Words along the reduction axis that are transposed per block.
pub(super) const TRANSPOSE_WORDS: usize = PANEL;

/// The two values of a pair.
#[inline(always)]
pub(super) fn floats(pair: u32) -> [f32; 2] {
    [f32::from_bits(pair << 16), f32::from_bits(pair & 0xffff_0000)]
}

/// The bits of the nearest bf16.
#[inline(always)]
fn rounded(x: f32) -> u32 {
    let bits = x.to_bits();
    let nearest = (bits.wrapping_add(0x7fff + ((bits >> 16) & 1))) >> 16;
    // Rounding could turn a NaN into an infinity.
    if x.is_nan() { (bits >> 16) | 0x40 } else { nearest }
}

/// Rounds each element to bf16.
#[multiversion(targets = "simd")]
pub(crate) fn round(x: &mut [f32]) {
    for x in x {
        *x = f32::from_bits(rounded(*x) << 16);
    }
}

/// The rows of `x` as pairs; an odd length is padded with 0.
pub(super) fn paired(x: &[f32], inputs: usize) -> Vec<u32> {
    let depth = inputs.div_ceil(2);
    let mut pairs = vec![0; x.len() / inputs.max(1) * depth];
    if depth > 0 {
        let rows = x.par_chunks(inputs).zip(pairs.par_chunks_mut(depth));
        rows.with_min_len(16).for_each(|(x, out)| pair_row(x, out));
    }
    pairs
}

/// A row as pairs; an odd length is padded with 0.
#[multiversion(targets = "simd")]
pub(super) fn pair_row(x: &[f32], out: &mut [u32]) {
    let (pairs, rest) = x.as_chunks::<2>();
    for (x, out) in pairs.iter().zip(out.iter_mut()) {
        *out = rounded(x[0]) | (rounded(x[1]) << 16);
    }
    if let ([last], Some(out)) = (rest, out.last_mut()) {
        *out = rounded(*last);
    }
}

/// A row that is stored as bf16 as pairs; an odd length is padded with 0.
pub(super) fn pair_bytes(x: &[[u8; 2]], out: &mut [u32]) {
    for (x, out) in x.chunks(2).zip(out.iter_mut()) {
        let high = x.get(1).copied().unwrap_or_default();
        *out = u32::from_le_bytes([x[0][0], x[0][1], high[0], high[1]]);
    }
}

/// Columns of `x` (rows, width) as pairs of neighboring rows, written to `out` (pairs, [`PANEL`]); an odd number of
/// rows is padded with 0.
#[multiversion(targets = "simd")]
pub(super) fn paired_over_rows(x: &[f32], width: usize, columns: Range<usize>, out: &mut [u32]) {
    for (rows, out) in x.chunks(2 * width).zip(out.chunks_mut(PANEL)) {
        let (low, high) = rows.split_at(width);
        let (low, out) = (&low[columns.clone()], &mut out[..columns.len()]);
        if high.is_empty() {
            for (out, low) in out.iter_mut().zip(low) {
                *out = rounded(*low);
            }
            continue;
        }
        for ((out, low), high) in out.iter_mut().zip(low).zip(&high[columns.clone()]) {
            *out = rounded(*low) | (rounded(*high) << 16);
        }
    }
}

/// The columns of `x` (rows, width), each as pairs of neighboring rows: (width, pairs).
pub(super) fn paired_columns(x: &[f32], width: usize) -> Vec<u32> {
    let depth = (x.len() / width.max(1)).div_ceil(2);
    let mut pairs = vec![0; width * depth];
    let panels = pairs.par_chunks_mut((PANEL * depth).max(1)).enumerate();
    panels.for_each_init(
        || (vec![0; TRANSPOSE_WORDS * PANEL], vec![0; TRANSPOSE_WORDS * PANEL]),
        |(words, block_columns), (panel, out)| {
            let columns = panel * PANEL..width.min((panel + 1) * PANEL);
            for (block, x) in x.chunks(2 * TRANSPOSE_WORDS * width).enumerate() {
                paired_over_rows(x, width, columns.clone(), words);
                let (first, n) = (block * TRANSPOSE_WORDS, (x.len() / width).div_ceil(2));
                transpose(
                    simd_level(),
                    words,
                    PANEL,
                    (n, columns.len()),
                    (&mut block_columns[..columns.len() * PANEL], PANEL),
                );
                for (out, words) in out.chunks_mut(depth).zip(block_columns.chunks(PANEL)) {
                    out[first..first + n].copy_from_slice(&words[..n]);
                }
            }
        },
    );
    pairs
}
