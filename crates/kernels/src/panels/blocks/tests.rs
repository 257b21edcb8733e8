use proptest::prelude::*;

use super::*;
use crate::panels::matmul_at;
use crate::quantized::BlockFormat;
use crate::quantized::tests::{blocked, matrix, values};

fn packed(matrix: &QuantizedMatrix) -> PackedBlocks {
    PackedBlocks::new(matrix).unwrap()
}

fn wave(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7919) % 1013) as f32 / 506.5 - 1.0).collect()
}

/// `y = x · Wᵀ` at a level.
fn product(level: SimdLevel, x: &[f32], weight: &PackedBlocks, outputs: usize) -> Vec<f32> {
    let mut y = vec![f32::NAN; x.len() / weight.inputs * outputs];
    let shape = (outputs, weight.groups() * GROUP_WORDS);
    matmul_at(level, &mut y, WriteMode::Overwrite, &with_sums(x), weight, shape);
    y
}

#[test]
fn packing_takes_the_bytes_of_the_file() {
    for format in blocked() {
        let (outputs, inputs) = (2 * PANEL, 512);
        let bytes = packed(&matrix(format, outputs, inputs, 3)).lines.len() * size_of::<Line>();
        let stored = format.row_bytes(inputs).unwrap() * outputs;
        // The 6-bit scales and minimums of two formats are bytes.
        let extra = match format {
            BlockFormat::Q4K | BlockFormat::Q5K => 4 * outputs * inputs / 256,
            _ => 0,
        };
        assert_eq!(bytes, stored + extra, "{}", format.name());
    }
}

#[test]
fn rows_are_those_of_the_matrix() {
    for format in blocked() {
        let matrix = matrix(format, 70, 512, 11);
        let expected = values(&matrix);
        let packed = packed(&matrix);
        for row in [0, 1, 63, 64, 69] {
            let mut out = vec![f32::NAN; 512];
            packed.read_row(row, &mut out);
            assert_eq!(out, expected[row * 512..][..512], "{} {row}", format.name());
        }
    }
}

#[test]
fn products_equal_sums_over_the_dequantized_weight_at_every_level() {
    let (rows, outputs) = (7, 70);
    for format in blocked() {
        for inputs in [format.block_len(), 512, 1280] {
            let matrix = matrix(format, outputs, inputs, 5);
            let (data, x) = (values(&matrix), wave(rows * inputs));
            let packed = packed(&matrix);
            for level in SimdLevel::supported() {
                let mut found = product(level, &x, &packed, outputs).into_iter();
                for x in x.chunks(inputs) {
                    for w in data.chunks(inputs) {
                        let terms = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w));
                        let expected: f64 = terms.clone().sum();
                        // Chains of 32 and of the groups; a minimum's part and the rest may cancel, each of at most
                        // the size of the largest codes.
                        let size = terms.map(f64::abs).sum::<f64>();
                        let bound = 16.0 * (32 + inputs / 32) as f64 * f64::from(f32::EPSILON);
                        let found = f64::from(found.next().unwrap());
                        let error = (found - expected).abs();
                        let name = format.name();
                        assert!(
                            error <= bound * size,
                            "{name} {inputs} {level:?}: {found} is not {expected}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn formats_mix_in_one_parallel_region() {
    let weights = [BlockFormat::Q4K, BlockFormat::Q6K, BlockFormat::Q8_0]
        .map(|format| packed(&matrix(format, 66, 512, 7)));
    let x = wave(3 * 512);
    let mut joint: Vec<Vec<f32>> = vec![vec![f32::NAN; 3 * 66]; 3];
    let results = joint.iter_mut().map(|y| (y.as_mut_slice(), WriteMode::Overwrite)).collect();
    matmul_all(results, &x, &weights.each_ref());
    for (joint, weight) in joint.iter().zip(&weights) {
        let mut alone = vec![f32::NAN; 3 * 66];
        matmul(&mut alone, WriteMode::Overwrite, &x, weight);
        assert_eq!(*joint, alone);
    }
}

proptest! {
    #[test]
    fn a_row_has_the_same_bits_in_any_batch(
        which in 0..8_usize,
        rows in 1..60_usize,
        seed in any::<u64>(),
    ) {
        let format = blocked().nth(which).unwrap();
        let weight = packed(&matrix(format, 70, 256, seed));
        let x = wave(rows * 256);
        for level in SimdLevel::supported() {
            let batch = product(level, &x, &weight, 70);
            for (row, x) in x.chunks(256).enumerate() {
                let alone = product(level, x, &weight, 70);
                let same = alone.iter().zip(&batch[row * 70..]).all(|(a, b)| a.to_bits() == b.to_bits());
                prop_assert!(same, "{:?} {level:?} row {row}", format);
            }
        }
    }
}
