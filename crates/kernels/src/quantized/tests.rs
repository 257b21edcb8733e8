use std::path::Path;

use candle_core::Device;
use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use proptest::prelude::*;

use super::*;

fn fixture(file: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/blocks");
    std::fs::read(folder.join(file)).unwrap()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

/// Formats with several elements per block.
pub(crate) fn blocked() -> impl Iterator<Item = BlockFormat> {
    BlockFormat::ALL.into_iter().filter(|format| format.block_len() > 1)
}

fn candles(format: BlockFormat) -> GgmlDType {
    match format {
        BlockFormat::F32 => GgmlDType::F32,
        BlockFormat::F16 => GgmlDType::F16,
        BlockFormat::Bf16 => GgmlDType::BF16,
        BlockFormat::Q4_0 => GgmlDType::Q4_0,
        BlockFormat::Q4_1 => GgmlDType::Q4_1,
        BlockFormat::Q5_0 => GgmlDType::Q5_0,
        BlockFormat::Q5_1 => GgmlDType::Q5_1,
        BlockFormat::Q8_0 => GgmlDType::Q8_0,
        BlockFormat::Q4K => GgmlDType::Q4K,
        BlockFormat::Q5K => GgmlDType::Q5K,
        BlockFormat::Q6K => GgmlDType::Q6K,
    }
}

/// Random bytes of `count` blocks with finite scales.
fn blocks(format: BlockFormat, count: usize, seed: u64) -> Vec<u8> {
    let size = format.block_bytes();
    let mut state = seed;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    let mut bytes: Vec<u8> = (0..count * size).map(|_| next()).collect();
    // High bytes of the scales: an exponent that is neither infinity nor NaN.
    let high: &[usize] = match format {
        BlockFormat::Q6K => &[209],
        BlockFormat::Q4_0 | BlockFormat::Q5_0 | BlockFormat::Q8_0 => &[1],
        _ => &[1, 3],
    };
    for block in bytes.chunks_mut(size) {
        for &at in high {
            block[at] &= 0xbf;
        }
    }
    bytes
}

pub(crate) fn matrix(
    format: BlockFormat,
    outputs: usize,
    inputs: usize,
    seed: u64,
) -> QuantizedMatrix {
    let bytes = blocks(format, outputs * inputs / format.block_len(), seed);
    QuantizedMatrix::new(format, outputs, inputs, bytes.into()).unwrap()
}

pub(crate) fn values(matrix: &QuantizedMatrix) -> Vec<f32> {
    matrix.dequantize().unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn half_precision_converts_exactly() {
    for bits in 0..=u16::MAX {
        let (found, expected) = (blocks::half(bits), ::half::f16::from_bits(bits).to_f32());
        assert!(
            found == expected || found.is_nan() && expected.is_nan(),
            "{bits:#x}: {found} {expected}"
        );
    }
}

#[test]
fn every_format_agrees_with_the_python_package() {
    for format in BlockFormat::ALL.into_iter().filter(|format| *format != BlockFormat::F32) {
        let name = format.name();
        let expected = floats(&fixture(&format!("{name}.values")));
        let bytes = fixture(&format!("{name}.blocks"));
        let matrix = QuantizedMatrix::new(format, 1, expected.len(), bytes.into()).unwrap();
        for (i, (found, expected)) in values(&matrix).iter().zip(&expected).enumerate() {
            assert!(
                (found - expected).abs() <= 1e-6 * expected.abs(),
                "{name} {i}: {found}, expected {expected}"
            );
        }
    }
}

#[test]
fn every_format_agrees_with_candle() {
    for format in blocked() {
        let bytes = blocks(format, 8, 3);
        let shape = (2, 4 * format.block_len());
        let storage = QStorage::from_data(bytes.as_slice().into(), &Device::Cpu, candles(format));
        let expected =
            QTensor::new(storage.unwrap(), shape).unwrap().dequantize(&Device::Cpu).unwrap();
        let found = QuantizedMatrix::new(format, shape.0, shape.1, bytes.into()).unwrap();
        let expected = expected.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (i, (found, expected)) in values(&found).iter().zip(&expected).enumerate() {
            let close = (found - expected).abs() <= 1e-6 * expected.abs().max(1.0);
            assert!(close, "{} {i}: {found}, expected {expected}", format.name());
        }
    }
}

#[test]
fn block_sizes_agree_with_candle() {
    for format in BlockFormat::ALL {
        assert_eq!(format.block_len(), candles(format).block_size(), "{}", format.name());
        assert_eq!(format.block_bytes(), candles(format).type_size(), "{}", format.name());
    }
}

#[test]
fn a_matrix_reads_a_range_of_shared_bytes() {
    let bytes = [vec![9; 5], [1f32, 2.0, 3.0, 4.0].map(f32::to_le_bytes).concat()].concat();
    let owner: SharedBytes = Arc::new(bytes);
    let range = ByteRange::new(Arc::clone(&owner), 5..21).unwrap();
    let matrix = QuantizedMatrix::new(BlockFormat::F32, 2, 2, range).unwrap();
    assert_eq!(values(&matrix), [1.0, 2.0, 3.0, 4.0]);
    assert!(ByteRange::new(owner, 5..22).is_err());
}

#[test]
fn a_wrong_number_of_bytes_is_rejected_with_both_numbers() {
    let refused = |outputs, inputs, bytes: usize| {
        let bytes = vec![0; bytes].into();
        QuantizedMatrix::new(BlockFormat::Q4K, outputs, inputs, bytes).unwrap_err().to_string()
    };
    assert!(refused(2, 256, 287).contains("288 bytes, found 287"), "{}", refused(2, 256, 287));
    assert!(refused(2, 128, 144).contains("multiples of 256"));
    assert!(refused(usize::MAX, 256, 144).contains("found 144"));
    assert!(refused(1, usize::MAX - 255, 144).contains("found 144"));
}

#[test]
fn rows_columns_and_outputs_out_of_range_are_rejected() {
    let matrix = matrix(BlockFormat::Q4_0, 2, 64, 1);
    let mut out = [0.0; 32];
    assert!(matrix.read_row(1, 32..64, &mut out).is_ok());
    for (row, columns) in [(2, 0..32), (0, 16..48), (0, 64..96), (0, 0..64)] {
        assert!(matrix.read_row(row, columns.clone(), &mut out).is_err(), "{row} {columns:?}");
    }
}

proptest! {
    #[test]
    fn a_range_of_a_row_equals_that_range_of_the_whole(
        which in 0..BlockFormat::ALL.len(),
        row in 0_usize..3,
        (first, last) in (0_usize..4, 0_usize..4),
        seed in any::<u64>(),
    ) {
        let format = BlockFormat::ALL[which];
        prop_assume!(first <= last && format.block_len() > 1);
        let inputs = 4 * format.block_len();
        let matrix = matrix(format, 3, inputs, seed);
        let columns = first * format.block_len()..last * format.block_len();
        let mut out = vec![0.0; columns.len()];
        matrix.read_row(row, columns.clone(), &mut out).unwrap();
        let whole = values(&matrix);
        prop_assert_eq!(&out[..], &whole[row * inputs..][columns]);
    }
}

#[test]
fn quantization_rounds_to_the_nearest() {
    let values: Vec<f32> = (0..512 * 3).map(|i| ((i * 7919) % 1013) as f32 / 506.5 - 1.0).collect();
    let all = memory::tensor(values, (6, 256)).unwrap();
    // A view with an offset into its storage.
    let some = all.narrow(0, 2, 3).unwrap();
    let expected = some.to_vec2::<f32>().unwrap();
    // Half a step: 1/127 of a block's largest, or 1/15 of its range; a step of 1/16 where the other sign ends at 15.
    let formats = [
        (BlockFormat::Q8_0, 0.5 / 127.0),
        (BlockFormat::Q4K, 2.0 / 15.0),
        (BlockFormat::Q5_0, 1.0 / 16.0),
    ];
    for (format, most) in formats {
        let quantized = QuantizedMatrix::quantize(&some, format).unwrap();
        assert_eq!((quantized.outputs(), quantized.inputs()), (3, 256));
        let found = quantized.dequantize().unwrap().to_vec2::<f32>().unwrap();
        for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
            assert!((found - expected).abs() < 1.1 * most, "{format:?}: {found} for {expected}");
        }
    }
    assert!(QuantizedMatrix::quantize(&some, BlockFormat::Q6K).is_err());
    let short = memory::tensor(vec![1.0; 20], (1, 20)).unwrap();
    assert!(QuantizedMatrix::quantize(&short, BlockFormat::Q8_0).is_err());
}

/// Covers few rows (fused GEMV) and more (dequantization).
#[cfg(feature = "cuda-host")]
#[test]
fn device_gemms_of_every_format_agree_with_the_cpu() {
    use crate::device::{with_cuda_emulation, without_cuda_emulation};
    use crate::weight::Weight;

    let values = |tensor: Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let wave = |count: usize, step: f32| (0..count).map(|i| (i as f32 * step).sin()).collect();
    for format in blocked() {
        let (outputs, inputs) = (6, 3 * format.block_len().max(128));
        let blocks = matrix(format, outputs, inputs, 5);
        let bias = memory::tensor(wave(outputs, 0.3), outputs).unwrap();
        for rows in [1, 2, 8, 9] {
            let x = memory::tensor(wave(rows * inputs, 0.7), (rows, inputs)).unwrap();
            let y = memory::tensor(wave(rows * outputs, 0.2), (rows, outputs)).unwrap();
            let results = || {
                let weight = Weight::quantized(&blocks).unwrap();
                let rows = weight.rows(&[outputs - 1, 0, 3]).unwrap();
                let product = weight.forward(&x, Some(&bias)).unwrap();
                [rows, product, weight.forward_add(&x, &y, Some(&bias)).unwrap()].map(values)
            };
            let (found, expected) = (with_cuda_emulation(results), without_cuda_emulation(results));
            for (found, expected) in found.iter().zip(&expected) {
                // Sums of some hundred terms in another order.
                let size = expected.iter().fold(0.0, |most: f32, number| most.max(number.abs()));
                for (found, expected) in found.iter().zip(expected) {
                    let name = format.name();
                    assert!(
                        (found - expected).abs() <= 1e-5 * size,
                        "{name}, {rows}: {found} {expected}"
                    );
                }
            }
        }
    }
}
