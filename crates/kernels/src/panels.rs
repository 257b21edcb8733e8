//! Products with a weight, `y = x · Wᵀ`, of any number of rows.
//!
//! The weight is taken in panels of [`PANEL`] outputs, a chunk of inputs at a time, turned so that a
//! step over the inputs finds the panel's numbers side by side. A tile of a few rows by a panel is
//! summed up in registers. Each number of `y` is one chain of fused multiply-adds over the inputs in
//! order: the same bits whatever rows stand beside it and however the work is spread over threads.
//! With few rows the weight is read once and memory is the limit; with many, arithmetic is.

mod ahead;
pub(crate) mod bf16;
mod dispatch;
mod quantized;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod thin;
mod tile;
mod turn;
mod turned;

use std::marker::PhantomData;
use std::ops::Range;

use pulp::Arch;
use rayon::prelude::*;

use crate::matmul::Into;
pub(crate) use ahead::Ahead;
use dispatch::{Level, level};
pub(crate) use tile::{TILE_ROWS, accumulate, accumulate_turned};
use turn::turn;
pub(crate) use turned::Turned;

/// Outputs of a panel.
pub(crate) const PANEL: usize = 64;

/// Words of a panel's row that are usually taken at a time: such a chunk stays in the first cache.
pub(crate) const CHUNK: usize = 128;

/// Rows of a task, a multiple of a tile's: their sums stay in the second cache.
const SHARE: usize = 64 * TILE_ROWS;

/// Panels of a task, at most.
const TOGETHER: usize = 4;

/// A weight, in words along its inputs: a number each, or a pair of them.
pub(crate) trait Weight: Sync {
    /// What a word of the weight, and of `x`, is.
    type Word: Copy + Default + Send + Sync;

    /// Words of a panel's row that are taken at a time.
    const CHUNK: usize = CHUNK;

    /// The words `depth` (at most [`Self::CHUNK`]) of the outputs `outputs` (at most [`PANEL`]), turned: one
    /// word of all outputs side by side (depth, [`PANEL`]). What is beyond the outputs is 0. The
    /// buffer is for weights that do not lie so in memory.
    fn chunk<'a>(
        &'a self,
        outputs: Range<usize>,
        depth: Range<usize>,
        buffer: &'a mut Vec<Self::Word>,
    ) -> &'a [Self::Word];

    /// What is likely to be taken after that chunk, if it lies in memory as it is taken.
    fn behind(&self, _outputs: Range<usize>, _depth: Range<usize>) -> &[Self::Word] {
        &[]
    }

    /// Writes the products of the rows of `x` with the outputs `outputs` (at most [`PANEL`]) to `sums`
    /// (rows, [`PANEL`]), if there is a quicker way for so few rows; whether there is. The order of the
    /// sums is the same.
    fn fill_few(&self, _sums: &mut [f32], _x: &[Self::Word], _outputs: Range<usize>) -> bool {
        false
    }

    /// Adds `x · w` to `sums`, as [`accumulate`].
    fn accumulate(sums: &mut [f32], x: (&[Self::Word], usize), w: &[Self::Word], ahead: Ahead);
}

/// The words `depth` of the panel that begins with output `first`, in a weight that lies panel by panel (words of
/// an output, [`PANEL`]), `whole` words each.
fn laid_chunk<T>(words: &[T], whole: usize, first: usize, depth: Range<usize>) -> &[T] {
    let panel = first / PANEL * whole;
    &words[(panel + depth.start) * PANEL..(panel + depth.end) * PANEL]
}

/// As many words behind that chunk, or what is left.
fn laid_behind<T>(words: &[T], whole: usize, first: usize, depth: Range<usize>) -> &[T] {
    let start = (first / PANEL * whole + depth.end) * PANEL;
    &words[start..words.len().min(start + depth.len() * PANEL)]
}

/// A weight as rows of `f32` that can be read in parts.
pub(crate) trait Rows: Sync {
    /// As [`Weight::CHUNK`].
    const CHUNK: usize = CHUNK;

    /// The turned chunk, as [`Weight::chunk`], written to `out`.
    fn turned(&self, outputs: Range<usize>, inputs: Range<usize>, out: &mut [f32]);

    /// As [`Weight::fill_few`].
    fn fill_few(&self, _sums: &mut [f32], _x: &[f32], _outputs: Range<usize>) -> bool {
        false
    }
}

impl<R: Rows> Weight for R {
    type Word = f32;

    const CHUNK: usize = R::CHUNK;

    fn chunk<'a>(
        &'a self,
        outputs: Range<usize>,
        depth: Range<usize>,
        buffer: &'a mut Vec<f32>,
    ) -> &'a [f32] {
        buffer.resize(depth.len() * PANEL, 0.0);
        self.turned(outputs, depth, buffer);
        buffer
    }

    fn fill_few(&self, sums: &mut [f32], x: &[f32], outputs: Range<usize>) -> bool {
        Rows::fill_few(self, sums, x, outputs)
    }

    fn accumulate(sums: &mut [f32], x: (&[f32], usize), w: &[f32], ahead: Ahead) {
        accumulate(Arch::new(), sums, x, (w, PANEL), ahead);
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

    #[cfg(target_arch = "x86_64")]
    fn fill_few(&self, sums: &mut [f32], x: &[f32], outputs: Range<usize>) -> bool {
        let rows = sums.len() / PANEL;
        if rows > thin::MOST_ROWS || !outputs.len().is_multiple_of(thin::LANES) {
            return false;
        }
        for first in outputs.clone().step_by(thin::LANES) {
            let weight = &self.numbers[first * self.inputs..][..thin::LANES * self.inputs];
            let mut part = [0.0; thin::MOST_ROWS * thin::LANES];
            let part = &mut part[..rows * thin::LANES];
            if !thin::fill(part, x, weight, self.inputs) {
                return false;
            }
            let column = first - outputs.start;
            for (sums, part) in sums.chunks_mut(PANEL).zip(part.chunks(thin::LANES)) {
                sums[column..column + thin::LANES].copy_from_slice(part);
            }
        }
        true
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
    all(&[Product::new(y, into, x, weight, (outputs, depth))]);
}

/// [`product`] with each of some weights of the same inputs, side by side, so that threads need not wait
/// for each other between them.
///
/// # Shapes
/// `results` has for each weight `y` (rows, outputs) and what becomes of it.
pub(crate) fn products<W: Weight>(
    results: Vec<(&mut [f32], Into)>,
    x: &[W::Word],
    weights: &[&W],
    depth: usize,
) {
    let rows = x.len().checked_div(depth).unwrap_or_default().max(1);
    let products = results.into_iter().zip(weights).map(|((y, into), weight)| {
        let outputs = y.len() / rows;
        Product::new(y, into, x, *weight, (outputs, depth))
    });
    all(&products.collect::<Vec<_>>());
}

/// A product that is to be made.
struct Product<'a, W: Weight> {
    y: Shared<'a>,
    into: Into,
    x: &'a [W::Word],
    weight: &'a W,
    rows: usize,
    outputs: usize,
    depth: usize,
    /// Shares of the rows.
    shares: usize,
    panels: usize,
    /// Panels of a task.
    together: usize,
}

/// Makes products side by side.
fn all<W: Weight>(products: &[Product<'_, W>]) {
    let tasks: Vec<(&Product<'_, W>, usize)> =
        products.iter().flat_map(|p| (0..p.tasks()).map(move |task| (p, task))).collect();
    tasks.par_iter().with_max_len(1).for_each(|(product, task)| product.run(*task));
}

impl<'a, W: Weight> Product<'a, W> {
    /// See [`product`].
    fn new(
        y: &'a mut [f32],
        into: Into,
        x: &'a [W::Word],
        weight: &'a W,
        (outputs, depth): (usize, usize),
    ) -> Self {
        if depth == 0 && into == Into::Replace {
            y.fill(0.0);
        }
        let rows = x.len().checked_div(depth).unwrap_or_default();
        assert!(x.len() == rows * depth, "a row is not whole");
        assert!(depth == 0 || y.len() == rows * outputs, "the product does not fit");
        let (shares, panels) = (rows.div_ceil(SHARE), outputs.div_ceil(PANEL));
        // Several panels a task, so that the rows of `x` are fetched for all of them at once, unless
        // threads would be left without one.
        let busy = 2 * rayon::current_num_threads();
        let together = (panels * shares / busy).clamp(1, if rows < SHARE { 1 } else { TOGETHER });
        Self { y: Shared::new(y), into, x, weight, rows, outputs, depth, shares, panels, together }
    }

    fn tasks(&self) -> usize {
        self.panels.div_ceil(self.together) * self.shares
    }

    fn columns(&self, panel: usize) -> Range<usize> {
        panel * PANEL..self.outputs.min((panel + 1) * PANEL)
    }

    /// Makes a part of the product.
    fn run(&self, task: usize) {
        let first = task % self.shares * SHARE;
        let share = first..self.rows.min(first + SHARE);
        let block = task / self.shares * self.together;
        let panels = block..self.panels.min(block + self.together);
        let mut sums = vec![0.0; share.len() * panels.len() * PANEL];
        let few = self.rows <= TILE_ROWS
            && self.weight.fill_few(&mut sums, self.x, self.columns(panels.start));
        if few {
            return self.write(share.start, panels.start, &sums);
        }
        let mut buffer = Vec::new();
        for start in (0..self.depth).step_by(W::CHUNK) {
            let part = start..self.depth.min(start + W::CHUNK);
            for (panel, sums) in panels.clone().zip(sums.chunks_mut(share.len() * PANEL)) {
                let w = self.weight.chunk(self.columns(panel), part.clone(), &mut buffer);
                let tiles = share.clone().step_by(TILE_ROWS);
                // Each tile asks for its share of the next chunk.
                let behind = self.weight.behind(self.columns(panel), part.clone());
                let piece = behind.len().div_ceil(tiles.len());
                let mut behind = behind.chunks(piece.max(1));
                for (row, sums) in tiles.zip(sums.chunks_mut(TILE_ROWS * PANEL)) {
                    let ahead = behind.next().map_or(Ahead::NOTHING, Ahead::new);
                    let x = (&self.x[row * self.depth + start..], self.depth);
                    W::accumulate(sums, x, w, ahead);
                    if part.end == self.depth {
                        self.write(row, panel, sums);
                    }
                }
            }
        }
    }

    /// Puts the sums (rows, [`PANEL`]) of the rows from `row` on into `y`.
    fn write(&self, row: usize, panel: usize, sums: &[f32]) {
        let columns = self.columns(panel);
        for (row, sums) in (row..).zip(sums.chunks(PANEL)) {
            // SAFETY: tasks differ in their columns or in their rows, so that no two of them touch
            // the same number.
            #[allow(unsafe_code)]
            let y = unsafe { self.y.slice(row * self.outputs + columns.start, columns.len()) };
            match self.into {
                Into::Replace => y.copy_from_slice(&sums[..y.len()]),
                Into::Add => y.iter_mut().zip(sums).for_each(|(y, sum)| *y += sum),
            }
        }
    }
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
