use super::bf16::{self, PackedBf16};
use super::*;

fn values(n: usize, seed: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919 + seed * 104_729) % 1013) as f32 / 506.5 - 1.0).collect()
}

/// Rounds to bf16 with the `half` crate.
fn to_bf16(x: &[f32]) -> Vec<f32> {
    x.iter().map(|x| half::bf16::from_f32(*x).to_f32()).collect()
}

/// Reference in f64, with the sum of the terms' magnitudes, which bounds the rounding error.
fn naive(x: &[f32], w: &[f32], inputs: usize) -> Vec<(f64, f64)> {
    let term = |x: &[f32], w: &[f32]| {
        x.iter().zip(w).fold((0.0, 0.0), |(sum, size), (x, w)| {
            let term = f64::from(*x) * f64::from(*w);
            (sum + term, size + term.abs())
        })
    };
    x.chunks(inputs).flat_map(|x| w.chunks(inputs).map(move |w| term(x, w))).collect()
}

#[track_caller]
fn assert_close(actual: &[f32], expected: &[(f64, f64)], shape: (usize, usize, usize)) {
    assert_eq!(actual.len(), expected.len());
    for (actual, (expected, size)) in actual.iter().zip(expected) {
        // A chain of at most 256 roundings, and one per chunk.
        let bound = 256.0 * f64::from(f32::EPSILON) * size + 1e-7;
        assert!(
            (f64::from(*actual) - expected).abs() <= bound,
            "{shape:?}: {actual} is not {expected}"
        );
    }
}

const SHAPES: [(usize, usize, usize); 9] = [
    (1, 1, 1),
    (2, 15, 3),
    (5, 64, 65),
    (6, 128, 64),
    (7, 129, 63),
    (64, 300, 81),
    (13, 257, 130),
    (390, 40, 150),
    (800, 16, 16),
];

fn plain(x: &[f32], w: &[f32], (rows, inputs, outputs): (usize, usize, usize)) -> Vec<f32> {
    let mut y = vec![f32::NAN; rows * outputs];
    let weight = RowMajorF32 { data: w, inputs };
    matmul(&mut y, WriteMode::Overwrite, x, &weight, (outputs, inputs));
    y
}

#[test]
fn every_shape_equals_the_naive_sum() {
    for shape @ (rows, inputs, outputs) in SHAPES {
        let (x, w) = (values(rows * inputs, 1), values(outputs * inputs, 2));
        let expected = naive(&x, &w, inputs);
        let y = plain(&x, &w, shape);
        assert_close(&y, &expected, shape);
        let before = values(rows * outputs, 3);
        let mut added = before.clone();
        matmul(
            &mut added,
            WriteMode::Accumulate,
            &x,
            &RowMajorF32 { data: &w, inputs },
            (outputs, inputs),
        );
        for ((added, before), y) in added.iter().zip(&before).zip(&y) {
            assert_eq!(*added, before + y, "{shape:?}");
        }
    }
}

/// The GEMM at a level.
fn at<W: PanelWeight<Word = f32>>(
    level: SimdLevel,
    x: &[f32],
    weight: &W,
    (rows, inputs, outputs): (usize, usize, usize),
) -> Vec<f32> {
    let mut y = vec![f32::NAN; rows * outputs];
    matmul_at(level, &mut y, WriteMode::Overwrite, x, weight, (outputs, inputs));
    y
}

/// Rows of the skinny GEMM and one more, with inputs around a register's and a chunk's.
fn skinny_shapes() -> impl Iterator<Item = (usize, usize, usize)> {
    let inputs = [1, 15, 16, 17, CHUNK, CHUNK + 1, 300];
    (1..=TILE_ROWS + 1).flat_map(move |rows| inputs.map(|inputs| (rows, inputs, 80)))
}

#[test]
fn f32_gemms_equal_the_naive_sum_with_the_same_bits_at_every_level() {
    for shape @ (rows, inputs, outputs) in SHAPES.into_iter().chain(skinny_shapes()) {
        let (x, w) = (values(rows * inputs, 14), values(outputs * inputs, 15));
        let row_major = RowMajorF32 { data: &w, inputs };
        let packed = |level| PackedF32::new_at(level, &w, outputs, inputs);
        let portable = at(SimdLevel::Portable, &x, &row_major, shape);
        assert_close(&portable, &naive(&x, &w, inputs), shape);
        // Each element is one chain of fused multiply-adds, so instructions of any width give the same bits.
        for level in SimdLevel::supported() {
            assert_eq!(at(level, &x, &row_major, shape), portable, "{level:?}, {shape:?}");
            let packed = packed(level);
            for at_level in SimdLevel::supported() {
                let levels = (level, at_level);
                assert_eq!(at(at_level, &x, &packed, shape), portable, "{levels:?}, {shape:?}");
            }
            let mut row = vec![f32::NAN; inputs];
            for output in [0, outputs / 2, outputs - 1] {
                packed.read_row(output, &mut row);
                assert_eq!(row, w[output * inputs..][..inputs], "row {output}, {shape:?}");
            }
        }
    }
}

#[test]
fn widened_gemms_have_the_bits_of_the_f32_weight_at_every_level() {
    for shape @ (rows, inputs, outputs) in SHAPES.into_iter().chain(skinny_shapes()) {
        let bits = |to_bits: fn(f32) -> u16| -> Vec<[u8; 2]> {
            values(outputs * inputs, 18).into_iter().map(|w| to_bits(w).to_le_bytes()).collect()
        };
        let halves = bits(|w| half::f16::from_f32(w).to_bits());
        let brains = bits(|w| half::bf16::from_f32(w).to_bits());
        let of = |bits: &[[u8; 2]], value: fn(u16) -> f32| -> Vec<f32> {
            bits.iter().map(|bits| value(u16::from_le_bytes(*bits))).collect()
        };
        let wide = [
            of(&halves, |bits| half::f16::from_bits(bits).to_f32()),
            of(&brains, |bits| half::bf16::from_bits(bits).to_f32()),
        ];
        let x = to_bf16(&values(rows * inputs, 19));
        let f16 = PackedF16::from_bytes(&halves, outputs, inputs);
        let bf16 = PackedBf16::from_bytes(&brains, outputs, inputs);
        let f32s = wide.each_ref().map(|wide| PackedF32::new(wide, outputs, inputs));
        for level in SimdLevel::supported().filter(|level| *level < SimdLevel::Avx512Bf16) {
            let expected = f32s.each_ref().map(|packed| at(level, &x, packed, shape));
            assert_eq!(at(level, &x, &f16, shape), expected[0], "f16, {level:?}, {shape:?}");
            let mut y = vec![f32::NAN; rows * outputs];
            bf16::matmul_at(level, &mut y, WriteMode::Overwrite, &x, &bf16);
            assert_eq!(y, expected[1], "bf16, {level:?}, {shape:?}");
        }
        let x = values(rows * inputs, 20);
        let mut y = vec![f32::NAN; rows * outputs];
        bf16::exact_matmul_all(vec![(&mut y, WriteMode::Overwrite)], &x, &[&bf16]);
        assert_eq!(y, at(simd_level(), &x, &f32s[1], shape), "exact, {shape:?}");
        let mut row = vec![0.0; inputs];
        f16.read_row(outputs - 1, &mut row);
        assert_eq!(row, wide[0][(outputs - 1) * inputs..]);
        bf16.read_row(outputs - 1, &mut row);
        assert_eq!(row, wide[1][(outputs - 1) * inputs..]);
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn skinny_gemms_run_from_avx512_on() {
    let (rows, inputs, outputs) = (3, 129, 64);
    let (x, w) = (values(rows * inputs, 16), values(outputs * inputs, 17));
    let expected = naive(&x, &w, inputs);
    let weight = RowMajorF32 { data: &w, inputs };
    for level in SimdLevel::supported() {
        let mut sums = vec![f32::NAN; rows * PANEL];
        let few = PanelWeight::skinny(&weight, level, &mut sums, &x, 0..outputs);
        assert_eq!(few, level >= SimdLevel::Avx512, "{level:?}");
        if few {
            assert_close(&sums, &expected, (rows, inputs, outputs));
        }
    }
}

#[test]
fn transposed_tiles_accumulate_the_naive_sum_at_every_level() {
    for (rows, depth, width) in [(1, 1, 16), (2, 7, 48), (5, 64, 64), (TILE_ROWS, 33, 112)] {
        let (stride, before) = (rows + 3, values(rows * width, 18));
        let (x, w) = (values(depth * stride, 19), values(depth * width, 20));
        let x_t: Vec<f32> = (0..rows)
            .flat_map(|row| (0..depth).map(move |k| (row, k)))
            .map(|(row, k)| x[k * stride + row])
            .collect();
        let products = naive(&x_t, &transposed(&w, depth, width), depth);
        let expected = products.iter().zip(&before).map(|((sum, size), before)| {
            let before = f64::from(*before);
            (sum + before, size + before.abs())
        });
        let expected: Vec<(f64, f64)> = expected.collect();
        for level in SimdLevel::supported() {
            let mut sums = before.clone();
            accumulate_transposed(level.arch(), &mut sums, (&x, stride), (&w, width));
            assert_close(&sums, &expected, (rows, depth, width));
        }
    }
}

#[test]
fn transposes_are_exact_and_zero_padded_at_every_level() {
    let rows = [0, 1, 7, 8, 9, 15, 16, 17, 48, 63, PANEL];
    let shapes = [16, PANEL].into_iter().flat_map(|width| rows.map(|rows| (rows, width)));
    for (rows, width) in shapes.filter(|(rows, width)| rows <= width) {
        for columns in [0, 1, 7, 8, 9, 15, 16, 17, 40] {
            let stride = columns + 5;
            let data: Vec<u32> = (1..=(width * stride) as u32).collect();
            let element = |(column, row): (usize, usize)| {
                if row < rows { data[row * stride + column] } else { 0 }
            };
            let indices = (0..columns).flat_map(|column| (0..width).map(move |row| (column, row)));
            let expected: Vec<u32> = indices.map(element).collect();
            for level in SimdLevel::supported() {
                let mut out = vec![u32::MAX; columns * width];
                transpose(level, &data, stride, (rows, columns), (&mut out, width));
                let shape = (rows, columns, width);
                assert_eq!(out, expected, "{level:?}: rows, columns and width {shape:?}");
            }
        }
    }
}

#[test]
fn a_row_has_the_same_bits_in_any_batch() {
    for shape @ (rows, inputs, outputs) in SHAPES {
        let (x, w) = (values(rows * inputs, 4), values(outputs * inputs, 5));
        let batched = plain(&x, &w, shape);
        let packed = PackedBf16::new(&w, outputs, inputs);
        let mut batched_bf16 = vec![0.0; rows * outputs];
        bf16::matmul(&mut batched_bf16, WriteMode::Overwrite, &x, &packed);
        for row in [0, rows / 2, rows - 1] {
            let (x, at) =
                (&x[row * inputs..(row + 1) * inputs], row * outputs..(row + 1) * outputs);
            assert_eq!(plain(x, &w, (1, inputs, outputs)), batched[at.clone()]);
            let mut alone = vec![0.0; outputs];
            bf16::matmul(&mut alone, WriteMode::Overwrite, x, &packed);
            assert_eq!(alone, batched_bf16[at]);
        }
    }
}

#[test]
fn bf16_gemms_round_the_operands_and_nothing_else() {
    for shape @ (rows, inputs, outputs) in SHAPES {
        let (x, w) = (values(rows * inputs, 6), values(outputs * inputs, 7));
        let expected = naive(&to_bf16(&x), &to_bf16(&w), inputs);
        let packed = PackedBf16::new(&w, outputs, inputs);
        let mut y = vec![0.0; rows * outputs];
        bf16::matmul(&mut y, WriteMode::Overwrite, &x, &packed);
        assert_close(&y, &expected, shape);
        for level in SimdLevel::supported() {
            let mut y = vec![0.0; rows * outputs];
            bf16::matmul_at(level, &mut y, WriteMode::Overwrite, &x, &packed);
            assert_close(&y, &expected, shape);
        }
        let mut row = vec![0.0; inputs];
        packed.read_row(outputs - 1, &mut row);
        assert_eq!(row, to_bf16(&w[(outputs - 1) * inputs..]));
    }
}

/// Transposes to (columns, rows).
fn transposed(x: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|c| (0..rows).map(move |r| x[r * columns + c])).collect()
}

#[test]
fn bf16_gemms_with_a_transposed_weight_round_the_operands_and_nothing_else() {
    for shape @ (rows, outputs, inputs) in SHAPES {
        let (dy, w) = (values(rows * outputs, 8), values(outputs * inputs, 9));
        let expected = naive(&to_bf16(&dy), &to_bf16(&transposed(&w, outputs, inputs)), outputs);
        let packed = PackedBf16::transposed(&w, outputs, inputs);
        for level in SimdLevel::supported() {
            let mut dx = vec![0.0; rows * inputs];
            bf16::matmul_at(level, &mut dx, WriteMode::Overwrite, &dy, &packed);
            assert_close(&dx, &expected, shape);
        }
    }
}

#[test]
fn bf16_weight_gradients_round_the_operands_and_accumulate() {
    for shape @ (m, rows, n) in SHAPES {
        let (a, b) = (values(rows * m, 10), values(rows * n, 11));
        let (a_t, b_t) = (transposed(&a, rows, m), transposed(&b, rows, n));
        let expected = naive(&to_bf16(&a_t), &to_bf16(&b_t), rows);
        for level in SimdLevel::supported() {
            let mut sum = vec![0.0; m * n];
            bf16::accumulate_weight_grad_at(level, &mut sum, (&a, m), (&b, n), rows);
            assert_close(&sum, &expected, shape);
            let mut added = vec![3.0; m * n];
            bf16::accumulate_weight_grad_at(level, &mut added, (&a, m), (&b, n), rows);
            assert!(added.iter().zip(&sum).all(|(added, sum)| *added == 3.0 + sum), "{shape:?}");
        }
    }
}

#[test]
fn bf16_weight_gradients_have_the_same_bits_on_any_number_of_threads() {
    let (m, rows, n) = (400, 1300, 200);
    let (a, b) = (values(rows * m, 12), values(rows * n, 13));
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let mut sum = vec![0.0; m * n];
        pool.install(|| bf16::accumulate_weight_grad(&mut sum, (&a, m), (&b, n), rows));
        sum
    };
    let alone = on(1);
    assert_eq!(alone, on(2));
    assert_eq!(alone, on(7));
}

#[test]
fn bf16_rounding_is_to_nearest_even_and_keeps_nan() {
    let tie = f32::from_bits(0x3f80_8000);
    let odd_tie = f32::from_bits(0x3f81_8000);
    let x = [tie, odd_tie, 1.0, -0.0, f32::INFINITY, f32::MAX, 1e-40];
    let packed = PackedBf16::new(&x, 1, x.len());
    let mut row = vec![0.0; x.len()];
    packed.read_row(0, &mut row);
    assert_eq!(row, to_bf16(&x));
    let mut alone = x;
    bf16::round(&mut alone);
    assert_eq!(alone.to_vec(), row);
    let packed = PackedBf16::new(&[f32::from_bits(0x7f80_0001)], 1, 1);
    packed.read_row(0, &mut row[..1]);
    assert!(row[0].is_nan());
}
