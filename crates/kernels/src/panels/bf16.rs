//! Weights as bf16, packed once, with sums in f32.
//!
//! A word is a pair of neighbouring inputs. Where the CPU has `avx512bf16`, its instruction multiplies
//! and adds the pairs; elsewhere the pairs become f32 again on their way. Both round the factors to
//! bf16 (to the nearest, ties to even) and nothing else.

use std::ops::Range;

use multiversion::multiversion;
use rayon::prelude::*;

use super::{CHUNK, Level, PANEL, Rows, Weight, level, product as words_product, turn};
use crate::matmul::Into;

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
        panels.zip(weight.par_chunks((PANEL * inputs).max(1))).for_each(|(out, rows)| {
            turn(&paired(rows, inputs), depth, rows.len() / inputs, depth, out);
        });
        packed
    }

    fn depth(&self) -> usize {
        self.inputs.div_ceil(2)
    }

    fn part(&self, panel: usize, depth: Range<usize>) -> &[u32] {
        let first = panel * self.depth();
        &self.pairs[(first + depth.start) * PANEL..(first + depth.end) * PANEL]
    }

    /// Writes a row as f32.
    pub(crate) fn read_row(&self, output: usize, out: &mut [f32]) {
        let pairs = self.part(output / PANEL, 0..self.depth());
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
    if level() < Level::Avx512Bf16 {
        return product_by_f32(y, into, x, weight);
    }
    let pairs = paired(x, weight.inputs);
    words_product(y, into, &pairs, weight, (weight.outputs, weight.depth()));
}

/// [`product`] on CPUs that cannot multiply bf16.
pub(crate) fn product_by_f32(y: &mut [f32], into: Into, x: &[f32], weight: &Packed) {
    // An odd number of inputs gets a 0 at its end.
    let pairs = paired(x, weight.inputs);
    let x: Vec<f32> = pairs.par_iter().flat_map_iter(|pair| floats(*pair)).collect();
    words_product(y, into, &x, &Unpacked(weight), (weight.outputs, 2 * weight.depth()));
}

impl Weight for Packed {
    type Word = u32;

    fn chunk<'a>(
        &'a self,
        outputs: Range<usize>,
        depth: Range<usize>,
        _buffer: &'a mut [u32],
    ) -> &'a [u32] {
        self.part(outputs.start / PANEL, depth)
    }

    fn accumulate(sums: &mut [f32], (x, stride): (&[u32], usize), w: &[u32]) {
        let (rows, depth) = (sums.len() / PANEL, w.len() / PANEL);
        assert!(sums.len() == rows * PANEL && w.len() == depth * PANEL, "a row is not whole");
        assert!(rows == 0 || (rows - 1) * stride + depth <= x.len(), "rows lie beyond the end");
        #[cfg(target_arch = "x86_64")]
        #[allow(unsafe_code)]
        if level() == Level::Avx512Bf16 {
            // SAFETY: the machine has the instructions; the assertions are what is asked for.
            return unsafe { avx512::accumulate(sums, (x, stride), w, (rows, depth)) };
        }
        // `product` takes this path only where the machine has the instructions.
        debug_assert!(false, "no instructions for bf16");
    }
}

/// Packed weights read as f32.
struct Unpacked<'a>(&'a Packed);

impl Rows for Unpacked<'_> {
    fn turned(&self, outputs: Range<usize>, inputs: Range<usize>, out: &mut [f32]) {
        let pairs = self.0.part(outputs.start / PANEL, inputs.start / 2..inputs.end / 2);
        for (pairs, out) in pairs.chunks(PANEL).zip(out.chunks_mut(2 * PANEL)) {
            let (low, high) = out.split_at_mut(PANEL);
            for ((pair, low), high) in pairs.iter().zip(low).zip(high) {
                [*low, *high] = floats(*pair);
            }
        }
    }
}

const _: () = assert!(CHUNK.is_multiple_of(2), "a chunk has whole pairs");

/// The two numbers of a pair.
#[inline(always)]
fn floats(pair: u32) -> [f32; 2] {
    [f32::from_bits(pair << 16), f32::from_bits(pair & 0xffff_0000)]
}

/// The nearest bf16, as its bits.
#[inline(always)]
fn rounded(x: f32) -> u32 {
    let bits = x.to_bits();
    let nearest = (bits.wrapping_add(0x7fff + ((bits >> 16) & 1))) >> 16;
    // Rounding could make an infinity of a NaN.
    if x.is_nan() { (bits >> 16) | 0x40 } else { nearest }
}

/// The rows of `x` as pairs; an odd row's last pair has a 0.
fn paired(x: &[f32], inputs: usize) -> Vec<u32> {
    let depth = inputs.div_ceil(2);
    let mut pairs = vec![0; x.len() / inputs.max(1) * depth];
    if depth > 0 {
        let rows = x.par_chunks(inputs).zip(pairs.par_chunks_mut(depth));
        rows.with_min_len(16).for_each(|(x, out)| pair_row(x, out));
    }
    pairs
}

#[multiversion(targets = "simd")]
fn pair_row(x: &[f32], out: &mut [u32]) {
    let (pairs, rest) = x.as_chunks::<2>();
    for (x, out) in pairs.iter().zip(out.iter_mut()) {
        *out = rounded(x[0]) | (rounded(x[1]) << 16);
    }
    if let ([last], Some(out)) = (rest, out.last_mut()) {
        *out = rounded(*last);
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    use super::PANEL;
    use crate::panels::TILE_ROWS;

    /// Registers of a panel.
    const LANES: usize = 16;
    const N: usize = PANEL / LANES;

    /// See [`super::Weight::accumulate`].
    ///
    /// # Safety
    /// `sums` has `rows` rows of [`PANEL`], `w` has `depth` of them, and `x` has `depth` words at each
    /// of `rows` places `stride` apart.
    #[allow(unsafe_code)]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    pub(super) unsafe fn accumulate(
        sums: &mut [f32],
        (x, stride): (&[u32], usize),
        w: &[u32],
        (rows, depth): (usize, usize),
    ) {
        let (sums, x, w) = (sums.as_mut_ptr(), x.as_ptr(), w.as_ptr());
        // SAFETY: the caller's promise, with the number of rows as a constant.
        unsafe {
            match rows {
                1 => tile::<1>(sums, x, stride, w, depth),
                2 => tile::<2>(sums, x, stride, w, depth),
                3 => tile::<3>(sums, x, stride, w, depth),
                4 => tile::<4>(sums, x, stride, w, depth),
                5 => tile::<5>(sums, x, stride, w, depth),
                TILE_ROWS => tile::<TILE_ROWS>(sums, x, stride, w, depth),
                _ => {}
            }
        }
    }

    /// # Safety
    /// As [`accumulate`], with `R` rows.
    #[allow(unsafe_code, clippy::needless_range_loop)]
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn tile<const R: usize>(
        sums: *mut f32,
        x: *const u32,
        stride: usize,
        w: *const u32,
        depth: usize,
    ) {
        let mut acc = [[_mm512_setzero_ps(); N]; R];
        for k in 0..depth {
            let mut words = [_mm512_setzero_si512(); N];
            for n in 0..N {
                // SAFETY: `k` < depth, and a row of `w` has N · LANES words.
                words[n] = unsafe { _mm512_loadu_si512(w.add(k * PANEL + n * LANES).cast()) };
            }
            for r in 0..R {
                // SAFETY: `k` < depth, and `r` < rows.
                let x = _mm512_set1_epi32(unsafe { *x.add(r * stride + k) } as i32);
                for n in 0..N {
                    // SAFETY: both are 512 bits of which every value means something.
                    let (x, w) = unsafe {
                        (
                            std::mem::transmute::<__m512i, __m512bh>(x),
                            std::mem::transmute::<__m512i, __m512bh>(words[n]),
                        )
                    };
                    acc[r][n] = _mm512_dpbf16_ps(acc[r][n], x, w);
                }
            }
        }
        for r in 0..R {
            for n in 0..N {
                // SAFETY: `r` < rows, and a row of `sums` has N · LANES numbers.
                unsafe {
                    let to = sums.add(r * PANEL + n * LANES);
                    _mm512_storeu_ps(to, _mm512_add_ps(_mm512_loadu_ps(to), acc[r][n]));
                }
            }
        }
    }
}
