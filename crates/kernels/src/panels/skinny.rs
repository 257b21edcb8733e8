//! Skinny GEMM: for few rows the weight is transposed in registers and never stored.
//!
//! Sixteen rows of the weight are streamed in parallel from start to end, which memory serves faster than short
//! pieces of many rows.

use std::arch::x86_64::*;

use super::sizes::{CHUNK, PANEL};
use super::tile::TILE_ROWS;
use super::transpose::avx512::transpose_16x16;
use crate::simd_level::SimdLevel;

/// Maximum rows.
pub(super) const MAX_ROWS: usize = TILE_ROWS;

/// Outputs computed in parallel.
pub(super) const LANES: usize = 16;

const _: () = assert!(PANEL.is_multiple_of(LANES), "a panel must be whole registers");

/// Writes the products of all rows of `x` with [`LANES`] rows of the weight to `sums`; returns whether
/// `level` has the instructions.
///
/// The summation order is that of [`crate::panels::matmul`].
///
/// # Shapes
/// `x` (rows, inputs) with at most [`MAX_ROWS`] rows, `weight` ([`LANES`], inputs), `sums` (rows,
/// [`LANES`]).
pub(super) fn fill(
    level: SimdLevel,
    sums: &mut [f32],
    x: &[f32],
    weight: &[f32],
    inputs: usize,
) -> bool {
    if level < SimdLevel::Avx512 {
        return false;
    }
    let rows = x.len() / inputs;
    assert!(
        weight.len() == LANES * inputs && x.len() == rows * inputs,
        "`x` and the weight must be whole rows"
    );
    assert!(sums.len() == rows * LANES, "`sums` differs from (rows, LANES)");
    assert!(level.is_supported(), "this CPU has no AVX-512");
    assert!((1..=MAX_ROWS).contains(&rows), "the number of rows is out of range");
    let (sums, x, w) = (sums.as_mut_ptr(), x.as_ptr(), weight.as_ptr());
    // SAFETY: the machine has the instructions; the assertions are the function's preconditions.
    #[allow(unsafe_code)]
    unsafe {
        match rows {
            1 => rows_of::<1>(sums, x, w, inputs),
            2 => rows_of::<2>(sums, x, w, inputs),
            3 => rows_of::<3>(sums, x, w, inputs),
            4 => rows_of::<4>(sums, x, w, inputs),
            5 => rows_of::<5>(sums, x, w, inputs),
            _ => rows_of::<6>(sums, x, w, inputs),
        }
    }
    true
}

/// # Safety
/// `x` and `sums` have `R` rows, `w` has [`LANES`].
#[allow(unsafe_code, clippy::needless_range_loop)]
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn rows_of<const R: usize>(sums: *mut f32, x: *const f32, w: *const f32, inputs: usize) {
    let mut totals = [_mm512_setzero_ps(); R];
    for chunk in (0..inputs).step_by(CHUNK) {
        let end = inputs.min(chunk + CHUNK);
        let mut chain = [_mm512_setzero_ps(); R];
        let whole = chunk + (end - chunk) / LANES * LANES;
        for first in (chunk..whole).step_by(LANES) {
            // SAFETY: the columns from `first` on are within each of the weight's rows.
            let columns = unsafe { transpose_16x16(w.add(first), inputs) };
            for i in 0..LANES {
                for r in 0..R {
                    // SAFETY: `r` < rows, and `first + i` < inputs.
                    let x = _mm512_set1_ps(unsafe { *x.add(r * inputs + first + i) });
                    chain[r] = _mm512_fmadd_ps(x, columns[i], chain[r]);
                }
            }
        }
        for column in whole..end {
            let mut values = [0.0; LANES];
            for lane in 0..LANES {
                // SAFETY: `lane` is one of the weight's rows, and `column` < inputs.
                values[lane] = unsafe { *w.add(lane * inputs + column) };
            }
            // SAFETY: it has the length of a register.
            let values = unsafe { _mm512_loadu_ps(values.as_ptr()) };
            for r in 0..R {
                // SAFETY: `r` < rows, and `column` < inputs.
                let x = _mm512_set1_ps(unsafe { *x.add(r * inputs + column) });
                chain[r] = _mm512_fmadd_ps(x, values, chain[r]);
            }
        }
        for r in 0..R {
            totals[r] = _mm512_add_ps(totals[r], chain[r]);
        }
    }
    for r in 0..R {
        // SAFETY: `r` < rows.
        unsafe { _mm512_storeu_ps(sums.add(r * LANES), totals[r]) };
    }
}
