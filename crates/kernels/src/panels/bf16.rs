//! Products of bf16 with sums in f32.
//!
//! A word is a pair of neighbours along what is summed over. Where the CPU has `avx512bf16`, its
//! instruction multiplies and adds the pairs; elsewhere the pairs become f32 again on their way. Both
//! round the factors to bf16 (to the nearest, ties to even) and nothing else.

#[cfg(target_arch = "x86_64")]
mod avx512;
mod pairs;

use std::ops::Range;

use rayon::prelude::*;

use super::{
    Ahead, CHUNK, Level, PANEL, Rows, Weight, laid_behind, laid_chunk, level,
    product as words_product, products as words_products, turn,
};
use crate::matmul::Into;
pub(crate) use pairs::round;
use pairs::{TURNED, floats, pair_row, paired, paired_over_rows, turned};

/// A weight (outputs, inputs) as bf16 in the order in which products take it.
#[derive(Debug, Clone)]
pub(crate) struct Packed {
    outputs: usize,
    inputs: usize,
    /// For each panel (pairs of inputs, [`PANEL`]).
    pairs: Vec<u32>,
}

impl Packed {
    /// Packs a weight.
    ///
    /// # Shapes
    /// `weight` (outputs, inputs), row-major.
    pub(crate) fn new(weight: &[f32], outputs: usize, inputs: usize) -> Self {
        assert!(weight.len() == outputs * inputs, "the weight has another size");
        let mut packed = Self { outputs, inputs, pairs: Vec::new() };
        let depth = packed.depth();
        packed.pairs = vec![0; outputs.div_ceil(PANEL) * depth * PANEL];
        let panels = packed.pairs.par_chunks_mut((depth * PANEL).max(1));
        panels.zip(weight.par_chunks((PANEL * inputs).max(1))).for_each_init(
            || vec![0; PANEL * TURNED],
            // A block at a time, which stays in the first cache, whatever the distance of the rows.
            |words, (out, rows)| {
                for first in (0..depth).step_by(TURNED) {
                    let n = TURNED.min(depth - first);
                    let part = 2 * first..inputs.min(2 * (first + n));
                    for (row, words) in rows.chunks(inputs).zip(words.chunks_mut(TURNED)) {
                        pair_row(&row[part.clone()], &mut words[..n]);
                    }
                    let out = &mut out[first * PANEL..(first + n) * PANEL];
                    turn(words, TURNED, rows.len() / inputs, n, out);
                }
            },
        );
        packed
    }

    /// Packs the transposed weight, (inputs, outputs) of the packed one.
    ///
    /// # Shapes
    /// `weight` (rows, columns), row-major; what is packed has `columns` outputs of `rows` inputs.
    pub(crate) fn transposed(weight: &[f32], rows: usize, columns: usize) -> Self {
        assert!(weight.len() == rows * columns, "the weight has another size");
        let mut packed = Self { outputs: columns, inputs: rows, pairs: Vec::new() };
        let depth = packed.depth();
        packed.pairs = vec![0; columns.div_ceil(PANEL) * depth * PANEL];
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

    /// Writes a row as f32.
    pub(crate) fn read_row(&self, output: usize, out: &mut [f32]) {
        let pairs = laid_chunk(&self.pairs, self.depth(), output, 0..self.depth());
        for (pair, out) in pairs[output % PANEL..].iter().step_by(PANEL).zip(out.chunks_mut(2)) {
            let [low, high] = floats(*pair);
            out[0] = low;
            if let Some(out) = out.get_mut(1) {
                *out = high;
            }
        }
    }
}

/// `y = x · Wᵀ`, or `y += x · Wᵀ`, with `x` rounded to bf16 too.
///
/// # Shapes
/// `x` (rows, inputs), `y` (rows, outputs).
pub(crate) fn product(y: &mut [f32], into: Into, x: &[f32], weight: &Packed) {
    product_at(level(), y, into, x, weight);
}

/// As [`super::products`], with `x` rounded to bf16 too.
pub(crate) fn products(results: Vec<(&mut [f32], Into)>, x: &[f32], weights: &[&Packed]) {
    let Some(first) = weights.first() else { return };
    let pairs = paired(x, first.inputs);
    if level() < Level::Avx512Bf16 {
        for ((y, into), weight) in results.into_iter().zip(weights) {
            multiply(level(), y, into, pairs.clone(), weight);
        }
        return;
    }
    words_products(results, &pairs, weights, first.depth());
}

/// [`product`] with the instructions of `level`, which the machine has.
pub(crate) fn product_at(level: Level, y: &mut [f32], into: Into, x: &[f32], weight: &Packed) {
    multiply(level, y, into, paired(x, weight.inputs), weight);
}

/// `dst += aᵀ · b`, a sum over many rows, with both factors rounded to bf16: the gradient of a weight.
///
/// # Shapes
/// `a` (rows, m) and `b` (rows, n) with their widths; `dst` (m, n).
pub(crate) fn add_product_over_rows(
    dst: &mut [f32],
    a: (&[f32], usize),
    b: (&[f32], usize),
    rows: usize,
) {
    add_product_over_rows_at(level(), dst, a, b, rows);
}

/// [`add_product_over_rows`] with the instructions of `level`, which the machine has.
pub(crate) fn add_product_over_rows_at(
    level: Level,
    dst: &mut [f32],
    (a, m): (&[f32], usize),
    (b, n): (&[f32], usize),
    rows: usize,
) {
    assert!(a.len() == rows * m, "the first factor has another size");
    multiply(level, dst, Into::Add, turned(a, m), &Packed::transposed(b, rows, n));
}

/// The product with the pairs of `x` (rows, pairs of inputs).
fn multiply(level: Level, y: &mut [f32], into: Into, pairs: Vec<u32>, weight: &Packed) {
    if level >= Level::Avx512Bf16 {
        return words_product(y, into, &pairs, weight, (weight.outputs, weight.depth()));
    }
    // Without products of bf16 the pairs become f32 again: an odd number of inputs has got a 0.
    let mut x = vec![0.0; 2 * pairs.len()];
    x.par_chunks_mut(2).with_min_len(4096).zip(&pairs).for_each(|(x, pair)| {
        x.copy_from_slice(&floats(*pair));
    });
    drop(pairs);
    words_product(y, into, &x, &Unpacked(weight), (weight.outputs, 2 * weight.depth()));
}

impl Weight for Packed {
    type Word = u32;

    fn chunk<'a>(
        &'a self,
        outputs: Range<usize>,
        depth: Range<usize>,
        _buffer: &'a mut Vec<u32>,
    ) -> &'a [u32] {
        laid_chunk(&self.pairs, self.depth(), outputs.start, depth)
    }

    fn behind(&self, outputs: Range<usize>, depth: Range<usize>) -> &[u32] {
        laid_behind(&self.pairs, self.depth(), outputs.start, depth)
    }

    fn accumulate(sums: &mut [f32], (x, stride): (&[u32], usize), w: &[u32], ahead: Ahead) {
        let (rows, depth) = (sums.len() / PANEL, w.len() / PANEL);
        assert!(sums.len() == rows * PANEL && w.len() == depth * PANEL, "a row is not whole");
        assert!(rows == 0 || (rows - 1) * stride + depth <= x.len(), "rows lie beyond the end");
        assert!(level() >= Level::Avx512Bf16, "this machine does not multiply bf16");
        // SAFETY: the machine has the instructions; the assertions are what is asked for.
        #[cfg(target_arch = "x86_64")]
        #[allow(unsafe_code)]
        unsafe {
            avx512::accumulate(sums, (x, stride), w, (rows, depth), ahead);
        }
    }
}

/// Packed weights read as f32.
struct Unpacked<'a>(&'a Packed);

impl Rows for Unpacked<'_> {
    fn turned(&self, outputs: Range<usize>, inputs: Range<usize>, out: &mut [f32]) {
        let depth = inputs.start / 2..inputs.end / 2;
        let pairs = laid_chunk(&self.0.pairs, self.0.depth(), outputs.start, depth);
        for (pairs, out) in pairs.chunks(PANEL).zip(out.chunks_mut(2 * PANEL)) {
            let (low, high) = out.split_at_mut(PANEL);
            for ((pair, low), high) in pairs.iter().zip(low).zip(high) {
                [*low, *high] = floats(*pair);
            }
        }
    }
}

const _: () = assert!(CHUNK.is_multiple_of(2), "a chunk has whole pairs");
