//! Packed 16-bit weights, widened to f32 with AVX-512: in registers for few rows, else chunk by chunk.

use std::arch::x86_64::*;

use super::{CHUNK, PANEL, SimdLevel, TILE_ROWS};

/// Registers of a panel.
const N: usize = PANEL / LANES;
const LANES: usize = 16;

/// Bytes of a cache line.
const LINE: usize = 64;

/// Bytes from the current weights to those that are prefetched: far enough to cover the latency of memory.
const AHEAD: usize = 16 << 10;

const _: () = assert!(CHUNK.is_multiple_of(2), "a chunk must hold whole pairs");

/// Skinny GEMM with a panel of f16 weights; returns whether `level` has the instructions. The summation order is that
/// of [`super::matmul`].
///
/// # Shapes
/// `x` (rows, inputs) with at most [`TILE_ROWS`] rows, `weight` (inputs, [`PANEL`]), `sums` (rows, [`PANEL`]).
pub(super) fn f16_rows(level: SimdLevel, sums: &mut [f32], x: &[f32], weight: &[u16]) -> bool {
    let inputs = weight.len() / PANEL;
    // SAFETY: `rows` checks the lengths against `inputs`, and a word of the weight is 2 bytes.
    #[allow(unsafe_code)]
    unsafe {
        rows::<true>(level, sums, x, weight.as_ptr().cast(), inputs)
    }
}

/// [`f16_rows`] with pairs of bf16 weights.
///
/// # Shapes
/// `weight` (inputs / 2, [`PANEL`]).
pub(super) fn bf16_rows(level: SimdLevel, sums: &mut [f32], x: &[f32], weight: &[u32]) -> bool {
    let inputs = weight.len() / PANEL * 2;
    // SAFETY: as above; a pair is 4 bytes.
    #[allow(unsafe_code)]
    unsafe {
        rows::<false>(level, sums, x, weight.as_ptr().cast(), inputs)
    }
}

/// # Safety
/// `weight` has `inputs` · [`PANEL`] 16-bit floats.
#[allow(unsafe_code)]
unsafe fn rows<const F16: bool>(
    level: SimdLevel,
    sums: &mut [f32],
    x: &[f32],
    weight: *const u8,
    inputs: usize,
) -> bool {
    let rows = sums.len() / PANEL;
    if level < SimdLevel::Avx512 || rows > TILE_ROWS {
        return false;
    }
    assert!(level.is_supported(), "this CPU has no AVX-512");
    assert!(
        x.len() == rows * inputs && sums.len() == rows * PANEL,
        "`x` and `sums` must be whole rows"
    );
    let (sums, x) = (sums.as_mut_ptr(), x.as_ptr());
    // SAFETY: the machine has the instructions; the lengths are checked.
    unsafe {
        match rows {
            1 => tile::<F16, 1>(sums, x, weight, inputs),
            2 => tile::<F16, 2>(sums, x, weight, inputs),
            3 => tile::<F16, 3>(sums, x, weight, inputs),
            4 => tile::<F16, 4>(sums, x, weight, inputs),
            5 => tile::<F16, 5>(sums, x, weight, inputs),
            6 => tile::<F16, 6>(sums, x, weight, inputs),
            _ => return false,
        }
    }
    true
}

/// # Safety
/// `x` and `sums` have `R` rows; `weight` has `inputs` · [`PANEL`] 16-bit floats.
#[allow(unsafe_code, clippy::needless_range_loop)]
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn tile<const F16: bool, const R: usize>(
    sums: *mut f32,
    x: *const f32,
    weight: *const u8,
    inputs: usize,
) {
    let mut totals = [[_mm512_setzero_ps(); N]; R];
    for chunk in (0..inputs).step_by(CHUNK) {
        let mut chain = [[_mm512_setzero_ps(); N]; R];
        for k in chunk..inputs.min(chunk + CHUNK) {
            for line in 0..2 * PANEL / LINE {
                let ahead = 2 * k * PANEL + line * LINE + AHEAD;
                _mm_prefetch::<_MM_HINT_T0>(weight.wrapping_add(ahead).cast());
            }
            let mut w = [_mm512_setzero_ps(); N];
            for n in 0..N {
                // SAFETY: `k` < inputs, and a pair has two of them.
                w[n] = unsafe {
                    if F16 {
                        f16(weight.add(2 * (k * PANEL + n * LANES)))
                    } else {
                        let pairs = weight.add(4 * (k / 2 * PANEL + n * LANES));
                        if k % 2 == 0 { first_bf16(pairs) } else { second_bf16(pairs) }
                    }
                };
            }
            for r in 0..R {
                // SAFETY: `r` < rows, and `k` < inputs.
                let x = _mm512_set1_ps(unsafe { *x.add(r * inputs + k) });
                for n in 0..N {
                    chain[r][n] = _mm512_fmadd_ps(x, w[n], chain[r][n]);
                }
            }
        }
        for r in 0..R {
            for n in 0..N {
                totals[r][n] = _mm512_add_ps(totals[r][n], chain[r][n]);
            }
        }
    }
    for r in 0..R {
        for n in 0..N {
            // SAFETY: `r` < rows.
            unsafe { _mm512_storeu_ps(sums.add(r * PANEL + n * LANES), totals[r][n]) };
        }
    }
}

/// # Safety
/// 16 half-precision floats can be read.
#[allow(unsafe_code)]
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn f16(from: *const u8) -> __m512 {
    // SAFETY: the caller's promise.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(from.cast()) })
}

/// # Safety
/// 16 pairs can be read.
#[allow(unsafe_code)]
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn first_bf16(pairs: *const u8) -> __m512 {
    // SAFETY: the caller's promise.
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(unsafe { _mm512_loadu_si512(pairs.cast()) }))
}

/// # Safety
/// 16 pairs can be read.
#[allow(unsafe_code)]
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn second_bf16(pairs: *const u8) -> __m512 {
    let high = _mm512_set1_epi32(0xffff_0000_u32.cast_signed());
    // SAFETY: the caller's promise.
    _mm512_castsi512_ps(_mm512_and_si512(unsafe { _mm512_loadu_si512(pairs.cast()) }, high))
}

/// Widens f16 weights; returns whether `level` has the instructions.
///
/// # Shapes
/// `weight` and `out` (inputs, [`PANEL`]).
pub(super) fn f16_chunk(level: SimdLevel, weight: &[u16], out: &mut [f32]) -> bool {
    if level < SimdLevel::Avx512 {
        return false;
    }
    assert!(level.is_supported(), "this CPU has no AVX-512");
    assert!(
        out.len() == weight.len() && out.len().is_multiple_of(LANES),
        "`out` differs from the weight in shape"
    );
    // SAFETY: the machine has the instructions; the lengths are checked.
    #[allow(unsafe_code)]
    unsafe {
        widen_f16(weight, out);
    }
    true
}

/// # Safety
/// As [`f16_chunk`] checks.
#[allow(unsafe_code)]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn widen_f16(weight: &[u16], out: &mut [f32]) {
    let (from, to) = (weight.as_ptr(), out.as_mut_ptr());
    for at in (0..out.len()).step_by(LANES) {
        // SAFETY: both have this length.
        unsafe { _mm512_storeu_ps(to.add(at), f16(from.add(at).cast())) };
    }
}

/// Widens pairs of bf16 weights; returns whether `level` has the instructions.
///
/// # Shapes
/// `pairs` (pairs, [`PANEL`]), `out` (2 · pairs, [`PANEL`]).
pub(super) fn bf16_chunk(level: SimdLevel, pairs: &[u32], out: &mut [f32]) -> bool {
    if level < SimdLevel::Avx512 {
        return false;
    }
    assert!(level.is_supported(), "this CPU has no AVX-512");
    assert!(
        out.len() == 2 * pairs.len() && pairs.len().is_multiple_of(PANEL),
        "`out` differs from the pairs in shape"
    );
    // SAFETY: the machine has the instructions; the lengths are checked.
    #[allow(unsafe_code)]
    unsafe {
        widen_bf16(pairs, out);
    }
    true
}

/// # Safety
/// As [`bf16_chunk`] checks.
#[allow(unsafe_code)]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn widen_bf16(pairs: &[u32], out: &mut [f32]) {
    let (from, to) = (pairs.as_ptr(), out.as_mut_ptr());
    for row in (0..pairs.len()).step_by(PANEL) {
        for at in (row..row + PANEL).step_by(LANES) {
            // SAFETY: each row of pairs becomes two of `out`.
            unsafe {
                let to = to.add(row + at);
                _mm512_storeu_ps(to, first_bf16(from.add(at).cast()));
                _mm512_storeu_ps(to.add(PANEL), second_bf16(from.add(at).cast()));
            }
        }
    }
}
