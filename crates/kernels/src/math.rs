//! Scalar functions written so that loops over them auto-vectorize.
//!
//! An `inline(always)` function inherits the instruction set of its caller, which is compiled for several
//! (`#[multiversion]`) and chosen at run time. A closure passed to another crate's function would not inherit it, so
//! such loops are functions of their own.

use multiversion::multiversion;
use pulp::Simd;

/// Lanes of the partial sums: one AVX-512 register, two of AVX2.
const LANES: usize = 16;

/// 1.5 · 2^23: adding it rounds to an integer, held in the low bits.
const ROUND: f32 = 12_582_912.0;
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;

/// Range that [`exp`] clamps to.
const EXP_RANGE: (f32, f32) = (-87.0, 88.0);

/// Coefficients of `(e^r - 1 - r) / r²`, highest power first.
const EXP: [f32; 6] =
    [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1];

/// `e^x`, within 2 ulp for -87 ≤ x ≤ 88, and clamped to that range.
///
/// Range reduction `x = n·ln 2 + r`, a polynomial of degree 6 in `r`, then `n` added to the exponent.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let x = x.clamp(EXP_RANGE.0, EXP_RANGE.1);
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, x));
    let mut p = EXP[0];
    for coefficient in &EXP[1..] {
        p = p.mul_add(r, *coefficient);
    }
    let p = p.mul_add(r * r, r) + 1.0;
    p * f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23))
}

/// [`exp`] of each lane; bit-identical where the machine has FMA.
#[inline(always)]
pub(crate) fn exps<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let splat = |x: f32| simd.splat_f32s(x);
    let (low, high) = (splat(EXP_RANGE.0), splat(EXP_RANGE.1));
    // NaN propagates: in registers these return the second operand then. Scalar ones would return the bound.
    let x = if S::F32_LANES > 1 {
        simd.min_f32s(high, simd.max_f32s(low, x))
    } else {
        let x = simd.select_f32s(simd.less_than_f32s(x, low), low, x);
        simd.select_f32s(simd.greater_than_f32s(x, high), high, x)
    };
    let shifted = simd.mul_add_f32s(x, splat(std::f32::consts::LOG2_E), splat(ROUND));
    let n = simd.sub_f32s(shifted, splat(ROUND));
    let r = simd.mul_add_f32s(n, splat(-LN2_HIGH), x);
    let r = simd.mul_add_f32s(n, splat(-LN2_LOW), r);
    let mut p = splat(EXP[0]);
    for coefficient in &EXP[1..] {
        p = simd.mul_add_f32s(p, r, splat(*coefficient));
    }
    let p = simd.mul_add_f32s(p, simd.mul_f32s(r, r), r);
    let p = simd.add_f32s(p, splat(1.0));
    let n = simd.wrapping_dyn_shl_u32s(simd.transmute_u32s_f32s(shifted), simd.splat_u32s(23));
    let power = simd.add_u32s(n, simd.splat_u32s(127 << 23));
    simd.mul_f32s(p, simd.transmute_f32s_u32s(power))
}

/// Tree reduction of the lanes.
#[inline(always)]
fn tree_reduce(mut lanes: [f32; LANES], both: impl Fn(f32, f32) -> f32) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] = both(lanes[lane], lanes[lane + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// The larger of two values; the first if they are unordered.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Coefficients, in `x²`, of the rational approximation of `erf(x) / x`, highest power first.
const ERF_ABOVE: [f32; 7] = [
    -2.726_142e-10,
    2.770_681_4e-8,
    -2.101_024e-6,
    -5.692_506_5e-5,
    -7.349_906e-4,
    -2.954_6e-3,
    -1.609_603_3e-2,
];
const ERF_BELOW: [f32; 5] =
    [-1.456_607_2e-5, -2.133_740_6e-4, -1.682_827e-3, -7.373_329e-3, -1.426_473_9e-2];

/// The error function, within 5e-7; clamped at |x| = 4, where it is ±1 to that accuracy.
#[inline(always)]
pub(crate) fn erf(x: f32) -> f32 {
    let x = x.clamp(-4.0, 4.0);
    let square = x * x;
    let (mut above, mut below) = (ERF_ABOVE[0], ERF_BELOW[0]);
    for coefficient in &ERF_ABOVE[1..] {
        above = above.mul_add(square, *coefficient);
    }
    for coefficient in &ERF_BELOW[1..] {
        below = below.mul_add(square, *coefficient);
    }
    x * above / below
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
    let mut total = tree_reduce(lanes, |a, b| a + b);
    for i in whole..n {
        total += f(i);
    }
    total
}

/// Dot product of two slices of the same length.
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
    tree_reduce(lanes, |a, b| a + b) + rest
}

/// The largest of `x`.
#[inline(always)]
pub(crate) fn max(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] = larger(lanes[lane], chunk[lane]);
        }
    }
    rest.iter().copied().fold(tree_reduce(lanes, larger), larger)
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
    let (mut total, mut weighted) =
        (tree_reduce(sums, |a, b| a + b), tree_reduce(means, |a, b| a + b));
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
    use crate::simd_level::SimdLevel;

    #[test]
    fn exp_is_within_two_ulp_of_the_library() {
        for i in -8700..=8800 {
            let x = i as f32 / 100.0;
            let expected = f64::from(x).exp();
            let error = (f64::from(exp(x)) - expected).abs() / expected;
            assert!(error < 2.5e-7, "exp({x}): relative error {error}");
        }
    }

    #[test]
    fn the_simd_exp_equals_the_scalar_one_at_every_level() {
        struct Registers<'a>(&'a mut [f32]);
        impl pulp::WithSimd for Registers<'_> {
            type Output = ();

            fn with_simd<S: Simd>(self, simd: S) {
                let (registers, rest) = S::as_mut_simd_f32s(self.0);
                assert!(rest.is_empty());
                for x in registers {
                    *x = exps(simd, *x);
                }
            }
        }
        let mut x: Vec<f32> = (-8800..8800).map(|i| i as f32 / 100.0).collect();
        x[..4].copy_from_slice(&[f32::NEG_INFINITY, f32::INFINITY, f32::NAN, -0.0]);
        for level in SimdLevel::supported() {
            let mut found = x.clone();
            level.arch().dispatch(Registers(&mut found));
            for (x, found) in x.iter().zip(found) {
                let expected = exp(*x);
                let same = (found - expected).abs() <= 2.5e-7 * expected;
                assert!(
                    same || found.is_nan() && x.is_nan(),
                    "{level:?}, exp({x}): {found}, not {expected}"
                );
            }
        }
    }

    #[test]
    fn sums_include_every_element() {
        for n in 0..70 {
            let x: Vec<f32> = (0..n).map(|i| i as f32).collect();
            assert_eq!(sum(n, |i| x[i]), (n * n.saturating_sub(1) / 2) as f32);
            let ones = vec![1.0; n];
            assert_eq!(dot(&x, &ones), (n * n.saturating_sub(1) / 2) as f32);
        }
    }

    #[test]
    fn max_includes_the_remainder() {
        let mut x = vec![-1.0; 19];
        x[18] = 3.0;
        assert_eq!(max(&x), 3.0);
    }
}
