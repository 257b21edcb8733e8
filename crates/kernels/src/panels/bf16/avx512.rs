//! The bf16 micro-kernel with AVX-512 dot products of pairs.

use std::arch::x86_64::*;

use crate::panels::{PANEL, Prefetch, TILE_ROWS};

/// Registers of a panel.
const LANES: usize = 16;
const N: usize = PANEL / LANES;

/// See [`crate::panels::PanelWeight::accumulate`].
///
/// # Safety
/// `sums` has `rows` rows of [`PANEL`], `w` has `depth` of them, and `x` has `depth` words at each of `rows`
/// addresses `stride` apart.
#[allow(unsafe_code)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(super) unsafe fn accumulate(
    sums: &mut [f32],
    (x, stride): (&[u32], usize),
    w: &[u32],
    (rows, depth): (usize, usize),
    prefetch: Prefetch,
) {
    let (sums, x, w) = (sums.as_mut_ptr(), x.as_ptr(), w.as_ptr());
    // SAFETY: the caller's promise, with the number of rows as a constant.
    unsafe {
        match rows {
            1 => tile::<1>(sums, x, stride, (w, depth), prefetch),
            2 => tile::<2>(sums, x, stride, (w, depth), prefetch),
            3 => tile::<3>(sums, x, stride, (w, depth), prefetch),
            4 => tile::<4>(sums, x, stride, (w, depth), prefetch),
            5 => tile::<5>(sums, x, stride, (w, depth), prefetch),
            TILE_ROWS => tile::<TILE_ROWS>(sums, x, stride, (w, depth), prefetch),
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
    (w, depth): (*const u32, usize),
    prefetch: Prefetch,
) {
    let mut acc = [[_mm512_setzero_ps(); N]; R];
    for k in 0..depth {
        if k < prefetch.steps() {
            prefetch.issue(k);
        }
        let mut words = [_mm512_setzero_si512(); N];
        for n in 0..N {
            // SAFETY: `k` < depth, and a row of `w` has N · LANES words.
            words[n] = unsafe { _mm512_loadu_si512(w.add(k * PANEL + n * LANES).cast()) };
        }
        for r in 0..R {
            // SAFETY: `k` < depth, and `r` < rows.
            let x = _mm512_set1_epi32(unsafe { *x.add(r * stride + k) } as i32);
            for n in 0..N {
                // SAFETY: both are 512 bits, and every bit pattern is valid.
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
