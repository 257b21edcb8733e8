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

/// Allocates zeroed rows and fills them with `act(first_row, rows)`, as [`rows`] calls it. Each task zeroes its own
/// rows, which stay in its cache: memory is written once.
pub(crate) fn filled(
    rows: usize,
    width: usize,
    act: impl Fn(usize, &mut [f32]) + Sync,
) -> Vec<f32> {
    let mut values = Vec::with_capacity(rows * width);
    extend(&mut values, rows, width, act);
    values
}

/// [`filled`], appended to `values`.
pub(crate) fn extend(
    values: &mut Vec<f32>,
    rows: usize,
    width: usize,
    act: impl Fn(usize, &mut [f32]) + Sync,
) {
    let step = task_rows(width);
    values.reserve(rows * width);
    let spare = &mut values.spare_capacity_mut()[..rows * width];
    if rows <= step || width == 0 {
        act(0, cleared(spare));
    } else {
        let chunks = spare.par_chunks_mut(step * width).enumerate();
        chunks.for_each(|(i, chunk)| act(i * step, cleared(chunk)));
    }
    // SAFETY: all new elements have been initialized, in one chunk or in several.
    #[allow(unsafe_code)]
    unsafe {
        values.set_len(values.len() + rows * width);
    }
}

/// [`filled`] with a second output, `column`, of one element per row.
pub(crate) fn filled_with_column(
    rows: usize,
    width: usize,
    column: &mut [f32],
    act: impl Fn(usize, &mut [f32], &mut [f32]) + Sync,
) -> Vec<f32> {
    assert!(column.len() == rows && width > 0, "`column` must have one element per row");
    let step = task_rows(width);
    let mut values = Vec::with_capacity(rows * width);
    let spare = &mut values.spare_capacity_mut()[..rows * width];
    if rows <= step {
        act(0, cleared(spare), column);
    } else {
        let chunks = spare.par_chunks_mut(step * width).zip(column.par_chunks_mut(step));
        chunks.enumerate().for_each(|(i, (chunk, column))| act(i * step, cleared(chunk), column));
    }
    // SAFETY: as above; `column` has as many elements as rows, so that no chunk is skipped.
    #[allow(unsafe_code)]
    unsafe {
        values.set_len(rows * width);
    }
    values
}

/// The chunk, zeroed.
fn cleared(chunk: &mut [MaybeUninit<f32>]) -> &mut [f32] {
    chunk.fill(MaybeUninit::new(0.0));
    // SAFETY: each element has just been initialized, and `MaybeUninit` has the layout of its content.
    #[allow(unsafe_code)]
    unsafe {
        std::slice::from_raw_parts_mut(chunk.as_mut_ptr().cast(), chunk.len())
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
