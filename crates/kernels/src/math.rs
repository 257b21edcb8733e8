//! Scalar mathematics written so that loops over it become SIMD code.
//!
//! What is `inline(always)` here takes on the instruction set of the function that calls it, which
//! is compiled for several (`#[multiversion]`) and chosen at run time. A closure handed to a function
//! of another crate would not take it on: such loops stand in functions of their own.

use multiversion::multiversion;

/// Lanes of the partial sums: one AVX-512 register, two of AVX2.
const LANES: usize = 16;

/// `e^x`, within 2 ulp for -87 ≤ x ≤ 88, and clamped to that range.
///
/// Splits `x = n·ln 2 + r`, takes a polynomial of degree 6 in `r`, and puts `n` into the exponent.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // 1.5 · 2^23: adding it rounds to an integer, which then stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, x));
    let p = 1.987_569_1e-4_f32;
    let p = p.mul_add(r, 1.398_199_9e-3);
    let p = p.mul_add(r, 8.333_452e-3);
    let p = p.mul_add(r, 4.166_579_6e-2);
    let p = p.mul_add(r, 1.666_666_5e-1);
    let p = p.mul_add(r, 5e-1);
    let p = p.mul_add(r * r, r) + 1.0;
    p * f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23))
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The sum of `f(i)` for `i < n`, in an order that depends on `n` alone.
#[inline(always)]
pub(crate) fn sum(n: usize, f: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let whole = n / LANES * LANES;
    let mut i = 0;
    while i < whole {
        for (lane, total) in lanes.iter_mut().enumerate() {
            *total += f(i + lane);
        }
        i += LANES;
    }
    let mut total = lanes.iter().sum::<f32>();
    for i in whole..n {
        total += f(i);
    }
    total
}

/// The scalar product of two slices of the same length.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0f32; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let (a_rest, b_rest) = (a_chunks.remainder(), b_chunks.remainder());
    for (x, y) in a_chunks.zip(b_chunks) {
        for lane in 0..LANES {
            lanes[lane] = x[lane].mul_add(y[lane], lanes[lane]);
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum();
    lanes.iter().sum::<f32>() + rest
}

/// The largest of `x`.
#[inline(always)]
pub(crate) fn max(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] = if chunk[lane] > lanes[lane] { chunk[lane] } else { lanes[lane] };
        }
    }
    lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max)
}

/// Replaces each `x` by `e^(x - shift)` and gives their sum.
#[inline(always)]
pub(crate) fn exp_sum(x: &mut [f32], shift: f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let mut chunks = x.chunks_exact_mut(LANES);
    for chunk in &mut chunks {
        for lane in 0..LANES {
            chunk[lane] = exp(chunk[lane] - shift);
            lanes[lane] += chunk[lane];
        }
    }
    let mut total = 0.0;
    for value in chunks.into_remainder() {
        *value = exp(*value - shift);
        total += *value;
    }
    lanes.iter().sum::<f32>() + total
}

/// The sums of `e^y` and of `y · e^y`, for `y = x - shift`.
#[inline(always)]
pub(crate) fn exp_moments(x: &[f32], shift: f32) -> (f32, f32) {
    let (mut sums, mut means) = ([0f32; LANES], [0f32; LANES]);
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for lane in 0..LANES {
            let y = chunk[lane] - shift;
            let e = exp(y);
            sums[lane] += e;
            means[lane] = e.mul_add(y, means[lane]);
        }
    }
    let (mut total, mut weighted) = (sums.iter().sum::<f32>(), means.iter().sum::<f32>());
    for x in rest {
        let y = x - shift;
        let e = exp(y);
        total += e;
        weighted += e * y;
    }
    (total, weighted)
}

/// `y += x`.
#[multiversion(targets = "simd")]
pub(crate) fn add(y: &mut [f32], x: &[f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += x;
    }
}

/// `x *= factor`.
#[multiversion(targets = "simd")]
pub(crate) fn scale(x: &mut [f32], factor: f32) {
    for x in x {
        *x *= factor;
    }
}

/// The sum of the squares.
#[multiversion(targets = "simd")]
pub(crate) fn square_sum(x: &[f32]) -> f32 {
    dot(x, x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_ulp_of_the_library() {
        for i in -8700..=8800 {
            let x = i as f32 / 100.0;
            let truth = f64::from(x).exp();
            let error = (f64::from(exp(x)) - truth).abs() / truth;
            assert!(error < 2.5e-7, "exp({x}): relative error {error}");
        }
    }

    #[test]
    fn sums_take_in_every_element() {
        for n in 0..70 {
            let x: Vec<f32> = (0..n).map(|i| i as f32).collect();
            assert_eq!(sum(n, |i| x[i]), (n * n.saturating_sub(1) / 2) as f32);
            let ones = vec![1.0; n];
            assert_eq!(dot(&x, &ones), (n * n.saturating_sub(1) / 2) as f32);
        }
    }

    #[test]
    fn max_looks_at_the_remainder_too() {
        let mut x = vec![-1.0; 19];
        x[18] = 3.0;
        assert_eq!(max(&x), 3.0);
    }
}
