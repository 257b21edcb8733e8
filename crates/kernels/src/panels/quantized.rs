//! Weights in blocks of few bits: a panel's blocks become `f32` when their turn comes.

use std::ops::Range;

use super::{PANEL, Rows, turn};
use crate::quantized::QuantizedMatrix;

/// Inputs of a chunk: whole blocks of every format.
const CHUNK: usize = 256;

impl Rows for QuantizedMatrix {
    const CHUNK: usize = CHUNK;

    fn turned(&self, outputs: Range<usize>, inputs: Range<usize>, out: &mut [f32]) {
        let mut rows = [0.0; PANEL * CHUNK];
        let rows = &mut rows[..outputs.len() * inputs.len()];
        for (row, out) in outputs.clone().zip(rows.chunks_mut(inputs.len())) {
            self.read_blocks(row, inputs.clone(), out);
        }
        turn(rows, inputs.len(), outputs.len(), inputs.len(), out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matmul::Into;
    use crate::panels::{Plain, product};
    use crate::quantized::{BlockFormat, ByteRange};

    #[test]
    fn a_product_is_that_with_the_numbers_which_the_blocks_stand_for() {
        let (rows, outputs) = (7, 70);
        for format in BlockFormat::ALL {
            let inputs = if format.block_len() > 256 { format.block_len() } else { 512 };
            let row_bytes = format.row_bytes(inputs).unwrap();
            // Scales stand in some bytes of a block, and these are small numbers as f16, bf16 and f32.
            let bytes: Vec<u8> = (0..outputs * row_bytes)
                .map(|i| [7, 40, 21, 36][i % 4] + (i / 9 % 3) as u8)
                .collect();
            let matrix =
                QuantizedMatrix::new(format, outputs, inputs, ByteRange::from(bytes)).unwrap();
            let numbers: Vec<f32> =
                matrix.dequantize().unwrap().flatten_all().unwrap().to_vec1().unwrap();
            let largest = numbers.iter().fold(0f32, |a, b| a.max(b.abs()));
            let x: Vec<f32> = (0..rows * inputs).map(|i| (i % 19) as f32 / 9.0 - 1.0).collect();
            let mut ours = vec![0.0; rows * outputs];
            product(&mut ours, Into::Replace, &x, &matrix, (outputs, inputs));
            let mut plain = vec![0.0; rows * outputs];
            let weight = Plain { numbers: &numbers, inputs };
            product(&mut plain, Into::Replace, &x, &weight, (outputs, inputs));
            for (a, b) in ours.iter().zip(&plain) {
                let bound = 1e-5 * largest * inputs as f32;
                assert!((a - b).abs() <= bound, "{}: {a} is not {b}", format.name());
            }
        }
    }
}
