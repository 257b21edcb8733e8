//! Products with a weight, `y = x · Wᵀ`, of any number of rows.
//!
//! The weight is taken in panels of [`PANEL`] outputs, a chunk of inputs at a time, turned so that a
//! step over the inputs finds the panel's numbers side by side. A tile of a few rows by a panel is
//! summed up in registers. Each number of `y` is one chain of fused multiply-adds over the inputs in
//! order: the same bits whatever rows stand beside it and however the work is spread over threads.
//! With few rows the weight is read once and memory is the limit; with many, arithmetic is.

pub(crate) mod bf16;
mod dispatch;
#[cfg(test)]
mod tests;
mod tile;
mod turn;

use std::marker::PhantomData;
use std::ops::Range;

use pulp::Arch;
use rayon::prelude::*;

use crate::matmul::Into;
use dispatch::{Level, level};
pub(crate) use tile::{TILE_ROWS, accumulate};
use turn::turn;

/// Outputs of a panel.
pub(crate) const PANEL: usize = 64;

/// Words of a panel's row that are taken at a time: such a chunk stays in the first cache.
pub(crate) const CHUNK: usize = 128;

/// Rows of a task, a multiple of a tile's: their sums stay in the second cache.
const SHARE: usize = 64 * TILE_ROWS;

/// Panels of a task, at most.
const TOGETHER: usize = 4;

/// A weight, in words along its inputs: a number each, or a pair of them.
pub(crate) trait Weight: Sync {
    /// What a word of the weight, and of `x`, is.
    type Word: Copy + Default + Send + Sync;

    /// The words `depth` (at most [`CHUNK`]) of the outputs `outputs` (at most [`PANEL`]), turned: one
    /// word of all outputs side by side (depth, [`PANEL`]). What is beyond the outputs is 0. The
    /// buffer has room for it, for weights that do not lie so in memory.
    fn chunk<'a>(
        &'a self,
        outputs: Range<usize>,
        depth: Range<usize>,
        buffer: &'a mut [Self::Word],
    ) -> &'a [Self::Word];

    /// Adds `x · w` to `sums`, as [`accumulate`].
    fn accumulate(sums: &mut [f32], x: (&[Self::Word], usize), w: &[Self::Word]);
}

/// A weight as rows of `f32` that can be read in parts.
pub(crate) trait Rows: Sync {
    /// The turned chunk, as [`Weight::chunk`], written to `out`.
    fn turned(&self, outputs: Range<usize>, inputs: Range<usize>, out: &mut [f32]);
}

impl<R: Rows> Weight for R {
    type Word = f32;

    fn chunk<'a>(
        &'a self,
        outputs: Range<usize>,
        depth: Range<usize>,
        buffer: &'a mut [f32],
    ) -> &'a [f32] {
        let out = &mut buffer[..depth.len() * PANEL];
        self.turned(outputs, depth, out);
        out
    }

    fn accumulate(sums: &mut [f32], x: (&[f32], usize), w: &[f32]) {
        accumulate(Arch::new(), sums, x, w, PANEL);
    }
}

/// Rows of `f32` end to end in memory.
pub(crate) struct Plain<'a> {
    /// The numbers (outputs, inputs).
    pub(crate) numbers: &'a [f32],
    /// Numbers of a row.
    pub(crate) inputs: usize,
}

impl Rows for Plain<'_> {
    fn turned(&self, outputs: Range<usize>, inputs: Range<usize>, out: &mut [f32]) {
        let first = outputs.start * self.inputs + inputs.start;
        turn(&self.numbers[first..], self.inputs, outputs.len(), inputs.len(), out);
    }
}

/// `y = x · Wᵀ`, or `y += x · Wᵀ`.
///
/// # Shapes
/// `x` (rows, depth) in words, `weight` (outputs, depth), `y` (rows, outputs).
///
/// # Panics
/// When the shapes do not fit: a fault of the calling kernel, which has checked its tensors.
pub(crate) fn product<W: Weight>(
    y: &mut [f32],
    into: Into,
    x: &[W::Word],
    weight: &W,
    (outputs, depth): (usize, usize),
) {
    if y.is_empty() {
        return;
    }
    if depth == 0 {
        if into == Into::Replace {
            y.fill(0.0);
        }
        return;
    }
    let rows = x.len() / depth;
    assert!(x.len() == rows * depth && y.len() == rows * outputs, "the product does not fit");
    let y = Shared::new(y);
    let shares = rows.div_ceil(SHARE);
    let panels = outputs.div_ceil(PANEL);
    // Several panels a task, so that the rows of `x` are fetched for all of them at once, unless
    // threads would be left without one.
    let busy = 2 * rayon::current_num_threads();
    let together = (panels * shares / busy).clamp(1, if rows < SHARE { 1 } else { TOGETHER });
    let blocks = panels.div_ceil(together);
    (0..blocks * shares).into_par_iter().with_max_len(1).for_each_init(
        || {
            let buffer = vec![W::Word::default(); CHUNK * PANEL];
            (buffer, vec![0.0; rows.min(SHARE) * together * PANEL])
        },
        |(buffer, sums), task| {
            let first = task % shares * SHARE;
            let share = first..rows.min(first + SHARE);
            let panels = task / shares * together..panels.min((task / shares + 1) * together);
            let columns = |panel: usize| panel * PANEL..outputs.min((panel + 1) * PANEL);
            let sums = &mut sums[..share.len() * panels.len() * PANEL];
            sums.fill(0.0);
            for start in (0..depth).step_by(CHUNK) {
                let part = start..depth.min(start + CHUNK);
                for (panel, sums) in panels.clone().zip(sums.chunks_mut(share.len() * PANEL)) {
                    let w = weight.chunk(columns(panel), part.clone(), buffer);
                    let tiles = share.clone().step_by(TILE_ROWS);
                    for (row, sums) in tiles.zip(sums.chunks_mut(TILE_ROWS * PANEL)) {
                        W::accumulate(sums, (&x[row * depth + start..], depth), w);
                    }
                }
            }
            for (panel, sums) in panels.zip(sums.chunks(share.len() * PANEL)) {
                let columns = columns(panel);
                for (row, sums) in share.clone().zip(sums.chunks(PANEL)) {
                    // SAFETY: tasks differ in their columns or in their rows, so that no two of them
                    // touch the same number.
                    #[allow(unsafe_code)]
                    let y = unsafe { y.slice(row * outputs + columns.start, columns.len()) };
                    match into {
                        Into::Replace => y.copy_from_slice(&sums[..y.len()]),
                        Into::Add => y.iter_mut().zip(sums).for_each(|(y, sum)| *y += sum),
                    }
                }
            }
        },
    );
}

/// Numbers that several threads write, each its own.
pub(crate) struct Shared<'a> {
    start: *mut f32,
    len: usize,
    borrowed: PhantomData<&'a mut [f32]>,
}

// SAFETY: what is written through it is disjoint, which the callers of `slice` promise.
#[allow(unsafe_code)]
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    /// Shares out a slice.
    pub(crate) fn new(numbers: &'a mut [f32]) -> Self {
        Self { start: numbers.as_mut_ptr(), len: numbers.len(), borrowed: PhantomData }
    }

    /// `len` numbers from `start` on.
    ///
    /// # Safety
    /// No other slice that is in use at the same time has one of them.
    ///
    /// # Panics
    /// When they lie beyond the end.
    #[allow(unsafe_code, clippy::mut_from_ref)]
    pub(crate) unsafe fn slice(&self, start: usize, len: usize) -> &mut [f32] {
        assert!(start <= self.len && len <= self.len - start, "a part lies beyond the numbers");
        // SAFETY: the range lies within the slice that is borrowed mutably for as long as this
        // exists, and the caller promises that nobody else uses it.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}
