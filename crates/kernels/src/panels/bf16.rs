//! bf16 GEMM with f32 accumulation.
//!
//! A word is a pair of neighbors along the reduction axis. With `avx512bf16` a single instruction multiplies and
//! accumulates pairs; elsewhere, and on CPUs where that instruction is slower than two f32 ones, they are widened to f32
//! first. Both round the operands to bf16 (nearest, ties to even) and nothing else.

#[cfg(target_arch = "x86_64")]
mod avx512;
mod pairs;

use std::ops::Range;

use multiversion::multiversion;
use rayon::prelude::*;

#[cfg(target_arch = "x86_64")]
use super::widen;
use super::{
    Aligned, CHUNK, PANEL, PanelWeight, Prefetch, SimdLevel, UnpackedWeight, following_chunk,
    matmul_all as words_matmul_all, matmul_at as words_matmul_at, packed_chunk, simd_level, strip,
    tiles, transpose,
};
use crate::matmul::WriteMode;
pub(crate) use pairs::round;
use pairs::{
    TRANSPOSE_WORDS, floats, pair_bytes, pair_row, paired, paired_columns, paired_over_rows,
};

/// A weight (outputs, inputs), packed as bf16.
#[derive(Debug, Clone)]
pub(crate) struct PackedBf16 {
    outputs: usize,
    inputs: usize,
    /// (panels, pairs of inputs, [`PANEL`]).
    pairs: Aligned<u32>,
}

impl PackedBf16 {
    /// Packs a weight.
    ///
    /// # Shapes
    /// `weight` (outputs, inputs), row-major.
    pub(crate) fn new(weight: &[f32], outputs: usize, inputs: usize) -> Self {
        Self::pack(weight, (outputs, inputs), pair_row)
    }

    /// Packs a weight that is stored as bf16.
    ///
    /// # Shapes
    /// `weight` (outputs, inputs), row-major, little-endian.
    pub(crate) fn from_bytes(weight: &[[u8; 2]], outputs: usize, inputs: usize) -> Self {
        Self::pack(weight, (outputs, inputs), pair_bytes)
    }

    fn pack<T: Sync>(
        weight: &[T],
        (outputs, inputs): (usize, usize),
        pair_row: impl Fn(&[T], &mut [u32]) + Sync,
    ) -> Self {
        assert!(weight.len() == outputs * inputs, "the weight's length differs from its shape");
        let mut packed = Self { outputs, inputs, pairs: Aligned::new(0) };
        let depth = packed.depth();
        packed.pairs = Aligned::new(outputs.div_ceil(PANEL) * depth * PANEL);
        let panels = packed.pairs.par_chunks_mut((depth * PANEL).max(1));
        panels.zip(weight.par_chunks((PANEL * inputs).max(1))).for_each_init(
            || vec![0; PANEL * TRANSPOSE_WORDS],
            // Block by block, so that a block stays in the L1 cache for any row stride.
            |words, (out, rows)| {
                for first in (0..depth).step_by(TRANSPOSE_WORDS) {
                    let n = TRANSPOSE_WORDS.min(depth - first);
                    let part = 2 * first..inputs.min(2 * (first + n));
                    for (row, words) in rows.chunks(inputs).zip(words.chunks_mut(TRANSPOSE_WORDS)) {
                        pair_row(&row[part.clone()], &mut words[..n]);
                    }
                    let out = &mut out[first * PANEL..(first + n) * PANEL];
                    let shape = (rows.len() / inputs, n);
                    transpose(simd_level(), words, TRANSPOSE_WORDS, shape, (out, PANEL));
                }
            },
        );
        packed
    }

    /// Packs the transpose of a weight.
    ///
    /// # Shapes
    /// `weight` (rows, columns), row-major; the packed weight has `columns` outputs and `rows` inputs.
    pub(crate) fn transposed(weight: &[f32], rows: usize, columns: usize) -> Self {
        assert!(weight.len() == rows * columns, "the weight's length differs from its shape");
        let mut packed = Self { outputs: columns, inputs: rows, pairs: Aligned::new(0) };
        let depth = packed.depth();
        packed.pairs = Aligned::new(columns.div_ceil(PANEL) * depth * PANEL);
        let panels = packed.pairs.par_chunks_mut((depth * PANEL).max(1)).enumerate();
        panels.for_each(|(panel, out)| {
            let first = panel * PANEL;
            paired_over_rows(weight, columns, first..columns.min(first + PANEL), out);
        });
        packed
    }

    fn depth(&self) -> usize {
        self.inputs.div_ceil(2)
    }

    /// Unpacks a row as f32.
    pub(crate) fn read_row(&self, output: usize, out: &mut [f32]) {
        let pairs = packed_chunk(&self.pairs, self.depth(), output, 0..self.depth());
        for (pair, out) in pairs[output % PANEL..].iter().step_by(PANEL).zip(out.chunks_mut(2)) {
            let [low, high] = floats(*pair);
            out[0] = low;
            if let Some(out) = out.get_mut(1) {
                *out = high;
            }
        }
    }
}

/// `y = x · Wᵀ`, or `y += x · Wᵀ`, with `x` rounded to bf16.
///
/// # Shapes
/// `x` (rows, inputs), `y` (rows, outputs).
pub(crate) fn matmul(y: &mut [f32], mode: WriteMode, x: &[f32], weight: &PackedBf16) {
    matmul_at(simd_level(), y, mode, x, weight);
}

/// [`super::matmul_all`] with `x` rounded to bf16.
pub(crate) fn matmul_all(
    results: Vec<(&mut [f32], WriteMode)>,
    x: &[f32],
    weights: &[&PackedBf16],
) {
    let Some(first) = weights.first() else { return };
    let pairs = paired(x, first.inputs);
    if simd_level() < SimdLevel::Avx512Bf16 {
        let weights: Vec<WidenedBf16<'_>> =
            weights.iter().map(|weight| WidenedBf16(weight)).collect();
        let weights: Vec<&WidenedBf16<'_>> = weights.iter().collect();
        return words_matmul_all(results, &widened(&pairs), &weights, 2 * first.depth());
    }
    words_matmul_all(results, &pairs, weights, first.depth());
}

/// [`matmul`] with the instructions of `level`, which the machine supports.
pub(crate) fn matmul_at(
    level: SimdLevel,
    y: &mut [f32],
    mode: WriteMode,
    x: &[f32],
    weight: &PackedBf16,
) {
    multiply(level, y, mode, &paired(x, weight.inputs), weight);
}

/// `dst += aᵀ · b`, summed over many rows, with both operands rounded to bf16: a weight gradient.
///
/// # Shapes
/// `a` (rows, m) and `b` (rows, n); `dst` (m, n).
pub(crate) fn accumulate_weight_grad(
    dst: &mut [f32],
    a: (&[f32], usize),
    b: (&[f32], usize),
    rows: usize,
) {
    accumulate_weight_grad_at(simd_level(), dst, a, b, rows);
}

/// [`accumulate_weight_grad`] with the instructions of `level`, which the machine supports.
pub(crate) fn accumulate_weight_grad_at(
    level: SimdLevel,
    dst: &mut [f32],
    (a, m): (&[f32], usize),
    (b, n): (&[f32], usize),
    rows: usize,
) {
    assert!(a.len() == rows * m, "the first operand's length differs from its shape");
    multiply(
        level,
        dst,
        WriteMode::Accumulate,
        &paired_columns(a, m),
        &PackedBf16::transposed(b, rows, n),
    );
}

/// [`super::matmul_all`] with `x` in f32: the bits of the products with the weights in f32.
pub(crate) fn exact_matmul_all(
    results: Vec<(&mut [f32], WriteMode)>,
    x: &[f32],
    weights: &[&PackedBf16],
) {
    let Some(first) = weights.first() else { return };
    let weights: Vec<WidenedBf16<'_>> = weights.iter().map(|weight| WidenedBf16(weight)).collect();
    let weights: Vec<&WidenedBf16<'_>> = weights.iter().collect();
    let depth = 2 * first.depth();
    if depth == first.inputs {
        return words_matmul_all(results, x, &weights, depth);
    }
    let mut padded = vec![0.0; x.len() / first.inputs * depth];
    for (padded, x) in padded.chunks_mut(depth).zip(x.chunks(first.inputs)) {
        padded[..x.len()].copy_from_slice(x);
    }
    words_matmul_all(results, &padded, &weights, depth);
}

/// The GEMM with `x` as pairs (rows, pairs of inputs).
fn multiply(level: SimdLevel, y: &mut [f32], mode: WriteMode, pairs: &[u32], weight: &PackedBf16) {
    if level >= SimdLevel::Avx512Bf16 {
        return words_matmul_at(level, y, mode, pairs, weight, (weight.outputs, weight.depth()));
    }
    let shape = (weight.outputs, 2 * weight.depth());
    words_matmul_at(level, y, mode, &widened(pairs), &WidenedBf16(weight), shape);
}

/// Pairs as f32; an odd number of inputs has been padded with 0.
fn widened(pairs: &[u32]) -> Vec<f32> {
    let mut x = vec![0.0; 2 * pairs.len()];
    x.par_chunks_mut(2).with_min_len(4096).zip(pairs).for_each(|(x, pair)| {
        x.copy_from_slice(&floats(*pair));
    });
    x
}

impl PanelWeight for PackedBf16 {
    type Word = u32;

    fn chunk<'a>(
        &'a self,
        _level: SimdLevel,
        outputs: Range<usize>,
        depth: Range<usize>,
        _buffer: &'a mut Vec<u32>,
    ) -> &'a [u32] {
        packed_chunk(&self.pairs, self.depth(), outputs.start, depth)
    }

    fn next_chunk(&self, outputs: Range<usize>, depth: Range<usize>) -> Prefetch {
        following_chunk(&self.pairs, self.depth(), outputs.start, depth)
    }

    fn accumulate(
        &self,
        level: SimdLevel,
        sums: &mut [f32],
        (x, stride): (&[u32], usize),
        w: &[u32],
        prefetch: Prefetch,
    ) {
        let (rows, depth) = (sums.len() / PANEL, w.len() / PANEL);
        assert!(
            sums.len() == rows * PANEL && w.len() == depth * PANEL,
            "`sums` and `w` must be whole rows"
        );
        assert!(
            rows == 0 || (rows - 1) * stride + depth <= x.len(),
            "rows of `x` exceed its length"
        );
        let bf16 = level >= SimdLevel::Avx512Bf16 && level.is_supported();
        assert!(bf16, "this CPU has no bf16 instructions");
        #[cfg(target_arch = "x86_64")]
        for (row, sums, prefetch) in tiles(sums, prefetch) {
            let rows = sums.len() / PANEL;
            // SAFETY: the machine has the instructions; the assertions are the function's preconditions.
            #[allow(unsafe_code)]
            unsafe {
                avx512::accumulate(sums, (&x[row * stride..], stride), w, (rows, depth), prefetch);
            }
        }
    }
}

/// A packed weight, widened to f32.
struct WidenedBf16<'a>(&'a PackedBf16);

impl UnpackedWeight for WidenedBf16<'_> {
    fn pack_chunk(
        &self,
        level: SimdLevel,
        outputs: Range<usize>,
        inputs: Range<usize>,
        out: &mut [f32],
    ) {
        let depth = inputs.start / 2..inputs.end / 2;
        let pairs = packed_chunk(&self.0.pairs, self.0.depth(), outputs.start, depth);
        #[cfg(target_arch = "x86_64")]
        if widen::bf16_chunk(level, pairs, out) {
            return;
        }
        let strip = strip(level);
        let depth = out.len() / PANEL;
        for (out, first) in out.chunks_mut((depth * strip).max(1)).zip((0..PANEL).step_by(strip)) {
            widen_strip(pairs, first, (out, strip));
        }
    }

    fn next_chunk(&self, outputs: Range<usize>, inputs: Range<usize>) -> Prefetch {
        self.0.next_chunk(outputs, inputs.start / 2..inputs.end / 2)
    }

    #[cfg(target_arch = "x86_64")]
    fn skinny(&self, level: SimdLevel, sums: &mut [f32], x: &[f32], outputs: Range<usize>) -> bool {
        let depth = self.0.depth();
        widen::bf16_rows(
            level,
            sums,
            x,
            packed_chunk(&self.0.pairs, depth, outputs.start, 0..depth),
        )
    }
}

/// Widens the strip of `width` outputs from `first` on.
///
/// # Shapes
/// `pairs` (depth / 2, [`PANEL`]), `out` (depth, `width`).
#[multiversion(targets = "simd")]
fn widen_strip(pairs: &[u32], first: usize, (out, width): (&mut [f32], usize)) {
    for (pairs, out) in pairs.chunks_exact(PANEL).zip(out.chunks_exact_mut(2 * width)) {
        let (low, high) = out.split_at_mut(width);
        for ((pair, low), high) in pairs[first..].iter().zip(low).zip(high) {
            [*low, *high] = floats(*pair);
        }
    }
}

const _: () = assert!(CHUNK.is_multiple_of(2), "a chunk must hold whole pairs");
