//! Parallel loops over rows.

use std::mem::MaybeUninit;

use rayon::prelude::*;

/// Elements per task: enough to outweigh the scheduling overhead.
const TASK_LEN: usize = 16 * 1024;

/// Rows per task for rows of `width` elements. Depends on the width alone.
pub(crate) fn task_rows(width: usize) -> usize {
    (TASK_LEN / width.max(1)).max(1)
}

/// Calls `act(first_row, rows)` for chunks of the rows of `out`.
pub(crate) fn rows(out: &mut [f32], width: usize, act: impl Fn(usize, &mut [f32]) + Sync) {
    let step = task_rows(width);
    if out.len() <= step * width {
        return act(0, out);
    }
    out.par_chunks_mut(step * width).enumerate().for_each(|(i, chunk)| act(i * step, chunk));
}

/// Memory to initialize.
pub(crate) type Uninit = [MaybeUninit<f32>];

/// `len` elements from `act(first, part)`, which initializes a part and returns it. Memory is written once.
pub(crate) fn filled(
    len: usize,
    act: impl for<'o> Fn(usize, &'o mut Uninit) -> &'o mut [f32] + Sync,
) -> Vec<f32> {
    let mut values = Vec::new();
    extend(&mut values, len, act);
    values
}

/// [`filled`], appended to `values`.
pub(crate) fn extend(
    values: &mut Vec<f32>,
    len: usize,
    act: impl for<'o> Fn(usize, &'o mut Uninit) -> &'o mut [f32] + Sync,
) {
    let part = |first: usize, part: &mut Uninit| {
        let expected = (part.as_ptr().cast(), part.len());
        let filled = act(first, part);
        assert!((filled.as_ptr(), filled.len()) == expected, "a part is not initialized");
    };
    values.reserve(len);
    let spare = &mut values.spare_capacity_mut()[..len];
    if len <= TASK_LEN {
        part(0, spare);
    } else {
        let parts = spare.par_chunks_mut(TASK_LEN).enumerate();
        parts.for_each(|(i, out)| part(i * TASK_LEN, out));
    }
    // SAFETY: every part has been initialized: `act` has returned all of it as `f32`.
    #[allow(unsafe_code)]
    unsafe {
        values.set_len(values.len() + len);
    }
}

/// `rows` rows of `width` elements from `act(row, out)`, which initializes a row and returns it.
pub(crate) fn filled_rows(
    rows: usize,
    width: usize,
    act: impl for<'o> Fn(usize, &'o mut Uninit) -> &'o mut [f32] + Sync,
) -> Vec<f32> {
    let mut none = vec![(); rows];
    filled_rows_with_column(rows, width, &mut none, |row, out, ()| act(row, out))
}

/// [`filled_rows`] with a second output, `column`, of one element per row.
pub(crate) fn filled_rows_with_column<T: Send>(
    rows: usize,
    width: usize,
    column: &mut [T],
    act: impl for<'o> Fn(usize, &'o mut Uninit, &mut T) -> &'o mut [f32] + Sync,
) -> Vec<f32> {
    assert!(column.len() == rows, "`column` must have one element per row");
    if width == 0 {
        return Vec::new();
    }
    let part = |first: usize, part: &mut Uninit, column: &mut [T]| {
        for (i, (out, of_row)) in part.chunks_mut(width).zip(column).enumerate() {
            let expected = (out.as_ptr().cast(), out.len());
            let filled = act(first + i, out, of_row);
            assert!((filled.as_ptr(), filled.len()) == expected, "a row is not initialized");
        }
    };
    let step = task_rows(width);
    let mut values = Vec::with_capacity(rows * width);
    let spare = &mut values.spare_capacity_mut()[..rows * width];
    if rows <= step {
        part(0, spare, column);
    } else {
        let parts = spare.par_chunks_mut(step * width).zip(column.par_chunks_mut(step));
        parts.enumerate().for_each(|(i, (out, column))| part(i * step, out, column));
    }
    // SAFETY: every row has been initialized: `column` has an element for each, and `act` has returned all of it as `f32`.
    #[allow(unsafe_code)]
    unsafe {
        values.set_len(rows * width);
    }
    values
}

/// `len` zeros.
pub(crate) fn zeros(len: usize) -> Vec<f32> {
    filled(len, |_, out| each(out, |_| 0.0))
}

/// Initializes `out` with `value(i)`.
#[inline(always)]
pub(crate) fn each(out: &mut Uninit, value: impl Fn(usize) -> f32) -> &mut [f32] {
    for (i, out) in out.iter_mut().enumerate() {
        out.write(value(i));
    }
    // SAFETY: each element has just been initialized.
    #[allow(unsafe_code)]
    unsafe {
        out.assume_init_mut()
    }
}

/// [`rows`] for two outputs with the same number of rows.
pub(crate) fn rows2(
    (a, a_width): (&mut [f32], usize),
    (b, b_width): (&mut [f32], usize),
    act: impl Fn(usize, &mut [f32], &mut [f32]) + Sync,
) {
    let step = task_rows(a_width.max(b_width));
    if a.len() <= step * a_width {
        return act(0, a, b);
    }
    a.par_chunks_mut(step * a_width)
        .zip(b.par_chunks_mut(step * b_width))
        .enumerate()
        .for_each(|(i, (a, b))| act(i * step, a, b));
}

/// Accumulates the sum over `rows` rows in `total`: `act(rows, partial)` adds some rows to a partial sum. Partial
/// sums run over chunks of a fixed size and are added in order.
pub(crate) fn sum_rows(
    total: &mut [f32],
    rows: usize,
    act: impl Fn(std::ops::Range<usize>, &mut [f32]) + Sync,
) {
    let step = task_rows(total.len());
    let partials: Vec<Vec<f32>> = (0..rows.div_ceil(step))
        .into_par_iter()
        .map(|chunk| {
            let mut partial = vec![0.0; total.len()];
            act(chunk * step..rows.min((chunk + 1) * step), &mut partial);
            partial
        })
        .collect();
    for partial in partials {
        for (t, p) in total.iter_mut().zip(&partial) {
            *t += p;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_rows_are_at_their_places() {
        for len in [0, 1, TASK_LEN, TASK_LEN + 1, 3 * TASK_LEN + 7] {
            let expected: Vec<f32> = (0..len).map(|i| i as f32).collect();
            assert!(filled(len, |first, part| each(part, |i| (first + i) as f32)) == expected);
            let mut appended = vec![5.0];
            extend(&mut appended, len, |first, part| each(part, |i| (first + i) as f32));
            assert!(appended[0] == 5.0 && appended[1..] == expected);
            assert!(zeros(len) == vec![0.0; len]);
        }
        for (rows, width) in [(0, 3), (4, 0), (5, 3), (20_000, 3), (3, TASK_LEN + 1)] {
            let mut column = vec![0; rows];
            let found = filled_rows_with_column(rows, width, &mut column, |row, out, of_row| {
                *of_row = row;
                each(out, |i| (row * width + i) as f32)
            });
            assert!(found == (0..rows * width).map(|i| i as f32).collect::<Vec<f32>>());
            assert!(width == 0 || column == (0..rows).collect::<Vec<usize>>());
        }
    }

    #[test]
    #[should_panic(expected = "a part is not initialized")]
    fn a_part_must_be_initialized_as_a_whole() {
        filled(4, |_, part| each(&mut part[1..], |_| 0.0));
    }

    #[test]
    #[should_panic(expected = "a row is not initialized")]
    fn a_row_must_be_initialized_as_a_whole() {
        filled_rows(2, 4, |_, out| each(&mut out[..3], |_| 0.0));
    }
}
