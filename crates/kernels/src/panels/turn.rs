//! Turning rows so that the numbers of one column stand side by side.

use super::{Level, PANEL, level};

/// Something of four bytes that is moved about.
pub(crate) trait Word: Copy + Default {}
impl Word for f32 {}
impl Word for u32 {}

/// Writes `rows` rows of `columns` words, `stride` apart, to `out` (columns, [`PANEL`]); what is
/// beyond the rows is 0.
///
/// # Panics
/// When the rows reach beyond the numbers: a fault of the caller.
pub(crate) fn turn<T: Word>(
    numbers: &[T],
    stride: usize,
    rows: usize,
    columns: usize,
    out: &mut [T],
) {
    assert!(rows <= PANEL && out.len() == columns * PANEL, "a panel has another size");
    assert!(rows == 0 || (rows - 1) * stride + columns <= numbers.len(), "rows lie beyond the end");
    #[cfg(target_arch = "x86_64")]
    if level() >= Level::Avx512 {
        // SAFETY: the machine has the instructions; the assertions above are what is asked for.
        #[allow(unsafe_code)]
        return unsafe { avx512::turn(numbers, stride, rows, columns, out) };
    }
    plain(numbers, stride, (0..rows, 0..columns), out);
    for out in out.chunks_mut(PANEL) {
        out[rows..].fill(T::default());
    }
}

/// Turns the numbers in `rows` and `columns` one by one.
fn plain<T: Word>(
    numbers: &[T],
    stride: usize,
    (rows, columns): (std::ops::Range<usize>, std::ops::Range<usize>),
    out: &mut [T],
) {
    // Blocks of columns: the lines of `out` that they touch stay in the first cache.
    for first in columns.clone().step_by(16) {
        for row in rows.clone() {
            for column in first..columns.end.min(first + 16) {
                out[column * PANEL + row] = numbers[row * stride + column];
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    use super::{PANEL, Word, plain};

    /// Rows and columns of a block that is turned in registers.
    const BLOCK: usize = 16;

    /// See [`super::turn`].
    ///
    /// # Safety
    /// `(rows - 1) · stride + columns` numbers are there, `rows` ≤ [`PANEL`], and `out` holds
    /// `columns` · [`PANEL`].
    #[allow(unsafe_code)]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    pub(super) unsafe fn turn<T: Word>(
        numbers: &[T],
        stride: usize,
        rows: usize,
        columns: usize,
        out: &mut [T],
    ) {
        let (whole_rows, whole_columns) = (rows / BLOCK * BLOCK, columns / BLOCK * BLOCK);
        for row in (0..whole_rows).step_by(BLOCK) {
            // Lines that come next are asked for in time: those of the next rows, and behind the last
            // rows those of the next columns.
            let next = if row + BLOCK < whole_rows {
                BLOCK * stride
            } else {
                columns.wrapping_sub(row * stride)
            };
            for column in (0..whole_columns).step_by(BLOCK) {
                // SAFETY: 16 rows from `row` on and 16 columns from `column` on lie within both, and
                // a word has four bytes, whose value does not matter.
                unsafe {
                    let from = numbers.as_ptr().add(row * stride + column);
                    for i in 0..BLOCK {
                        _mm_prefetch::<_MM_HINT_T0>(
                            from.wrapping_add(next.wrapping_add(i * stride)).cast(),
                        );
                    }
                    let to = out.as_mut_ptr().add(column * PANEL + row);
                    block(from.cast(), stride, to.cast());
                }
            }
        }
        plain(numbers, stride, (0..whole_rows, whole_columns..columns), out);
        plain(numbers, stride, (whole_rows..rows, 0..columns), out);
        if rows < PANEL {
            for out in out.chunks_mut(PANEL) {
                out[rows..].fill(T::default());
            }
        }
    }

    /// Turns 16 × 16 numbers.
    ///
    /// # Safety
    /// 16 numbers can be read at each of 16 places `stride` apart from `from` on, and written at each
    /// of 16 places [`PANEL`] apart from `to` on.
    #[allow(unsafe_code)]
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn block(from: *const f32, stride: usize, to: *mut f32) {
        let mut r = [_mm512_setzero_ps(); BLOCK];
        let mut i = 0;
        while i < BLOCK {
            // SAFETY: the caller's promise.
            r[i] = unsafe { _mm512_loadu_ps(from.add(i * stride)) };
            i += 1;
        }
        // Pairs of rows, then fours, within each 128 bits.
        let mut t = r;
        let mut i = 0;
        while i < BLOCK {
            t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
            t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
            i += 2;
        }
        let pair = |a, b| (_mm512_castps_pd(a), _mm512_castps_pd(b));
        let mut i = 0;
        while i < BLOCK {
            let (a, b) = pair(t[i], t[i + 2]);
            let (c, d) = pair(t[i + 1], t[i + 3]);
            r[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
            r[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
            r[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(c, d));
            r[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(c, d));
            i += 4;
        }
        // r[4·g + c] has, in its q-th 128 bits, column 4·q + c of rows 4·g to 4·g + 3.
        let mut c = 0;
        while c < 4 {
            let a = _mm512_shuffle_f32x4::<0x44>(r[c], r[4 + c]);
            let b = _mm512_shuffle_f32x4::<0xee>(r[c], r[4 + c]);
            let d = _mm512_shuffle_f32x4::<0x44>(r[8 + c], r[12 + c]);
            let e = _mm512_shuffle_f32x4::<0xee>(r[8 + c], r[12 + c]);
            // SAFETY: the caller's promise.
            unsafe {
                _mm512_storeu_ps(to.add(c * PANEL), _mm512_shuffle_f32x4::<0x88>(a, d));
                _mm512_storeu_ps(to.add((4 + c) * PANEL), _mm512_shuffle_f32x4::<0xdd>(a, d));
                _mm512_storeu_ps(to.add((8 + c) * PANEL), _mm512_shuffle_f32x4::<0x88>(b, e));
                _mm512_storeu_ps(to.add((12 + c) * PANEL), _mm512_shuffle_f32x4::<0xdd>(b, e));
            }
            c += 1;
        }
    }
}
