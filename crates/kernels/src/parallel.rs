//! Rows shared out over the threads.

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
