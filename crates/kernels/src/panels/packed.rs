//! Transposed, packed f32 weights.

use std::ops::Range;

use rayon::prelude::*;

use super::{
    Aligned, CHUNK, PANEL, PanelWeight, Prefetch, SimdLevel, accumulate_strips, following_chunk,
    pack_strips, packed_chunk, simd_level, strip,
};

/// A weight (outputs, inputs), packed as `f32`.
#[derive(Debug, Clone)]
pub(crate) struct PackedF32 {
    inputs: usize,
    /// Outputs of a strip, see [`strip`].
    strip: usize,
    /// (panels, chunks, strips, inputs of the chunk, outputs of a strip).
    data: Aligned<f32>,
}

impl PackedF32 {
    /// Packs a weight.
    ///
    /// # Shapes
    /// `weight` (outputs, inputs), row-major.
    pub(crate) fn new(weight: &[f32], outputs: usize, inputs: usize) -> Self {
        Self::new_at(simd_level(), weight, outputs, inputs)
    }

    /// [`Self::new`] with the instructions of `level`, which the machine supports.
    pub(crate) fn new_at(level: SimdLevel, weight: &[f32], outputs: usize, inputs: usize) -> Self {
        assert!(weight.len() == outputs * inputs, "the weight's length differs from its shape");
        let mut data = Aligned::new(outputs.div_ceil(PANEL) * inputs * PANEL);
        let panels = data.par_chunks_mut((inputs * PANEL).max(1));
        panels.zip(weight.par_chunks((PANEL * inputs).max(1))).for_each(|(out, rows)| {
            // Chunk by chunk, so that a chunk stays in the L1 cache.
            for (first, out) in (0..inputs).step_by(CHUNK).zip(out.chunks_mut(CHUNK * PANEL)) {
                let shape = (rows.len() / inputs, out.len() / PANEL);
                pack_strips(level, &rows[first..], inputs, shape, out);
            }
        });
        Self { inputs, strip: strip(level), data }
    }

    /// Unpacks a row.
    pub(crate) fn read_row(&self, row: usize, out: &mut [f32]) {
        let panel = row / PANEL * self.inputs * PANEL;
        let chunks = self.data[panel..].chunks(CHUNK * PANEL);
        for (out, chunk) in out.chunks_mut(CHUNK).zip(chunks) {
            let strip = row % PANEL / self.strip * out.len() * self.strip;
            let column = chunk[strip..].iter().skip(row % self.strip).step_by(self.strip);
            out.iter_mut().zip(column).for_each(|(out, value)| *out = *value);
        }
    }
}

impl PanelWeight for PackedF32 {
    type Word = f32;

    fn chunk<'a>(
        &'a self,
        _level: SimdLevel,
        outputs: Range<usize>,
        depth: Range<usize>,
        _buffer: &'a mut Vec<f32>,
    ) -> &'a [f32] {
        packed_chunk(&self.data, self.inputs, outputs.start, depth)
    }

    fn next_chunk(&self, outputs: Range<usize>, depth: Range<usize>) -> Prefetch {
        following_chunk(&self.data, self.inputs, outputs.start, depth)
    }

    fn accumulate(
        &self,
        level: SimdLevel,
        sums: &mut [f32],
        x: (&[f32], usize),
        w: &[f32],
        prefetch: Prefetch,
    ) {
        accumulate_strips(level.arch(), sums, x, (w, self.strip), prefetch);
    }
}
