//! Products of a few rows with a large weight, as decoding makes them.
//!
//! Such a product is at best as fast as the weight can be read. So the weight is read once, row after
//! row as it lies in memory, and not packed first as for tall products.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use crate::matmul::Into;

/// Rows that are few: beyond them packing pays.
pub(crate) const MOST_ROWS: usize = 64;

/// Rows of `x`, and of the weight, whose products are summed up in registers at the same time.
const TILE: usize = 4;

/// Numbers of the weight that one task reads: enough to outweigh the cost of handing it over.
const TASK_NUMBERS: usize = 32 * 1024;

/// `y = x · Wᵀ`, or `y += x · Wᵀ`. Each number of `y` is summed up in an order that depends on the
/// inputs' count alone, so that a row comes out the same whatever rows stand beside it.
///
/// # Shapes
/// `x` (rows, inputs), `weight` (outputs, inputs), `y` (rows, outputs).
///
/// # Panics
/// When the shapes do not fit: a fault of the calling kernel, which has checked its tensors.
pub(crate) fn product(y: &mut [f32], into: Into, x: &[f32], weight: &[f32], inputs: usize) {
    if y.is_empty() {
        return;
    }
    if inputs == 0 {
        if into == Into::Replace {
            y.fill(0.0);
        }
        return;
    }
    let (rows, outputs) = (x.len() / inputs, weight.len() / inputs);
    assert!(x.len() == rows * inputs && weight.len() == outputs * inputs, "a row is not whole");
    assert!(y.len() == rows * outputs, "the product does not fit");
    let step = (TASK_NUMBERS / inputs).next_multiple_of(TILE).max(TILE);
    let arch = Arch::new();
    let parts: Vec<Vec<f32>> = weight
        .par_chunks(step * inputs)
        .with_max_len(1)
        .map(|weight| {
            let mut part = vec![0.0; rows * (weight.len() / inputs)];
            arch.dispatch(Part { part: &mut part, x, weight, inputs });
            part
        })
        .collect();
    for (row, y) in y.chunks_mut(outputs).enumerate() {
        for (part, y) in parts.iter().zip(y.chunks_mut(step)) {
            let part = &part[row * y.len()..][..y.len()];
            match into {
                Into::Replace => y.copy_from_slice(part),
                Into::Add => y.iter_mut().zip(part).for_each(|(y, part)| *y += part),
            }
        }
    }
}

/// The product of all rows with some of the weight's.
struct Part<'a> {
    /// The result (rows, weight's rows).
    part: &'a mut [f32],
    x: &'a [f32],
    weight: &'a [f32],
    inputs: usize,
}

impl WithSimd for Part<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { part, x, weight, inputs } = self;
        let outputs = weight.len() / inputs;
        for (i, weight) in weight.chunks(TILE * inputs).enumerate() {
            let mut part = Columns { part: &mut *part, width: outputs, first: i * TILE };
            match weight.len() / inputs {
                1 => part.fill::<S, 1>(simd, x, weight, inputs),
                2 => part.fill::<S, 2>(simd, x, weight, inputs),
                3 => part.fill::<S, 3>(simd, x, weight, inputs),
                _ => part.fill::<S, TILE>(simd, x, weight, inputs),
            }
        }
    }
}

/// Some columns of a result.
struct Columns<'a> {
    part: &'a mut [f32],
    width: usize,
    first: usize,
}

impl Columns<'_> {
    /// Fills `O` columns with the products of all rows.
    #[inline(always)]
    fn fill<S: Simd, const O: usize>(&mut self, simd: S, x: &[f32], weight: &[f32], inputs: usize) {
        // Half as many registers hold the sums of half as many rows.
        let rows = if S::REGISTER_COUNT < 32 { TILE / 2 } else { TILE };
        for (i, x) in x.chunks(rows * inputs).enumerate() {
            let row = i * rows;
            match x.len() / inputs {
                1 => self.put(row, tile::<S, 1, O>(simd, x, weight, inputs)),
                2 => self.put(row, tile::<S, 2, O>(simd, x, weight, inputs)),
                3 => self.put(row, tile::<S, 3, O>(simd, x, weight, inputs)),
                _ => self.put(row, tile::<S, TILE, O>(simd, x, weight, inputs)),
            }
        }
    }

    #[inline(always)]
    fn put<const R: usize, const O: usize>(&mut self, row: usize, sums: [[f32; O]; R]) {
        for (r, sums) in sums.iter().enumerate() {
            self.part[(row + r) * self.width + self.first..][..O].copy_from_slice(sums);
        }
    }
}

/// The products of `R` rows with `O` rows of the weight.
///
/// Plain loops, as closures handed to `core` would not take on the instruction set of the caller.
#[inline(always)]
#[allow(clippy::needless_range_loop)]
fn tile<S: Simd, const R: usize, const O: usize>(
    simd: S,
    x: &[f32],
    weight: &[f32],
    inputs: usize,
) -> [[f32; O]; R] {
    let (x_whole, x_rest) = whole_and_rest::<S, R>(x, inputs);
    let (w_whole, w_rest) = whole_and_rest::<S, O>(weight, inputs);
    let mut sums = [[simd.splat_f32s(0.0); O]; R];
    for i in 0..inputs / S::F32_LANES {
        let mut w = [simd.splat_f32s(0.0); O];
        for o in 0..O {
            w[o] = w_whole[o][i];
        }
        for r in 0..R {
            let x = x_whole[r][i];
            for o in 0..O {
                sums[r][o] = simd.mul_add_f32s(x, w[o], sums[r][o]);
            }
        }
    }
    let mut totals = [[0.0; O]; R];
    for r in 0..R {
        for o in 0..O {
            let mut rest = 0.0;
            for (x, w) in x_rest[r].iter().zip(w_rest[o]) {
                rest += x * w;
            }
            totals[r][o] = simd.reduce_sum_f32s(sums[r][o]) + rest;
        }
    }
    totals
}

/// `N` rows as whole registers, and what is left of each.
#[inline(always)]
#[allow(clippy::needless_range_loop)]
fn whole_and_rest<S: Simd, const N: usize>(
    rows: &[f32],
    width: usize,
) -> ([&[S::f32s]; N], [&[f32]; N]) {
    let (mut whole, mut rest): ([&[S::f32s]; N], [&[f32]; N]) = ([&[]; N], [&[]; N]);
    for n in 0..N {
        (whole[n], rest[n]) = S::as_simd_f32s(&rows[n * width..][..width]);
        // Tells the compiler that no index of the loop over registers is out of range.
        assert!(whole[n].len() == width / S::F32_LANES);
    }
    (whole, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7919 + seed * 104_729) % 1013) as f32 / 506.5 - 1.0).collect()
    }

    /// In f64, and the sum of the terms' sizes, by which rounding is bounded.
    fn naive(x: &[f32], w: &[f32], inputs: usize) -> Vec<(f64, f64)> {
        let term = |x: &[f32], w: &[f32]| {
            x.iter().zip(w).fold((0.0, 0.0), |(sum, size), (x, w)| {
                let term = f64::from(*x) * f64::from(*w);
                (sum + term, size + term.abs())
            })
        };
        x.chunks(inputs).flat_map(|x| w.chunks(inputs).map(move |w| term(x, w))).collect()
    }

    #[test]
    fn every_shape_gives_the_plain_sums() {
        for (rows, inputs, outputs) in
            [(1, 1, 1), (2, 15, 3), (3, 16, 4), (4, 17, 5), (5, 64, 6), (64, 100, 7), (7, 1000, 81)]
        {
            let (x, w) = (numbers(rows * inputs, 1), numbers(outputs * inputs, 2));
            let before = numbers(rows * outputs, 3);
            let mut y = before.clone();
            product(&mut y, Into::Replace, &x, &w, inputs);
            let mut added = before.clone();
            product(&mut added, Into::Add, &x, &w, inputs);
            for (i, (sum, size)) in naive(&x, &w, inputs).into_iter().enumerate() {
                // A sum of n terms is off by at most n ulp of their sizes.
                let bound = inputs as f64 * f64::from(f32::EPSILON) * (size + 1.0);
                let shape = (rows, inputs, outputs, i);
                assert!((f64::from(y[i]) - sum).abs() <= bound, "{shape:?}");
                let sum = sum + f64::from(before[i]);
                assert!((f64::from(added[i]) - sum).abs() <= bound, "{shape:?}");
            }
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn narrower_registers_give_the_plain_sums() {
        let (rows, inputs, outputs) = (7, 45, 11);
        let (x, weight) = (numbers(rows * inputs, 1), numbers(outputs * inputs, 2));
        let mut parts = [vec![0.0; rows * outputs], vec![0.0; rows * outputs]];
        let [scalar, avx2] = &mut parts;
        pulp::Scalar.vectorize(Part { part: scalar, x: &x, weight: &weight, inputs });
        match pulp::x86::V3::try_new() {
            Some(simd) => {
                Simd::vectorize(simd, Part { part: avx2, x: &x, weight: &weight, inputs })
            }
            None => avx2.clone_from(scalar),
        }
        for part in parts {
            for (sum, (wanted, size)) in part.iter().zip(naive(&x, &weight, inputs)) {
                let bound = inputs as f64 * f64::from(f32::EPSILON) * (size + 1.0);
                assert!((f64::from(*sum) - wanted).abs() <= bound, "{sum} {wanted}");
            }
        }
    }

    #[test]
    fn a_row_comes_out_the_same_bits_whatever_stands_beside_it() {
        let (inputs, outputs) = (530, 37);
        let (x, w) = (numbers(MOST_ROWS * inputs, 1), numbers(outputs * inputs, 2));
        let of = |rows: std::ops::Range<usize>| {
            let mut y = vec![0.0; rows.len() * outputs];
            product(&mut y, Into::Replace, &x[rows.start * inputs..rows.end * inputs], &w, inputs);
            y
        };
        let all = of(0..MOST_ROWS);
        for rows in [0..1, 3..5, 7..10, 10..26, 60..64] {
            assert_eq!(of(rows.clone()), all[rows.start * outputs..rows.end * outputs], "{rows:?}");
        }
    }

    #[test]
    fn nothing_to_sum_up_is_zero() {
        let mut y = [3.0; 4];
        product(&mut y, Into::Add, &[], &[], 0);
        assert_eq!(y, [3.0; 4]);
        product(&mut y, Into::Replace, &[], &[], 0);
        assert_eq!(y, [0.0; 4]);
    }
}
