//! GEMM with block-quantized weights, as fast as their bytes can be read.
//!
//! Blocks are repacked once, at the size that they have in the file (see [`layout`]), so that the codes of a panel's
//! outputs for one input are one vector. A chunk's codes are widened to f32 in the L1 cache, unscaled ([`decode`]); a
//! tile sums a group's products and scales the sum: `y += s · Σ x·q - m · Σ x` ([`tile`]). So a scale is applied once
//! per group and row, not once per weight, and the arithmetic of a row is the same for any number of rows.

mod decode;
mod layout;
#[cfg(test)]
mod tests;
mod tile;

use std::ops::Range;

use multiversion::multiversion;
use rayon::prelude::*;

use super::{
    PANEL, PanelWeight, Prefetch, SimdLevel, aligned, matmul_all as words_matmul_all, simd_level,
    tiles,
};
use crate::matmul::WriteMode;
use crate::quantized::QuantizedMatrix;
use crate::quantized::blocks::GROUP;
use layout::{Layout, Line};
use tile::GROUP_WORDS;

/// Groups per chunk: a decoded chunk fits the L1 cache.
const CHUNK_GROUPS: usize = 4;

/// A block-quantized weight (outputs, inputs), repacked.
#[derive(Debug, Clone)]
pub(crate) struct PackedBlocks {
    layout: Layout,
    inputs: usize,
    /// (panels, blocks of a row, [`Layout::block_lines`]).
    lines: Vec<Line>,
}

impl PackedBlocks {
    /// Repacks a matrix; `None` if its format has no blocks.
    pub(crate) fn new(matrix: &QuantizedMatrix) -> Option<Self> {
        let layout = Layout::of(matrix.format())?;
        let (outputs, inputs) = (matrix.outputs(), matrix.inputs());
        let panel_lines = inputs / layout.block_len() * layout.block_lines();
        let mut lines = vec![Line::default(); outputs.div_ceil(PANEL) * panel_lines];
        lines.par_chunks_mut(panel_lines.max(1)).enumerate().for_each(|(panel, lines)| {
            let rows = panel * PANEL..outputs.min((panel + 1) * PANEL);
            let rows: Vec<&[u8]> = rows.filter_map(|row| matrix.row(row)).collect();
            layout.pack(&rows, lines);
        });
        Some(Self { layout, inputs, lines })
    }

    fn groups(&self) -> usize {
        self.inputs / GROUP
    }

    /// The lines of the panel that starts at output `first`.
    fn panel(&self, first: usize) -> &[Line] {
        let lines = self.inputs / self.layout.block_len() * self.layout.block_lines();
        &self.lines[first / PANEL * lines..][..lines]
    }

    /// Dequantizes a row.
    pub(crate) fn read_row(&self, output: usize, out: &mut [f32]) {
        let panel = self.panel(output);
        let mut decoded = vec![0.0; self.layout.group_rows() * PANEL];
        for (group, out) in out.chunks_mut(GROUP).enumerate() {
            decode::groups(simd_level(), &self.layout, panel, group..group + 1, &mut decoded);
            let column = |row: usize| decoded[row * PANEL + output % PANEL];
            let min = if self.layout.coding().has_mins {
                column(self.layout.group_rows() - 1)
            } else {
                0.0
            };
            for (i, out) in out.iter_mut().enumerate() {
                *out = column(GROUP + i / self.layout.coding().scale_group) * column(i) + min;
            }
        }
    }
}

/// `y = x · Wᵀ`, or `y += x · Wᵀ`.
///
/// # Shapes
/// `x` (rows, inputs), `y` (rows, outputs).
pub(crate) fn matmul(y: &mut [f32], mode: WriteMode, x: &[f32], weight: &PackedBlocks) {
    matmul_all(vec![(y, mode)], x, &[weight]);
}

/// [`super::matmul_all`] for weights in any formats.
pub(crate) fn matmul_all(
    results: Vec<(&mut [f32], WriteMode)>,
    x: &[f32],
    weights: &[&PackedBlocks],
) {
    let depth = weights.first().map_or(0, |weight| weight.groups()) * GROUP_WORDS;
    words_matmul_all(results, &with_sums(x), weights, depth);
}

/// `x` with the sum of each group after it.
fn with_sums(x: &[f32]) -> Vec<f32> {
    /// Elements per task.
    const TASK: usize = 128 * GROUP;
    let mut words = vec![0.0; x.len() / GROUP * GROUP_WORDS];
    let tasks = words.par_chunks_mut(TASK / GROUP * GROUP_WORDS).zip(x.par_chunks(TASK));
    tasks.for_each(|(words, x)| copy_with_sums(x, words));
    words
}

#[multiversion(targets = "simd")]
fn copy_with_sums(x: &[f32], words: &mut [f32]) {
    let groups = words.as_chunks_mut::<GROUP_WORDS>().0;
    for (x, words) in x.as_chunks::<GROUP>().0.iter().zip(groups) {
        words[..GROUP].copy_from_slice(x);
        // Halves are added until one sum remains.
        let mut sums = *x;
        let mut width = GROUP / 2;
        while width > 0 {
            for i in 0..width {
                sums[i] += sums[i + width];
            }
            width /= 2;
        }
        words[GROUP] = sums[0];
    }
}

impl PanelWeight for PackedBlocks {
    type Word = f32;

    const CHUNK: usize = CHUNK_GROUPS * GROUP_WORDS;

    fn chunk<'a>(
        &'a self,
        level: SimdLevel,
        outputs: Range<usize>,
        depth: Range<usize>,
        buffer: &'a mut Vec<f32>,
    ) -> &'a [f32] {
        let groups = depth.start / GROUP_WORDS..depth.end / GROUP_WORDS;
        let chunk = aligned(buffer, groups.len() * self.layout.group_rows() * PANEL);
        decode::groups(level, &self.layout, self.panel(outputs.start), groups, chunk);
        chunk
    }

    fn next_chunk(&self, outputs: Range<usize>, depth: Range<usize>) -> Prefetch {
        let groups = depth.len() / GROUP_WORDS;
        let first = depth.end / GROUP_WORDS * self.layout.block_lines() / self.layout.groups();
        let lines = groups * self.layout.block_lines() / self.layout.groups();
        let panel = self.panel(outputs.start);
        let first = first.min(panel.len());
        Prefetch::new(&panel[first..panel.len().min(first + lines)])
    }

    fn accumulate(
        &self,
        level: SimdLevel,
        sums: &mut [f32],
        (x, stride): (&[f32], usize),
        w: &[f32],
        prefetch: Prefetch,
    ) {
        let coding = self.layout.coding();
        let coding = (coding.scale_group, coding.has_mins);
        for (row, sums, prefetch) in tiles(sums, prefetch) {
            let x = (&x[row * stride..], stride);
            tile::accumulate(level.arch(), sums, x, w, coding, prefetch);
        }
    }
}
