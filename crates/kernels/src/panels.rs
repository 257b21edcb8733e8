//! GEMM with a weight, `y = x · Wᵀ`, for any number of rows.
//!
//! The weight is processed in panels of [`PANEL`] outputs, a chunk of inputs at a time, transposed so that steps over the
//! inputs read a panel, or a strip of it, contiguously. A tile of a few rows by a panel accumulates in registers. Each
//! element of `y` is one chain of fused multiply-adds over the inputs in order, so it is bit-identical for any batch
//! and any number of threads. With few rows the GEMM is memory-bound, with many it is compute-bound.

mod aligned;
pub(crate) mod bf16;
pub(crate) mod blocks;
mod f16;
mod packed;
mod prefetch;
mod shared;
mod sizes;
#[cfg(target_arch = "x86_64")]
mod skinny;
#[cfg(test)]
mod tests;
mod tile;
mod transpose;
#[cfg(target_arch = "x86_64")]
mod widen;

use std::ops::Range;

use rayon::prelude::*;

use crate::matmul::WriteMode;
use crate::simd_level::{SimdLevel, simd_level};
use aligned::Aligned;
pub(crate) use aligned::aligned;
pub(crate) use f16::PackedF16;
pub(crate) use packed::PackedF32;
pub(crate) use prefetch::{Prefetch, prefetch_line};
pub(crate) use shared::Shared;
use sizes::strip;
pub(crate) use sizes::{CHUNK, PANEL};
pub(crate) use tile::{TILE_ROWS, accumulate, accumulate_transposed, add_step};
use tile::{accumulate_strips, tiles};
use transpose::transpose;

/// Rows per task, a multiple of a tile's: their sums fit the L2 cache.
const TASK_ROWS: usize = 64 * TILE_ROWS;

/// Maximum panels per task.
const MAX_TASK_PANELS: usize = 4;

/// A weight, in words along its inputs: one element each, or a bf16 pair.
pub(crate) trait PanelWeight: Sync {
    /// Word type of the weight and of `x`.
    type Word: Copy + Default + Send + Sync;

    /// Words of a panel's row per chunk.
    const CHUNK: usize = CHUNK;

    /// Words `depth` (at most [`Self::CHUNK`]) of `outputs` (at most [`PANEL`]), transposed to (strips, depth, outputs of
    /// a strip) and zero-padded beyond the outputs. Weights that are not packed in memory are packed into `buffer`, with
    /// the instructions of `level`.
    fn chunk<'a>(
        &'a self,
        level: SimdLevel,
        outputs: Range<usize>,
        depth: Range<usize>,
        buffer: &'a mut Vec<Self::Word>,
    ) -> &'a [Self::Word];

    /// What to prefetch for the chunk after this one, if the weight is packed in memory.
    fn next_chunk(&self, _outputs: Range<usize>, _depth: Range<usize>) -> Prefetch {
        Prefetch::NONE
    }

    /// Skinny GEMM: writes the products of the few rows of `x` with `outputs` (at most [`PANEL`]) to `sums` (rows,
    /// [`PANEL`]). Returns whether such a path exists; the summation order is the same.
    fn skinny(
        &self,
        _level: SimdLevel,
        _sums: &mut [f32],
        _x: &[Self::Word],
        _outputs: Range<usize>,
    ) -> bool {
        false
    }

    /// `sums += x · w` for any number of rows, with a chunk `w`: in tiles, each as [`accumulate`].
    fn accumulate(
        &self,
        level: SimdLevel,
        sums: &mut [f32],
        x: (&[Self::Word], usize),
        w: &[Self::Word],
        prefetch: Prefetch,
    );
}

/// Words `depth` of the panel that starts at output `first`, in a packed weight of (panels, `panel_words` words,
/// [`PANEL`]).
fn packed_chunk<T>(words: &[T], panel_words: usize, first: usize, depth: Range<usize>) -> &[T] {
    let panel = first / PANEL * panel_words;
    &words[(panel + depth.start) * PANEL..(panel + depth.end) * PANEL]
}

/// The chunk after it, of at most the same length.
fn following_chunk<T>(
    words: &[T],
    panel_words: usize,
    first: usize,
    depth: Range<usize>,
) -> Prefetch {
    let start = (first / PANEL * panel_words + depth.end) * PANEL;
    Prefetch::new(&words[start..words.len().min(start + depth.len() * PANEL)])
}

/// Transposes `rows` rows of at most a chunk of `columns` elements, `stride` apart, to `out` (strips, columns, outputs of a
/// strip), zero-padded beyond the rows.
fn pack_strips(
    level: SimdLevel,
    data: &[f32],
    stride: usize,
    (rows, columns): (usize, usize),
    out: &mut [f32],
) {
    let strip = strip(level);
    for (out, first) in out.chunks_mut((columns * strip).max(1)).zip((0..PANEL).step_by(strip)) {
        let data = &data[data.len().min(first * stride)..];
        let rows = rows.saturating_sub(first).min(strip);
        transpose(level, data, stride, (rows, columns), (out, strip));
    }
}

/// A weight whose chunks are packed as f32 on the fly.
pub(crate) trait UnpackedWeight: Sync {
    /// Writes the packed chunk ([`PanelWeight::chunk`]) in strips of [`strip`] to `out`.
    fn pack_chunk(
        &self,
        level: SimdLevel,
        outputs: Range<usize>,
        inputs: Range<usize>,
        out: &mut [f32],
    );

    /// As [`PanelWeight::next_chunk`].
    fn next_chunk(&self, _outputs: Range<usize>, _depth: Range<usize>) -> Prefetch {
        Prefetch::NONE
    }

    /// As [`PanelWeight::skinny`].
    fn skinny(
        &self,
        _level: SimdLevel,
        _sums: &mut [f32],
        _x: &[f32],
        _outputs: Range<usize>,
    ) -> bool {
        false
    }
}

impl<R: UnpackedWeight> PanelWeight for R {
    type Word = f32;

    fn chunk<'a>(
        &'a self,
        level: SimdLevel,
        outputs: Range<usize>,
        depth: Range<usize>,
        buffer: &'a mut Vec<f32>,
    ) -> &'a [f32] {
        let chunk = aligned(buffer, depth.len() * PANEL);
        self.pack_chunk(level, outputs, depth, chunk);
        chunk
    }

    fn next_chunk(&self, outputs: Range<usize>, depth: Range<usize>) -> Prefetch {
        UnpackedWeight::next_chunk(self, outputs, depth)
    }

    fn skinny(&self, level: SimdLevel, sums: &mut [f32], x: &[f32], outputs: Range<usize>) -> bool {
        UnpackedWeight::skinny(self, level, sums, x, outputs)
    }

    fn accumulate(
        &self,
        level: SimdLevel,
        sums: &mut [f32],
        x: (&[f32], usize),
        w: &[f32],
        prefetch: Prefetch,
    ) {
        accumulate_strips(level.arch(), sums, x, (w, strip(level)), prefetch);
    }
}

/// Contiguous row-major `f32`.
pub(crate) struct RowMajorF32<'a> {
    /// The elements (outputs, inputs).
    pub(crate) data: &'a [f32],
    /// Elements per row.
    pub(crate) inputs: usize,
}

impl UnpackedWeight for RowMajorF32<'_> {
    fn pack_chunk(
        &self,
        level: SimdLevel,
        outputs: Range<usize>,
        inputs: Range<usize>,
        out: &mut [f32],
    ) {
        let first = outputs.start * self.inputs + inputs.start;
        let shape = (outputs.len(), inputs.len());
        pack_strips(level, &self.data[first..], self.inputs, shape, out);
    }

    #[cfg(target_arch = "x86_64")]
    fn skinny(&self, level: SimdLevel, sums: &mut [f32], x: &[f32], outputs: Range<usize>) -> bool {
        let rows = sums.len() / PANEL;
        if rows > skinny::MAX_ROWS || !outputs.len().is_multiple_of(skinny::LANES) {
            return false;
        }
        for first in outputs.clone().step_by(skinny::LANES) {
            let weight = &self.data[first * self.inputs..][..skinny::LANES * self.inputs];
            let mut part = [0.0; skinny::MAX_ROWS * skinny::LANES];
            let part = &mut part[..rows * skinny::LANES];
            if !skinny::fill(level, part, x, weight, self.inputs) {
                return false;
            }
            let column = first - outputs.start;
            for (sums, part) in sums.chunks_mut(PANEL).zip(part.chunks(skinny::LANES)) {
                sums[column..column + skinny::LANES].copy_from_slice(part);
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
/// If the shapes are inconsistent: a bug of the calling kernel, which has checked its tensors.
pub(crate) fn matmul<W: PanelWeight>(
    y: &mut [f32],
    mode: WriteMode,
    x: &[W::Word],
    weight: &W,
    (outputs, depth): (usize, usize),
) {
    matmul_at(simd_level(), y, mode, x, weight, (outputs, depth));
}

/// [`matmul`] with the instructions of `level`, which the machine supports.
pub(crate) fn matmul_at<W: PanelWeight>(
    level: SimdLevel,
    y: &mut [f32],
    mode: WriteMode,
    x: &[W::Word],
    weight: &W,
    (outputs, depth): (usize, usize),
) {
    run_all(&[Matmul::new(level, y, mode, x, weight, (outputs, depth))]);
}

/// [`matmul`] with several weights of the same inputs in one parallel region: threads do not wait for each other
/// between them.
///
/// # Shapes
/// `results` has `y` (rows, outputs) and the write mode for each weight.
pub(crate) fn matmul_all<W: PanelWeight>(
    results: Vec<(&mut [f32], WriteMode)>,
    x: &[W::Word],
    weights: &[&W],
    depth: usize,
) {
    let rows = x.len().checked_div(depth).unwrap_or_default().max(1);
    let matmuls = results.into_iter().zip(weights).map(|((y, mode), weight)| {
        let outputs = y.len() / rows;
        Matmul::new(simd_level(), y, mode, x, *weight, (outputs, depth))
    });
    run_all(&matmuls.collect::<Vec<_>>());
}

/// A GEMM, split into tasks.
struct Matmul<'a, W: PanelWeight> {
    level: SimdLevel,
    y: Shared<'a>,
    mode: WriteMode,
    x: &'a [W::Word],
    weight: &'a W,
    rows: usize,
    outputs: usize,
    depth: usize,
    /// Tasks along the rows.
    row_tasks: usize,
    panels: usize,
    /// Panels per task.
    task_panels: usize,
}

/// Runs the tasks of several GEMMs in one parallel region.
fn run_all<W: PanelWeight>(matmuls: &[Matmul<'_, W>]) {
    let tasks: Vec<(&Matmul<'_, W>, usize)> =
        matmuls.iter().flat_map(|p| (0..p.tasks()).map(move |task| (p, task))).collect();
    tasks.par_iter().with_max_len(1).for_each(|(matmul, task)| matmul.run(*task));
}

impl<'a, W: PanelWeight> Matmul<'a, W> {
    /// See [`matmul`].
    fn new(
        level: SimdLevel,
        y: &'a mut [f32],
        mode: WriteMode,
        x: &'a [W::Word],
        weight: &'a W,
        (outputs, depth): (usize, usize),
    ) -> Self {
        if depth == 0 && mode == WriteMode::Overwrite {
            y.fill(0.0);
        }
        let rows = x.len().checked_div(depth).unwrap_or_default();
        assert!(x.len() == rows * depth, "`x` is not a multiple of the depth");
        assert!(depth == 0 || y.len() == rows * outputs, "`y` differs from (rows, outputs)");
        let (row_tasks, panels) = (rows.div_ceil(TASK_ROWS), outputs.div_ceil(PANEL));
        // Several panels per task reuse the rows of `x` from the cache, as long as there are tasks enough for all
        // threads.
        let busy = 2 * rayon::current_num_threads();
        let task_panels = (panels * row_tasks / busy)
            .clamp(1, if rows < TASK_ROWS { 1 } else { MAX_TASK_PANELS });
        Self {
            level,
            y: Shared::new(y),
            mode,
            x,
            weight,
            rows,
            outputs,
            depth,
            row_tasks,
            panels,
            task_panels,
        }
    }

    fn tasks(&self) -> usize {
        self.panels.div_ceil(self.task_panels) * self.row_tasks
    }

    fn columns(&self, panel: usize) -> Range<usize> {
        panel * PANEL..self.outputs.min((panel + 1) * PANEL)
    }

    /// Runs one task.
    fn run(&self, task: usize) {
        let first = task % self.row_tasks * TASK_ROWS;
        let rows = first..self.rows.min(first + TASK_ROWS);
        let block = task / self.row_tasks * self.task_panels;
        let panels = block..self.panels.min(block + self.task_panels);
        let mut sums = Vec::new();
        let sums = aligned(&mut sums, rows.len() * panels.len() * PANEL);
        let few = self.rows <= TILE_ROWS
            && self.weight.skinny(self.level, sums, self.x, self.columns(panels.start));
        if few {
            return self.write(rows.start, panels.start, sums);
        }
        let mut buffer = Vec::new();
        for start in (0..self.depth).step_by(W::CHUNK) {
            let part = start..self.depth.min(start + W::CHUNK);
            for (panel, sums) in panels.clone().zip(sums.chunks_mut(rows.len() * PANEL)) {
                let columns = self.columns(panel);
                let w = self.weight.chunk(self.level, columns, part.clone(), &mut buffer);
                let upcoming = self.weight.next_chunk(self.columns(panel), part.clone());
                let x = (&self.x[rows.start * self.depth + start..], self.depth);
                self.weight.accumulate(self.level, sums, x, w, upcoming);
                if part.end == self.depth {
                    self.write(rows.start, panel, sums);
                }
            }
        }
    }

    /// Writes sums (rows, [`PANEL`]) to the rows of `y` from `row` on.
    fn write(&self, row: usize, panel: usize, sums: &[f32]) {
        let columns = self.columns(panel);
        for (row, sums) in (row..).zip(sums.chunks(PANEL)) {
            // SAFETY: tasks differ in their columns or in their rows, so no two of them touch the same element.
            #[allow(unsafe_code)]
            let y = unsafe { self.y.slice(row * self.outputs + columns.start, columns.len()) };
            match self.mode {
                WriteMode::Overwrite => y.copy_from_slice(&sums[..y.len()]),
                WriteMode::Accumulate => y.iter_mut().zip(sums).for_each(|(y, sum)| *y += sum),
            }
        }
    }
}
