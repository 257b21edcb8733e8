//! Gradients by finite differences.

use candle_core::Tensor;
use embodied_r_kernels::memory;
use embodied_r_vision::{Pixels, SavedTower, TrainableTower};

use super::{loss, pass_of, pixels, tower, values};

/// A random direction that the gradient `d` predicts a large slope in, so that the rounding of the f32 forward pass does
/// not hide it: its elements have the signs of the gradient's, and random sizes below 1.
fn direction(d: &[f32], seed: u64) -> Vec<f64> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    let of = |d: &f32| {
        let size = next();
        if *d == 0.0 { size } else { size.abs() * f64::from(d.signum()) }
    };
    d.iter().map(of).collect()
}

#[test]
fn the_gradient_of_every_tensor_equals_finite_differences() {
    assert_eq!(compare(&tower("nested")), 42);
    assert_eq!(compare(&tower("qwen3_vl")), 3 + 4 * 12 + 3 * 6);
}

/// Compares the gradient of every trained tensor, and returns their number.
pub(super) fn compare(tower: &TrainableTower) -> usize {
    compare_passes(tower, &|tower, images, bytes| tower.forward(images, bytes).unwrap())
}

/// A forward pass over images that saves so many bytes of activations.
type Forward<'a> = &'a dyn Fn(&TrainableTower, &[&Pixels], usize) -> (Vec<Tensor>, SavedTower);

/// As [`compare`], for these passes.
pub(super) fn compare_passes(tower: &TrainableTower, forward: Forward<'_>) -> usize {
    let images = pixels(tower);
    let images: Vec<_> = images.iter().collect();
    let (_, grads) = pass_of(tower, forward(tower, &images, 0));
    assert!(grads == pass_of(tower, forward(tower, &images, usize::MAX)).1);
    let at = || loss(&forward(tower, &images, 0).0);
    let parameters: Vec<(String, Tensor)> =
        tower.parameters().map(|(name, tensor)| (name.to_owned(), tensor.clone())).collect();
    assert_eq!(parameters.len(), grads.len());
    for (seed, (name, tensor)) in (0..).zip(&parameters) {
        let (start, d) = (values(tensor), &grads[name]);
        let direction = direction(d, seed);
        let predicted: f64 =
            d.iter().zip(&direction).map(|(d, direction)| f64::from(*d) * direction).sum();
        // The rounding of the loss is about 1e-5, so a step that changes it by 0.25 is exact to 4e-5. The error of the
        // square and of the cube of the step cancels.
        let step = 0.25 / predicted.abs().max(1.0);
        let slope = |step: f64| {
            let moved = |step: f64| {
                let pairs = start.iter().zip(&direction);
                let moved: Vec<f32> =
                    pairs.map(|(x, by)| (f64::from(*x) + step * by) as f32).collect();
                memory::write_slice(tensor, &moved).unwrap();
                at()
            };
            (moved(step) - moved(-step)) / (2.0 * step)
        };
        let found = (4.0 * slope(step / 2.0) - slope(step)) / 3.0;
        memory::write_slice(tensor, &start).unwrap();
        let error = (found - predicted).abs() / predicted.abs().max(1e-3);
        assert!(error < 1e-3, "{name}: {predicted} predicted, {found} found, {error:e}");
    }
    parameters.len()
}
