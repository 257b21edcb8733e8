//! Decodes packed blocks into rows of f32: a group's codes, its scales and the negatives of its minimums.

#[cfg(target_arch = "x86_64")]
mod avx512;

use std::ops::Range;

use multiversion::multiversion;

use super::layout::{Group, Layout, Line, NIBBLE_LINES, NIBBLES, WORD_LINES, WORDS};
use super::{PANEL, SimdLevel};
use crate::quantized::blocks::{GROUP, half};

/// Decodes `groups` of a panel with the instructions of `level`, which the machine supports. Codes and scales are exact,
/// so every level gives the same bits.
///
/// # Shapes
/// `out` (groups, [`Layout::group_rows`], [`PANEL`]).
pub(super) fn groups(
    level: SimdLevel,
    layout: &Layout,
    panel: &[Line],
    groups: Range<usize>,
    out: &mut [f32],
) {
    let out = out.chunks_exact_mut(layout.group_rows() * PANEL);
    let (bits, offset) = (layout.coding().bits, layout.coding().offset);
    for (group, out) in groups.zip(out) {
        let lines = layout.group(panel, group);
        let (codes, rest) = out.split_at_mut(GROUP * PANEL);
        assert!(lines.codes.len() == GROUP * bits * PANEL / 512, "the group has other codes");
        scales(&lines, rest);
        #[cfg(target_arch = "x86_64")]
        if level >= SimdLevel::Avx512 {
            assert!(level.is_supported(), "this CPU has no AVX-512");
            // SAFETY: the machine has the instructions; `codes` has been split to its size, and the lines are counted.
            #[allow(unsafe_code)]
            unsafe {
                avx512::codes(lines.codes, bits, offset, codes);
            }
            continue;
        }
        plain(lines.codes, bits, offset, codes);
    }
}

/// Codes of `bits` bits as f32.
#[multiversion(targets = "simd")]
fn plain(lines: &[Line], bits: usize, offset: u8, out: &mut [f32]) {
    match bits {
        4 => small::<0>(lines, offset, out),
        5 => small::<1>(lines, offset, out),
        6 => small::<2>(lines, offset, out),
        _ => bytes(lines, out),
    }
}

/// Codes of 8 bits.
#[inline(always)]
fn bytes(lines: &[Line], out: &mut [f32]) {
    for (line, out) in lines.iter().zip(out.as_chunks_mut::<PANEL>().0) {
        for (out, byte) in out.iter_mut().zip(&line.0) {
            *out = f32::from(byte.cast_signed());
        }
    }
}

/// Codes of four bits and `HIGH` more.
#[inline(always)]
fn small<const HIGH: usize>(lines: &[Line], offset: u8, out: &mut [f32]) {
    let (low, high) = lines.split_at(NIBBLE_LINES);
    let offset = i32::from(offset);
    let out = out.as_chunks_mut::<PANEL>().0;
    for (part, low) in low.chunks_exact(WORD_LINES).enumerate() {
        for (n, low) in low.iter().enumerate() {
            let low = words(low);
            // The shift of the part's first high bits, and their words.
            let first = part * NIBBLES * HIGH;
            let high = match HIGH {
                0 => [0; WORDS],
                _ => words(&high[first / 32 * WORD_LINES + n]),
            };
            for i in 0..NIBBLES {
                let out = &mut out[part * NIBBLES + i][n * WORDS..][..WORDS];
                for (lane, out) in out.iter_mut().enumerate() {
                    let mut code = (low[lane] >> (4 * i)) & 15;
                    if HIGH > 0 {
                        code |= ((high[lane] >> (first % 32 + HIGH * i)) & ((1 << HIGH) - 1)) << 4;
                    }
                    *out = (code.cast_signed() - offset) as f32;
                }
            }
        }
    }
}

/// The words of a line.
#[inline(always)]
fn words(line: &Line) -> [u32; WORDS] {
    let mut words = [0; WORDS];
    for (word, bytes) in words.iter_mut().zip(line.0.as_chunks().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    words
}

/// Scales, then negative minimums.
#[multiversion(targets = "simd")]
fn scales(lines: &Group<'_>, out: &mut [f32]) {
    let out = out.as_chunks_mut::<PANEL>().0;
    let [d, m] = [0, 2].map(|at| lines.header.get(at..at + 2).map(halves));
    let d = d.unwrap_or([0.0; PANEL]);
    let (scales, mins) = out.split_at_mut(lines.scales.len().max(1));
    match lines.scales {
        [] => scales[0] = d,
        lines => {
            for (line, out) in lines.iter().zip(scales) {
                for ((out, d), byte) in out.iter_mut().zip(&d).zip(&line.0) {
                    *out = d * f32::from(byte.cast_signed());
                }
            }
        }
    }
    if let (Some(m), [out]) = (m, mins) {
        match lines.mins {
            [line] => {
                for ((out, m), byte) in out.iter_mut().zip(&m).zip(&line.0) {
                    *out = -(m * f32::from(*byte));
                }
            }
            _ => out.iter_mut().zip(&m).for_each(|(out, m)| *out = -m),
        }
    }
}

/// Two lines in half precision.
#[inline(always)]
fn halves(lines: &[Line]) -> [f32; PANEL] {
    let mut all = [0.0; PANEL];
    for (line, out) in lines.iter().zip(all.as_chunks_mut::<{ PANEL / 2 }>().0) {
        for (out, bytes) in out.iter_mut().zip(line.0.as_chunks().0) {
            *out = half(u16::from_le_bytes(*bytes));
        }
    }
    all
}
