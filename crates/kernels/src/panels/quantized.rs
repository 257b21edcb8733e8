//! Block-quantized weights: a panel's blocks are dequantized on the fly.

use std::ops::Range;

use super::{PANEL, RowMajorWeight, SimdLevel, transpose};
use crate::quantized::QuantizedMatrix;

/// Inputs per chunk: whole blocks of every format.
const CHUNK: usize = 256;

impl RowMajorWeight for QuantizedMatrix {
    const CHUNK: usize = CHUNK;

    fn pack_chunk(
        &self,
        level: SimdLevel,
        outputs: Range<usize>,
        inputs: Range<usize>,
        out: &mut [f32],
    ) {
        let mut rows = [0.0; PANEL * CHUNK];
        let rows = &mut rows[..outputs.len() * inputs.len()];
        for (row, out) in outputs.clone().zip(rows.chunks_mut(inputs.len())) {
            self.read_blocks(row, inputs.clone(), out);
        }
        transpose(level, rows, inputs.len(), (outputs.len(), inputs.len()), out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matmul::WriteMode;
    use crate::panels::matmul_at;
    use crate::quantized::{BlockFormat, ByteRange};

    #[test]
    fn a_quantized_gemm_equals_the_sum_over_the_dequantized_weight_at_every_level() {
        let (rows, outputs) = (7, 70);
        for format in BlockFormat::ALL {
            let inputs = if format.block_len() > 256 { format.block_len() } else { 512 };
            let row_bytes = format.row_bytes(inputs).unwrap();
            // Some bytes of a block are scales; these are small values as f16, bf16 and f32.
            let bytes: Vec<u8> = (0..outputs * row_bytes)
                .map(|i| [7, 40, 21, 36][i % 4] + (i / 9 % 3) as u8)
                .collect();
            let matrix =
                QuantizedMatrix::new(format, outputs, inputs, ByteRange::from(bytes)).unwrap();
            let data: Vec<f32> =
                matrix.dequantize().unwrap().flatten_all().unwrap().to_vec1().unwrap();
            let x: Vec<f32> = (0..rows * inputs).map(|i| (i % 19) as f32 / 9.0 - 1.0).collect();
            let mut expected = Vec::new();
            for x in x.chunks(inputs) {
                for w in data.chunks(inputs) {
                    let terms = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w));
                    expected.push((terms.clone().sum::<f64>(), terms.map(f64::abs).sum::<f64>()));
                }
            }
            for level in SimdLevel::supported() {
                let mut actual = vec![f32::NAN; rows * outputs];
                let (overwrite, shape) = (WriteMode::Overwrite, (outputs, inputs));
                matmul_at(level, &mut actual, overwrite, &x, &matrix, shape);
                for (actual, (expected, size)) in actual.iter().zip(&expected) {
                    // A chain of [`CHUNK`] roundings of half an ulp, and one per chunk.
                    let bound = CHUNK as f64 * f64::from(f32::EPSILON) * size;
                    let error = (f64::from(*actual) - expected).abs();
                    let name = format.name();
                    assert!(error <= bound, "{name}, {level:?}: {actual} is not {expected}");
                }
            }
        }
    }
}
