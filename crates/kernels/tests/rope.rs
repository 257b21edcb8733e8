//! Rotary embeddings beside their formula, written out in f64.

#![allow(clippy::expect_used)]

mod common;

use candle_core::Tensor;
use embodied_r_kernels::memory;
use embodied_r_kernels::rope::{Angles, Frequencies, Turn, rotate};

/// Rows enough that several tasks share them.
const ROWS: usize = 700;
/// Two heads of eight numbers.
const WIDTH: usize = 16;
const SECTIONS: [usize; 3] = [1, 1, 2];

fn frequencies(attention_factor: f32) -> Frequencies {
    Frequencies { inverse: vec![1.0, 0.125, 0.015_625, 0.001_953_125], attention_factor }
}

fn noise() -> Tensor {
    common::noise(&[ROWS, WIDTH])
}

fn texts() -> Vec<usize> {
    (0..ROWS).map(|i| i * 3).collect()
}

/// Three positions that differ for most tokens.
fn places() -> Vec<[usize; 3]> {
    (0..ROWS).map(|i| [i / 90, 7 * i % 31, 5 * i % 53]).collect()
}

/// The embedding of `row`, whose pair `j` stands at position `place[axis of j]`.
fn written_out(row: &[f64], place: [usize; 3], frequencies: &Frequencies) -> Vec<f64> {
    let axes = [0, 1, 2, 2];
    let half = WIDTH / 4;
    (0..WIDTH)
        .map(|i| {
            let (head, j) = (i / (2 * half) * 2 * half, i % half);
            let angle = place[axes[j]] as f64 * f64::from(frequencies.inverse[j]);
            let (sin, cos) = angle.sin_cos();
            let (a, b) = (row[head + j], row[head + j + half]);
            let turned = if i % (2 * half) < half { a * cos - b * sin } else { b * cos + a * sin };
            turned * f64::from(frequencies.attention_factor)
        })
        .collect()
}

fn wide(x: &Tensor) -> Vec<Vec<f64>> {
    let rows = x.to_vec2::<f32>().expect("rows");
    rows.into_iter().map(|row| row.into_iter().map(f64::from).collect()).collect()
}

fn turned(x: &Tensor, angles: &Angles, turn: Turn) -> Tensor {
    let y = x.copy().expect("copy");
    rotate(&y, angles, turn).expect("turned");
    y
}

#[track_caller]
fn assert_is_the_formula(x: &Tensor, angles: &Angles, places: &[[usize; 3]], by: &Frequencies) {
    let y = wide(&turned(x, angles, Turn::Forward));
    for ((row, place), y) in wide(x).iter().zip(places).zip(&y) {
        for (ours, truth) in y.iter().zip(written_out(row, *place, by)) {
            assert!((ours - truth).abs() < 1e-5, "{place:?}: {ours} is not {truth}");
        }
    }
}

#[test]
fn text_turns_by_its_position() {
    for factor in [1.0, 1.25] {
        let by = frequencies(factor);
        let places: Vec<[usize; 3]> = texts().iter().map(|p| [*p; 3]).collect();
        assert_is_the_formula(&noise(), &Angles::new(&texts(), &by), &places, &by);
    }
}

#[test]
fn each_section_turns_by_its_own_position() {
    for factor in [1.0, 1.25] {
        let by = frequencies(factor);
        let angles = Angles::multimodal(&places(), SECTIONS, &by).expect("angles");
        assert_is_the_formula(&noise(), &angles, &places(), &by);
    }
}

#[test]
fn three_equal_positions_are_the_plain_embedding() {
    let by = frequencies(1.25);
    let equal: Vec<[usize; 3]> = texts().iter().map(|p| [*p; 3]).collect();
    let plain = Angles::new(&texts(), &by);
    let multimodal = Angles::multimodal(&equal, SECTIONS, &by).expect("angles");
    let x = noise();
    let both = [plain, multimodal].map(|angles| wide(&turned(&x, &angles, Turn::Forward)));
    assert_eq!(both[0], both[1]);
}

#[test]
fn the_backward_turn_gives_the_gradient_of_the_forward_one() {
    let by = frequencies(1.25);
    let angles = Angles::multimodal(&places(), SECTIONS, &by).expect("angles");
    let (x, dy) = (wide(&noise()), noise());
    let dx = wide(&turned(&dy, &angles, Turn::Backward));
    let dy = wide(&dy);
    for row in (0..ROWS).step_by(61) {
        let place = places()[row];
        for i in 0..WIDTH {
            let at = |h: f64| -> f64 {
                let mut x = x[row].clone();
                x[i] += h;
                let y = written_out(&x, place, &by);
                y.iter().zip(&dy[row]).map(|(y, dy)| y * dy).sum()
            };
            let truth = (at(1e-4) - at(-1e-4)) / 2e-4;
            assert!((dx[row][i] - truth).abs() < 1e-5, "{place:?}: {} is not {truth}", dx[row][i]);
        }
    }
}

#[test]
fn an_angle_is_rounded_to_f32_as_transformers_rounds_it() {
    // The exact angle is 6600.65363, its cosine -0.98601; in f32 it is 6600.65381.
    let by = Frequencies { inverse: vec![0.805_842_2], attention_factor: 1.0 };
    let x = memory::tensor(vec![1.0, 0.0], (1, 2)).expect("tensor");
    let y = wide(&turned(&x, &Angles::new(&[8191], &by), Turn::Forward));
    assert!((y[0][0] + 0.985_980_75).abs() < 1e-7, "{}", y[0][0]);
    assert!((y[0][1] + 0.166_859_25).abs() < 1e-7, "{}", y[0][1]);
}

#[test]
fn sections_that_do_not_add_up_are_refused() {
    assert!(Angles::multimodal(&places(), [1, 1, 1], &frequencies(1.0)).is_err());
}
