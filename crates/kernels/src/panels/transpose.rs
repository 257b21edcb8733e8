//! Transposes row-major words into panels and strips.

#[cfg(target_arch = "x86_64")]
use super::prefetch::prefetch_line;
use crate::simd_level::SimdLevel;

/// A 4-byte word.
pub(crate) trait Word: Copy + Default {}
impl Word for f32 {}
impl Word for u32 {}

/// Transposes `rows` rows of `columns` words, `stride` apart, to `out` (columns, `width`), zero-padded beyond the rows, with
/// the instructions of `level`, which the machine supports.
///
/// # Panics
/// If the rows exceed `data`: a bug of the caller.
pub(crate) fn transpose<T: Word>(
    level: SimdLevel,
    data: &[T],
    stride: usize,
    (rows, columns): (usize, usize),
    (out, width): (&mut [T], usize),
) {
    assert!(rows <= width && out.len() == columns * width, "`out` differs from (columns, width)");
    assert!(rows == 0 || (rows - 1) * stride + columns <= data.len(), "rows exceed the data");
    #[cfg(target_arch = "x86_64")]
    let (whole_rows, whole_columns) =
        in_blocks(level, data, stride, (rows, columns), (&mut *out, width));
    #[cfg(not(target_arch = "x86_64"))]
    let (_, (whole_rows, whole_columns)) = (level, (0, 0));
    plain(data, stride, (0..whole_rows, whole_columns..columns), (&mut *out, width));
    plain(data, stride, (whole_rows..rows, 0..columns), (&mut *out, width));
    pad(rows, (out, width));
}

/// Transposes the blocks that the instructions of `level` transpose in registers. Returns the rows and columns that they
/// cover.
#[cfg(target_arch = "x86_64")]
fn in_blocks<T: Word>(
    level: SimdLevel,
    data: &[T],
    stride: usize,
    shape: (usize, usize),
    out: (&mut [T], usize),
) -> (usize, usize) {
    assert!(level.is_supported(), "this CPU has no {level:?}");
    // SAFETY: the machine has the instructions; the caller has checked the shapes.
    #[allow(unsafe_code)]
    unsafe {
        match level {
            SimdLevel::Portable => (0, 0),
            SimdLevel::Avx2 => blocks::<T, { avx2::BLOCK }>(data, stride, shape, out, avx2::block),
            SimdLevel::Avx512 | SimdLevel::Avx512Bf16 => {
                blocks::<T, { avx512::BLOCK }>(data, stride, shape, out, avx512::block)
            }
        }
    }
}

/// Transposes a block of words, whose rows are `stride` apart, to rows that are `width` apart.
#[cfg(target_arch = "x86_64")]
type TransposeBlock = unsafe fn((*const f32, usize), (*mut f32, usize));

/// Transposes the blocks of `BLOCK` × `BLOCK` words. Returns the rows and columns that they cover.
///
/// # Safety
/// The machine has the instructions of `block`. `data` has `(rows - 1) · stride + columns` elements, `rows` ≤ `width`, and
/// `out` has `columns` · `width`.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
unsafe fn blocks<T: Word, const BLOCK: usize>(
    data: &[T],
    stride: usize,
    (rows, columns): (usize, usize),
    (out, width): (&mut [T], usize),
    block: TransposeBlock,
) -> (usize, usize) {
    let (whole_rows, whole_columns) = (rows / BLOCK * BLOCK, columns / BLOCK * BLOCK);
    for row in (0..whole_rows).step_by(BLOCK) {
        // Prefetches the next rows or, after the last rows, the next columns.
        let next = if row + BLOCK < whole_rows {
            BLOCK * stride
        } else {
            columns.wrapping_sub(row * stride)
        };
        for column in (0..whole_columns).step_by(BLOCK) {
            // SAFETY: `BLOCK` rows from `row` on and as many columns from `column` on are within both, and a word is any
            // four bytes.
            unsafe {
                let from = data.as_ptr().add(row * stride + column);
                for i in 0..BLOCK {
                    prefetch_line(from.wrapping_add(next.wrapping_add(i * stride)).cast());
                }
                let to = out.as_mut_ptr().add(column * width + row);
                block((from.cast(), stride), (to.cast(), width));
            }
        }
    }
    (whole_rows, whole_columns)
}

/// Fills `out` (columns, `width`) with zeros from row `rows` on.
fn pad<T: Word>(rows: usize, (out, width): (&mut [T], usize)) {
    if rows < width {
        out.chunks_mut(width).for_each(|out| out[rows..].fill(T::default()));
    }
}

/// Transposes `rows` and `columns` one element at a time.
fn plain<T: Word>(
    data: &[T],
    stride: usize,
    (rows, columns): (std::ops::Range<usize>, std::ops::Range<usize>),
    (out, width): (&mut [T], usize),
) {
    // Blocks of columns: the cache lines of `out` that they touch stay in the L1 cache.
    for first in columns.clone().step_by(16) {
        for row in rows.clone() {
            for column in first..columns.end.min(first + 16) {
                out[column * width + row] = data[row * stride + column];
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) mod avx512 {
    use std::arch::x86_64::*;

    /// Rows and columns of a block.
    pub(super) const BLOCK: usize = 16;

    /// Transposes 16 × 16 elements.
    ///
    /// # Safety
    /// 16 elements can be read at each of 16 addresses `stride` apart from `from` on, and written at each of 16
    /// addresses `width` apart from `to` on.
    #[allow(unsafe_code, clippy::needless_range_loop)]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    pub(super) unsafe fn block(
        (from, stride): (*const f32, usize),
        (to, width): (*mut f32, usize),
    ) {
        // SAFETY: the caller's promise.
        let columns = unsafe { transpose_16x16(from, stride) };
        for i in 0..BLOCK {
            // SAFETY: the caller's promise.
            unsafe { _mm512_storeu_ps(to.add(i * width), columns[i]) };
        }
    }

    /// The columns of 16 × 16 elements.
    ///
    /// # Safety
    /// 16 elements can be read at each of 16 addresses `stride` apart from `from` on.
    #[allow(unsafe_code, clippy::needless_range_loop)]
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    pub(crate) unsafe fn transpose_16x16(from: *const f32, stride: usize) -> [__m512; BLOCK] {
        let mut r = [_mm512_setzero_ps(); BLOCK];
        for i in 0..BLOCK {
            // SAFETY: the caller's promise.
            r[i] = unsafe { _mm512_loadu_ps(from.add(i * stride)) };
        }
        // Pairs of rows, then groups of four, within each 128-bit lane.
        let mut t = r;
        for i in (0..BLOCK).step_by(2) {
            t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
            t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
        }
        for i in (0..BLOCK).step_by(4) {
            let (a, b) = (_mm512_castps_pd(t[i]), _mm512_castps_pd(t[i + 2]));
            let (c, d) = (_mm512_castps_pd(t[i + 1]), _mm512_castps_pd(t[i + 3]));
            r[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
            r[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
            r[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(c, d));
            r[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(c, d));
        }
        // The q-th 128-bit lane of r[4·g + c] holds column 4·q + c of rows 4·g to 4·g + 3.
        for c in 0..4 {
            let a = _mm512_shuffle_f32x4::<0x44>(r[c], r[4 + c]);
            let b = _mm512_shuffle_f32x4::<0xee>(r[c], r[4 + c]);
            let d = _mm512_shuffle_f32x4::<0x44>(r[8 + c], r[12 + c]);
            let e = _mm512_shuffle_f32x4::<0xee>(r[8 + c], r[12 + c]);
            t[c] = _mm512_shuffle_f32x4::<0x88>(a, d);
            t[4 + c] = _mm512_shuffle_f32x4::<0xdd>(a, d);
            t[8 + c] = _mm512_shuffle_f32x4::<0x88>(b, e);
            t[12 + c] = _mm512_shuffle_f32x4::<0xdd>(b, e);
        }
        t
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    /// Rows and columns of a block.
    pub(super) const BLOCK: usize = 8;

    /// Transposes 8 × 8 elements.
    ///
    /// # Safety
    /// 8 elements can be read at each of 8 addresses `stride` apart from `from` on, and written at each of 8 addresses
    /// `width` apart from `to` on.
    #[allow(unsafe_code, clippy::needless_range_loop)]
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn block(
        (from, stride): (*const f32, usize),
        (to, width): (*mut f32, usize),
    ) {
        let mut r = [_mm256_setzero_ps(); BLOCK];
        for i in 0..BLOCK {
            // SAFETY: the caller's promise.
            r[i] = unsafe { _mm256_loadu_ps(from.add(i * stride)) };
        }
        // Pairs of rows, then groups of four, within each 128-bit lane.
        let mut t = r;
        for i in (0..BLOCK).step_by(2) {
            t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
            t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
        }
        for i in (0..BLOCK).step_by(4) {
            r[i] = _mm256_shuffle_ps::<0x44>(t[i], t[i + 2]);
            r[i + 1] = _mm256_shuffle_ps::<0xee>(t[i], t[i + 2]);
            r[i + 2] = _mm256_shuffle_ps::<0x44>(t[i + 1], t[i + 3]);
            r[i + 3] = _mm256_shuffle_ps::<0xee>(t[i + 1], t[i + 3]);
        }
        // The q-th 128-bit lane of r[4·g + c] holds column 4·q + c of rows 4·g to 4·g + 3.
        for c in 0..4 {
            let low = _mm256_permute2f128_ps::<0x20>(r[c], r[4 + c]);
            let high = _mm256_permute2f128_ps::<0x31>(r[c], r[4 + c]);
            // SAFETY: the caller's promise.
            unsafe {
                _mm256_storeu_ps(to.add(c * width), low);
                _mm256_storeu_ps(to.add((4 + c) * width), high);
            }
        }
    }
}
