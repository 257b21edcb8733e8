//! GELU (Hendrycks and Gimpel, 2016): `x · Φ(x)`, exact or by its tanh approximation.

use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

use candle_core::Tensor;
use multiversion::multiversion;

use crate::device::on_device;
use crate::error::{Result, check};
use crate::math::{erf, exp};
use crate::memory::{floats, tensor, update};
use crate::parallel::{self, Uninit, each};

const OP: &str = "gelu";

/// How Φ, the CDF of the standard normal distribution, is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gelu {
    /// By the error function (`gelu` of `transformers`).
    Exact,
    /// `(1 + tanh(√(2/π) · (x + 0.044715 x³))) / 2` (`gelu_pytorch_tanh`).
    Tanh,
}

/// `x · Φ(x)`, element by element.
///
/// # Errors
/// The tensor is not contiguous `f32` on the CPU.
pub fn forward(x: &Tensor, gelu: Gelu) -> Result<Tensor> {
    on_device!(x, elementwise::gelu(x, gelu, OP));
    let values = floats(x, OP)?;
    let y = parallel::filled(values.len(), |first, y| {
        let values = &values[first..first + y.len()];
        match gelu {
            Gelu::Exact => activated(values, y),
            Gelu::Tanh => approximated(values, y),
        }
    });
    tensor(y, x.shape())
}

/// The gradient of `x`, written in place: tensors that share its memory change too.
///
/// # Shapes
/// `x` and `dy` of the same shape.
///
/// # Errors
/// The shapes differ, or a tensor is not contiguous `f32` on the CPU.
pub fn backward(x: Tensor, dy: &Tensor, gelu: Gelu) -> Result<Tensor> {
    check(x.dims() == dy.dims(), OP, || "x and dy differ in shape".into())?;
    on_device!(dy, elementwise::gelu_backward(x, dy, gelu, OP));
    let d = floats(dy, OP)?;
    update(&x, OP, |x| {
        parallel::rows(x, 1, |first, x| {
            let d = &d[first..first + x.len()];
            match gelu {
                Gelu::Exact => gradients(x, d),
                Gelu::Tanh => approximated_gradients(x, d),
            }
        });
    })?;
    Ok(x)
}

#[multiversion(targets = "simd")]
fn activated<'o>(x: &[f32], y: &'o mut Uninit) -> &'o mut [f32] {
    let x = &x[..y.len()];
    each(y, |i| x[i] * distribution(x[i]))
}

/// Replaces `x` by its gradient.
#[multiversion(targets = "simd")]
fn gradients(x: &mut [f32], d: &[f32]) {
    for (x, d) in x.iter_mut().zip(d) {
        let density = exp(-0.5 * *x * *x) * (0.5 * FRAC_2_SQRT_PI * FRAC_1_SQRT_2);
        *x = d * x.mul_add(density, distribution(*x));
    }
}

#[multiversion(targets = "simd")]
fn approximated<'o>(x: &[f32], y: &'o mut Uninit) -> &'o mut [f32] {
    let x = &x[..y.len()];
    each(y, |i| x[i] * approximate_distribution(x[i]))
}

/// Replaces `x` by its gradient.
#[multiversion(targets = "simd")]
fn approximated_gradients(x: &mut [f32], d: &[f32]) {
    for (x, d) in x.iter_mut().zip(d) {
        let share = approximate_distribution(*x);
        let slope = 2.0 * ROOT_2_OVER_PI * (3.0 * CUBIC * *x).mul_add(*x, 1.0);
        *x = d * (*x * slope * share).mul_add(1.0 - share, share);
    }
}

/// √(2/π).
const ROOT_2_OVER_PI: f32 = 0.797_884_6;
const CUBIC: f32 = 0.044_715;

/// `(1 + tanh u) / 2 = 1 / (1 + e^(−2u))`, with `u = √(2/π) · (x + 0.044715 x³)`.
#[inline(always)]
fn approximate_distribution(x: f32) -> f32 {
    let u = ROOT_2_OVER_PI * x * (CUBIC * x).mul_add(x, 1.0);
    1.0 / (1.0 + exp(-2.0 * u))
}

/// Φ(x).
#[inline(always)]
fn distribution(x: f32) -> f32 {
    0.5 * (1.0 + erf(x * FRAC_1_SQRT_2))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Φ by Simpson's rule, in f64.
    fn exact(x: f64) -> f64 {
        let density = |t: f64| (-0.5 * t * t).exp() / (2.0 * std::f64::consts::PI).sqrt();
        let (steps, h) = (2000, x / 2000.0);
        let weight = |i: i32| match i {
            0 | 2000 => 1.0,
            i if i % 2 == 1 => 4.0,
            _ => 2.0,
        };
        let sum: f64 = (0..=steps).map(|i| weight(i) * density(f64::from(i) * h)).sum();
        0.5 + sum * h / 3.0
    }

    fn values() -> Vec<f32> {
        (-900..=900).map(|i| i as f32 / 100.0).collect()
    }

    #[test]
    fn values_and_gradients_equal_the_reference() {
        let x = tensor(values(), 1801).unwrap();
        let y = forward(&x, Gelu::Exact).unwrap().to_vec1::<f32>().unwrap();
        let dy = tensor(vec![2.0; 1801], 1801).unwrap();
        let dx = backward(x, &dy, Gelu::Exact).unwrap().to_vec1::<f32>().unwrap();
        for ((x, y), dx) in values().iter().zip(y).zip(dx) {
            let x = f64::from(*x);
            let expected = x * exact(x);
            assert!((f64::from(y) - expected).abs() < 1e-6, "{x}: {y}, not {expected}");
            let h = 1e-5;
            let slope = ((x + h) * exact(x + h) - (x - h) * exact(x - h)) / (2.0 * h);
            assert!((f64::from(dx) - 2.0 * slope).abs() < 2e-6, "{x}: {dx}, not {}", 2.0 * slope);
        }
    }

    #[test]
    fn the_approximation_and_its_gradients_equal_the_formula() {
        let exact = |x: f64| {
            let root = (2.0 / std::f64::consts::PI).sqrt();
            0.5 * x * (1.0 + (root * (x + 0.044_715 * x.powi(3))).tanh())
        };
        let x = tensor(values(), 1801).unwrap();
        let y = forward(&x, Gelu::Tanh).unwrap().to_vec1::<f32>().unwrap();
        let dy = tensor(vec![2.0; 1801], 1801).unwrap();
        let dx = backward(x, &dy, Gelu::Tanh).unwrap().to_vec1::<f32>().unwrap();
        for ((x, y), dx) in values().iter().zip(y).zip(dx) {
            let x = f64::from(*x);
            assert!((f64::from(y) - exact(x)).abs() < 1e-6, "{x}: {y}, not {}", exact(x));
            let h = 1e-5;
            let slope = (exact(x + h) - exact(x - h)) / (2.0 * h);
            assert!((f64::from(dx) - 2.0 * slope).abs() < 4e-6, "{x}: {dx}, not {}", 2.0 * slope);
        }
    }

    #[test]
    fn mismatched_shapes_are_rejected() {
        let x = tensor(vec![1.0, 2.0], 2).unwrap();
        assert!(backward(x, &tensor(vec![1.0], 1).unwrap(), Gelu::Exact).is_err());
    }
}
