//! Rotary embeddings against a reference in f64.

#![allow(clippy::expect_used)]

mod noise;

use candle_core::Tensor;
use embodied_r_kernels::memory;
use embodied_r_kernels::rope::{CosSinCache, Frequencies, MropeSections, Rotation, rotate};

/// Enough rows for several tasks.
const ROWS: usize = 700;
/// Two heads of size 8.
const WIDTH: usize = 16;
const SECTIONS: MropeSections = MropeSections::consecutive([1, 1, 2]);
/// The position id of each pair.
const AXES: [usize; 4] = [0, 1, 2, 2];
/// As `transformers` interleaves sections of these sizes: pairs 1 and 2 use height and width, all others the time.
const INTERLEAVED: MropeSections = MropeSections::interleaved([2, 1, 1]);
const INTERLEAVED_AXES: [usize; 4] = [0, 1, 2, 0];

fn frequencies(attention_factor: f32) -> Frequencies {
    Frequencies { inv_freq: vec![1.0, 0.125, 0.015_625, 0.001_953_125], attention_factor }
}

fn noise() -> Tensor {
    noise::noise(&[ROWS, WIDTH])
}

fn texts() -> Vec<usize> {
    (0..ROWS).map(|i| i * 3).collect()
}

/// 3-D position ids that differ for most tokens.
fn position_ids() -> Vec<[usize; 3]> {
    (0..ROWS).map(|i| [i / 90, 7 * i % 31, 5 * i % 53]).collect()
}

/// Reference embedding of `row`, whose pair `j` has position `position[axis of j]`.
fn reference(
    row: &[f64],
    position: [usize; 3],
    axes: [usize; 4],
    frequencies: &Frequencies,
) -> Vec<f64> {
    let half = WIDTH / 4;
    (0..WIDTH)
        .map(|i| {
            let (head, j) = (i / (2 * half) * 2 * half, i % half);
            let angle = position[axes[j]] as f64 * f64::from(frequencies.inv_freq[j]);
            let (sin, cos) = angle.sin_cos();
            let (a, b) = (row[head + j], row[head + j + half]);
            let rotated = if i % (2 * half) < half { a * cos - b * sin } else { b * cos + a * sin };
            rotated * f64::from(frequencies.attention_factor)
        })
        .collect()
}

fn wide(x: &Tensor) -> Vec<Vec<f64>> {
    let rows = x.to_vec2::<f32>().expect("rows");
    rows.into_iter().map(|row| row.into_iter().map(f64::from).collect()).collect()
}

fn rotated(x: &Tensor, cos_sin: &CosSinCache, rotation: Rotation) -> Tensor {
    let y = x.copy().expect("copy");
    rotate(&y, cos_sin, rotation).expect("rotated");
    y
}

#[track_caller]
fn assert_equals_the_reference(
    x: &Tensor,
    cos_sin: &CosSinCache,
    position_ids: &[[usize; 3]],
    (axes, by): ([usize; 4], &Frequencies),
) {
    let y = wide(&rotated(x, cos_sin, Rotation::Forward));
    for ((row, position), y) in wide(x).iter().zip(position_ids).zip(&y) {
        for (actual, expected) in y.iter().zip(reference(row, *position, axes, by)) {
            assert!((actual - expected).abs() < 1e-5, "{position:?}: {actual} is not {expected}");
        }
    }
}

#[test]
fn text_is_rotated_by_its_position() {
    for factor in [1.0, 1.25] {
        let by = frequencies(factor);
        let position_ids: Vec<[usize; 3]> = texts().iter().map(|p| [*p; 3]).collect();
        assert_equals_the_reference(
            &noise(),
            &CosSinCache::new(&texts(), &by),
            &position_ids,
            (AXES, &by),
        );
    }
}

#[test]
fn each_section_is_rotated_by_its_own_position_id() {
    for factor in [1.0, 1.25] {
        let by = frequencies(factor);
        for (sections, axes) in [(SECTIONS, AXES), (INTERLEAVED, INTERLEAVED_AXES)] {
            let cos_sin = CosSinCache::multimodal(&position_ids(), sections, &by);
            let cos_sin = cos_sin.expect("sections match");
            assert_equals_the_reference(&noise(), &cos_sin, &position_ids(), (axes, &by));
        }
    }
}

#[test]
fn three_equal_position_ids_give_the_plain_embedding() {
    let by = frequencies(1.25);
    let equal: Vec<[usize; 3]> = texts().iter().map(|p| [*p; 3]).collect();
    let plain = CosSinCache::new(&texts(), &by);
    let multimodal = CosSinCache::multimodal(&equal, SECTIONS, &by).expect("sections match");
    let x = noise();
    let both = [plain, multimodal].map(|cos_sin| wide(&rotated(&x, &cos_sin, Rotation::Forward)));
    assert_eq!(both[0], both[1]);
}

#[test]
fn the_backward_rotation_is_the_gradient_of_the_forward_one() {
    let by = frequencies(1.25);
    let cos_sin = CosSinCache::multimodal(&position_ids(), SECTIONS, &by).expect("sections match");
    let (x, dy) = (wide(&noise()), noise());
    let dx = wide(&rotated(&dy, &cos_sin, Rotation::Backward));
    let dy = wide(&dy);
    for row in (0..ROWS).step_by(61) {
        let position = position_ids()[row];
        for i in 0..WIDTH {
            let at = |h: f64| -> f64 {
                let mut x = x[row].clone();
                x[i] += h;
                let y = reference(&x, position, AXES, &by);
                y.iter().zip(&dy[row]).map(|(y, dy)| y * dy).sum()
            };
            let expected = (at(1e-4) - at(-1e-4)) / 2e-4;
            assert!(
                (dx[row][i] - expected).abs() < 1e-5,
                "{position:?}: {} is not {expected}",
                dx[row][i]
            );
        }
    }
}

#[test]
fn an_angle_is_rounded_to_f32_as_transformers_rounds_it() {
    // The exact angle is 6600.65363, its cosine -0.98601; in f32 it is 6600.65381.
    let by = Frequencies { inv_freq: vec![0.805_842_2], attention_factor: 1.0 };
    let x = memory::tensor(vec![1.0, 0.0], (1, 2)).expect("tensor");
    let y = wide(&rotated(&x, &CosSinCache::new(&[8191], &by), Rotation::Forward));
    assert!((y[0][0] + 0.985_980_75).abs() < 1e-7, "{}", y[0][0]);
    assert!((y[0][1] + 0.166_859_25).abs() < 1e-7, "{}", y[0][1]);
}

#[test]
fn sections_that_do_not_sum_to_the_pairs_are_rejected() {
    assert!(
        CosSinCache::multimodal(
            &position_ids(),
            MropeSections::consecutive([1, 1, 1]),
            &frequencies(1.0)
        )
        .is_err()
    );
}
