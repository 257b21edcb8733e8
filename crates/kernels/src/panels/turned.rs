//! Weights that lie turned in memory.

use std::ops::Range;

use pulp::Arch;
use rayon::prelude::*;

use super::{Ahead, CHUNK, PANEL, Weight, accumulate, laid_behind, laid_chunk, turn};

/// A weight (outputs, inputs) as `f32` in the order in which products take it.
#[derive(Debug, Clone)]
pub(crate) struct Turned {
    inputs: usize,
    /// For each panel (inputs, [`PANEL`]).
    numbers: Vec<f32>,
}

impl Turned {
    /// Turns a weight.
    ///
    /// # Shapes
    /// `weight` (outputs, inputs), row-major.
    pub(crate) fn new(weight: &[f32], outputs: usize, inputs: usize) -> Self {
        assert!(weight.len() == outputs * inputs, "the weight has another size");
        let mut numbers = vec![0.0; outputs.div_ceil(PANEL) * inputs * PANEL];
        let panels = numbers.par_chunks_mut((inputs * PANEL).max(1));
        panels.zip(weight.par_chunks((PANEL * inputs).max(1))).for_each(|(out, rows)| {
            // A chunk at a time, which stays in the first cache.
            for (first, out) in (0..inputs).step_by(CHUNK).zip(out.chunks_mut(CHUNK * PANEL)) {
                turn(&rows[first..], inputs, rows.len() / inputs, out.len() / PANEL, out);
            }
        });
        Self { inputs, numbers }
    }

    /// Writes a row.
    pub(crate) fn read_row(&self, row: usize, out: &mut [f32]) {
        let panel = row / PANEL * self.inputs * PANEL;
        let column = self.numbers[panel..].iter().skip(row % PANEL).step_by(PANEL);
        out.iter_mut().zip(column).for_each(|(out, number)| *out = *number);
    }
}

impl Weight for Turned {
    type Word = f32;

    fn chunk<'a>(
        &'a self,
        outputs: Range<usize>,
        depth: Range<usize>,
        _buffer: &'a mut Vec<f32>,
    ) -> &'a [f32] {
        laid_chunk(&self.numbers, self.inputs, outputs.start, depth)
    }

    fn behind(&self, outputs: Range<usize>, depth: Range<usize>) -> &[f32] {
        laid_behind(&self.numbers, self.inputs, outputs.start, depth)
    }

    fn accumulate(sums: &mut [f32], x: (&[f32], usize), w: &[f32], ahead: Ahead) {
        accumulate(Arch::new(), sums, x, (w, PANEL), ahead);
    }
}
