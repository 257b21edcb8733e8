//! Rows shared out over the threads.

use std::mem::MaybeUninit;

use rayon::prelude::*;

/// Numbers that one task handles: enough to outweigh the cost of handing it over.
const TASK_LEN: usize = 16 * 1024;

/// Rows of a task, where a row has `width` numbers. Depends on the width alone.
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

/// Rows that `act(first_row, rows)` makes of zeros, as [`rows`] calls it. Each task clears its own, which stay in
/// the cache until they are written: memory is gone through once.
pub(crate) fn filled(
    rows: usize,
    width: usize,
    act: impl Fn(usize, &mut [f32]) + Sync,
) -> Vec<f32> {
    let mut numbers = Vec::with_capacity(rows * width);
    extend(&mut numbers, rows, width, act);
    numbers
}

/// As [`filled`], behind the numbers that are there.
pub(crate) fn extend(
    numbers: &mut Vec<f32>,
    rows: usize,
    width: usize,
    act: impl Fn(usize, &mut [f32]) + Sync,
) {
    let step = task_rows(width);
    numbers.reserve(rows * width);
    let spare = &mut numbers.spare_capacity_mut()[..rows * width];
    if rows <= step || width == 0 {
        act(0, cleared(spare));
    } else {
        let chunks = spare.par_chunks_mut(step * width).enumerate();
        chunks.for_each(|(i, chunk)| act(i * step, cleared(chunk)));
    }
    // SAFETY: all of the new numbers have been cleared, in one chunk or in several.
    #[allow(unsafe_code)]
    unsafe {
        numbers.set_len(numbers.len() + rows * width);
    }
}

/// As [`filled`], with one number of `beside` for each row.
pub(crate) fn filled_beside(
    rows: usize,
    width: usize,
    beside: &mut [f32],
    act: impl Fn(usize, &mut [f32], &mut [f32]) + Sync,
) -> Vec<f32> {
    assert!(beside.len() == rows && width > 0, "each row has a number beside it");
    let step = task_rows(width);
    let mut numbers = Vec::with_capacity(rows * width);
    let spare = &mut numbers.spare_capacity_mut()[..rows * width];
    if rows <= step {
        act(0, cleared(spare), beside);
    } else {
        let chunks = spare.par_chunks_mut(step * width).zip(beside.par_chunks_mut(step));
        chunks.enumerate().for_each(|(i, (chunk, beside))| act(i * step, cleared(chunk), beside));
    }
    // SAFETY: as above; there are as many rows beside, so that no chunk is left out.
    #[allow(unsafe_code)]
    unsafe {
        numbers.set_len(rows * width);
    }
    numbers
}

/// The chunk as zeros.
fn cleared(chunk: &mut [MaybeUninit<f32>]) -> &mut [f32] {
    chunk.fill(MaybeUninit::new(0.0));
    // SAFETY: each number has just been written, and `MaybeUninit` has the layout of what it holds.
    #[allow(unsafe_code)]
    unsafe {
        std::slice::from_raw_parts_mut(chunk.as_mut_ptr().cast(), chunk.len())
    }
}

/// As [`rows`], for two outputs of the same number of rows.
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

/// Adds the sums of `rows` rows to `total`: `act(rows, partial)` adds some rows to a partial sum.
/// The partial sums go over chunks of a fixed size and are added in order.
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
