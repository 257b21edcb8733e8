use super::bf16::{self, Packed};
use super::*;

fn numbers(n: usize, seed: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919 + seed * 104_729) % 1013) as f32 / 506.5 - 1.0).collect()
}

/// The nearest bf16, as the library that defines the type rounds.
fn to_bf16(x: &[f32]) -> Vec<f32> {
    x.iter().map(|x| half::bf16::from_f32(*x).to_f32()).collect()
}

/// In f64, and the sum of the terms' sizes, by which rounding is bounded.
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
fn assert_close(ours: &[f32], truth: &[(f64, f64)], shape: (usize, usize, usize)) {
    assert_eq!(ours.len(), truth.len());
    for (ours, (truth, size)) in ours.iter().zip(truth) {
        // A chain of 256 roundings at most, and then one for each chunk.
        let bound = 256.0 * f64::from(f32::EPSILON) * size + 1e-7;
        assert!((f64::from(*ours) - truth).abs() <= bound, "{shape:?}: {ours} is not {truth}");
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
    let weight = Plain { numbers: w, inputs };
    product(&mut y, Into::Replace, x, &weight, (outputs, inputs));
    y
}

#[test]
fn every_shape_gives_the_plain_sums() {
    for shape @ (rows, inputs, outputs) in SHAPES {
        let (x, w) = (numbers(rows * inputs, 1), numbers(outputs * inputs, 2));
        let truth = naive(&x, &w, inputs);
        let y = plain(&x, &w, shape);
        assert_close(&y, &truth, shape);
        let before = numbers(rows * outputs, 3);
        let mut added = before.clone();
        product(&mut added, Into::Add, &x, &Plain { numbers: &w, inputs }, (outputs, inputs));
        for ((added, before), y) in added.iter().zip(&before).zip(&y) {
            assert_eq!(*added, before + y, "{shape:?}");
        }
    }
}

#[test]
fn a_row_has_the_same_bits_whatever_rows_stand_beside_it() {
    for shape @ (rows, inputs, outputs) in SHAPES {
        let (x, w) = (numbers(rows * inputs, 4), numbers(outputs * inputs, 5));
        let together = plain(&x, &w, shape);
        let packed = Packed::new(&w, outputs, inputs);
        let mut together_bf16 = vec![0.0; rows * outputs];
        bf16::product(&mut together_bf16, Into::Replace, &x, &packed);
        for row in [0, rows / 2, rows - 1] {
            let (x, at) =
                (&x[row * inputs..(row + 1) * inputs], row * outputs..(row + 1) * outputs);
            assert_eq!(plain(x, &w, (1, inputs, outputs)), together[at.clone()]);
            let mut alone = vec![0.0; outputs];
            bf16::product(&mut alone, Into::Replace, x, &packed);
            assert_eq!(alone, together_bf16[at]);
        }
    }
}

#[test]
fn products_in_bf16_round_the_factors_and_nothing_else() {
    for shape @ (rows, inputs, outputs) in SHAPES {
        let (x, w) = (numbers(rows * inputs, 6), numbers(outputs * inputs, 7));
        let truth = naive(&to_bf16(&x), &to_bf16(&w), inputs);
        let packed = Packed::new(&w, outputs, inputs);
        let mut y = vec![0.0; rows * outputs];
        bf16::product(&mut y, Into::Replace, &x, &packed);
        assert_close(&y, &truth, shape);
        let mut unpacked = vec![0.0; rows * outputs];
        bf16::product_at(Level::Portable, &mut unpacked, Into::Replace, &x, &packed);
        assert_close(&unpacked, &truth, shape);
        let mut row = vec![0.0; inputs];
        packed.read_row(outputs - 1, &mut row);
        assert_eq!(row, to_bf16(&w[(outputs - 1) * inputs..]));
    }
}

/// (columns, rows).
fn transposed(x: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|c| (0..rows).map(move |r| x[r * columns + c])).collect()
}

#[test]
fn products_with_a_transposed_weight_in_bf16_round_the_factors_and_nothing_else() {
    for shape @ (rows, outputs, inputs) in SHAPES {
        let (dy, w) = (numbers(rows * outputs, 8), numbers(outputs * inputs, 9));
        let truth = naive(&to_bf16(&dy), &to_bf16(&transposed(&w, outputs, inputs)), outputs);
        let packed = Packed::transposed(&w, outputs, inputs);
        for level in [level(), Level::Portable] {
            let mut dx = vec![0.0; rows * inputs];
            bf16::product_at(level, &mut dx, Into::Replace, &dy, &packed);
            assert_close(&dx, &truth, shape);
        }
    }
}

#[test]
fn products_over_rows_in_bf16_round_the_factors_and_add_their_sum() {
    for shape @ (m, rows, n) in SHAPES {
        let (a, b) = (numbers(rows * m, 10), numbers(rows * n, 11));
        let (a_t, b_t) = (transposed(&a, rows, m), transposed(&b, rows, n));
        let truth = naive(&to_bf16(&a_t), &to_bf16(&b_t), rows);
        for level in [level(), Level::Portable] {
            let mut sum = vec![0.0; m * n];
            bf16::add_product_over_rows_at(level, &mut sum, (&a, m), (&b, n), rows);
            assert_close(&sum, &truth, shape);
            let mut added = vec![3.0; m * n];
            bf16::add_product_over_rows_at(level, &mut added, (&a, m), (&b, n), rows);
            assert!(added.iter().zip(&sum).all(|(added, sum)| *added == 3.0 + sum), "{shape:?}");
        }
    }
}

#[test]
fn sums_over_rows_in_bf16_have_the_same_bits_on_any_number_of_threads() {
    let (m, rows, n) = (400, 1300, 200);
    let (a, b) = (numbers(rows * m, 12), numbers(rows * n, 13));
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let mut sum = vec![0.0; m * n];
        pool.install(|| bf16::add_product_over_rows(&mut sum, (&a, m), (&b, n), rows));
        sum
    };
    let alone = on(1);
    assert_eq!(alone, on(2));
    assert_eq!(alone, on(7));
}

#[test]
fn rounding_to_bf16_is_to_the_nearest_even_and_keeps_what_is_no_number() {
    let tie = f32::from_bits(0x3f80_8000);
    let odd_tie = f32::from_bits(0x3f81_8000);
    let x = [tie, odd_tie, 1.0, -0.0, f32::INFINITY, f32::MAX, 1e-40];
    let packed = Packed::new(&x, 1, x.len());
    let mut row = vec![0.0; x.len()];
    packed.read_row(0, &mut row);
    assert_eq!(row, to_bf16(&x));
    let mut alone = x;
    bf16::round(&mut alone);
    assert_eq!(alone.to_vec(), row);
    let packed = Packed::new(&[f32::from_bits(0x7f80_0001)], 1, 1);
    packed.read_row(0, &mut row[..1]);
    assert!(row[0].is_nan());
}
