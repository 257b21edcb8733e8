use super::*;
use crate::quantized::{BlockFormat, ByteRange};

fn matrix(rows: usize, columns: usize, seed: usize) -> Tensor {
    let value = |i: usize| ((i * 7919 + seed * 104_729) % 1013) as f32 / 506.5 - 1.0;
    tensor((0..rows * columns).map(value).collect(), (rows, columns)).unwrap()
}

fn blocks(outputs: usize, inputs: usize) -> Weight {
    let bytes = BlockFormat::Q8_0.row_bytes(inputs).unwrap() * outputs;
    let bytes: Vec<u8> = (0..bytes).map(|i| [7, 36, 21, 40][i % 4]).collect();
    let bytes = ByteRange::from(bytes);
    let matrix = QuantizedMatrix::new(BlockFormat::Q8_0, outputs, inputs, bytes).unwrap();
    Weight::quantized(&matrix).unwrap()
}

#[test]
fn joint_projections_have_the_bits_of_separate_ones() {
    let (wide, narrow) = (matrix(130, 64, 1), matrix(20, 64, 2));
    let bias = tensor((0..20).map(|i| i as f32).collect(), 20).unwrap();
    let kinds = [
        [Weight::f32(&wide).unwrap(), Weight::f32(&narrow).unwrap()],
        [Weight::f32_copy(&wide).unwrap(), Weight::f32_copy(&narrow).unwrap()],
        [Weight::bf16(&wide).unwrap(), Weight::bf16(&narrow).unwrap()],
        [blocks(130, 64), blocks(20, 64)],
        [Weight::f32(&wide).unwrap(), blocks(20, 64)],
    ];
    for rows in [1, 5, 70] {
        let x = matrix(rows, 64, 3);
        for [a, b] in &kinds {
            let joint = forward_all(&x, [(a, None), (b, Some(&bias))]).unwrap();
            let separate = [a.forward(&x, None).unwrap(), b.forward(&x, Some(&bias)).unwrap()];
            for (joint, separate) in joint.iter().zip(&separate) {
                assert_eq!(
                    joint.to_vec2::<f32>().unwrap(),
                    separate.to_vec2::<f32>().unwrap(),
                    "{rows} rows"
                );
            }
        }
    }
}

#[test]
fn a_packed_copy_gives_the_bits_of_the_shared_weight() {
    let matrix_of = |rows| matrix(rows, 150, 1);
    for outputs in [1, 64, 130] {
        let shared = Weight::f32(&matrix_of(outputs)).unwrap();
        let copy = Weight::f32_copy(&matrix_of(outputs)).unwrap();
        let values = |x: Tensor| x.to_vec2::<f32>().unwrap();
        for rows in [1, 7, 400] {
            let x = matrix(rows, 150, 2);
            let (a, b) = (shared.forward(&x, None).unwrap(), copy.forward(&x, None).unwrap());
            assert_eq!(values(a), values(b), "{rows} rows, {outputs} outputs");
        }
        let ids = [outputs - 1, 0];
        assert_eq!(values(shared.rows(&ids).unwrap()), values(copy.rows(&ids).unwrap()));
    }
}

#[test]
fn mismatched_shapes_are_rejected_by_name() {
    let weight = Weight::f32(&matrix(5, 8, 1)).unwrap();
    let message = weight.forward(&matrix(2, 7, 1), None).unwrap_err().to_string();
    assert!(message.contains("x has 7 columns, but the weight has 8 inputs"), "{message}");
    assert!(weight.forward_add(&matrix(2, 8, 1), &matrix(2, 4, 1), None).is_err());
    let message = weight.rows(&[4, 5]).unwrap_err().to_string();
    assert!(message.contains("row 5 is out of range"), "{message}");
}

#[test]
fn rows_that_are_no_whole_blocks_are_quantized_in_smaller_ones() {
    let blocks = WeightFormat::Blocks;
    for (asked, inputs, has, bytes) in [
        (BlockFormat::Q4K, 512, blocks(BlockFormat::Q4K), 288),
        (BlockFormat::Q4K, 96, blocks(BlockFormat::Q5_0), 66),
        (BlockFormat::Q8_0, 96, blocks(BlockFormat::Q8_0), 102),
        (BlockFormat::Q4K, 40, WeightFormat::Bf16, 80),
        (BlockFormat::Q8_0, 40, WeightFormat::Bf16, 80),
    ] {
        let asked = blocks(asked);
        assert_eq!((asked.for_rows(inputs), asked.row_bytes(inputs)), (has, bytes), "{inputs}");
        let (weight, x) = (matrix(70, inputs, 1), matrix(3, inputs, 2));
        let product = |format| {
            let weight = Weight::in_format(&weight, format).unwrap();
            weight.forward(&x, None).unwrap().to_vec2::<f32>().unwrap()
        };
        assert_eq!(product(asked), product(has), "{inputs}");
    }
}
