//! The gated unit of the feed-forward layer: `silu(gate) · up`.

use candle_core::Tensor;
use multiversion::multiversion;

use crate::error::{Result, check};
use crate::math::sigmoid;
use crate::memory::{floats, tensor};
use crate::parallel;

const OP: &str = "swiglu";

/// `silu(gate) · up`, element by element, with `silu(x) = x / (1 + e^-x)`.
///
/// # Shapes
/// All of the same shape.
///
/// # Errors
/// The shapes differ, or a tensor is not contiguous `f32` on the CPU.
pub fn forward(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    check(gate.dims() == up.dims(), OP, || "gate and up differ in shape".into())?;
    let (g, u) = (floats(gate, OP)?, floats(up, OP)?);
    let mut y = vec![0.0; g.len()];
    parallel::rows(&mut y, 1, |first, y| {
        let end = first + y.len();
        gated(&g[first..end], &u[first..end], y);
    });
    tensor(y, gate.shape())
}

/// The gradients of `gate` and `up`.
///
/// # Errors
/// As [`forward`].
pub fn backward(gate: &Tensor, up: &Tensor, dy: &Tensor) -> Result<(Tensor, Tensor)> {
    let same = gate.dims() == up.dims() && gate.dims() == dy.dims();
    check(same, OP, || "gate, up and dy differ in shape".into())?;
    let (g, u, d) = (floats(gate, OP)?, floats(up, OP)?, floats(dy, OP)?);
    let (mut d_gate, mut d_up) = (vec![0.0; g.len()], vec![0.0; g.len()]);
    parallel::rows2((&mut d_gate, 1), (&mut d_up, 1), |first, d_gate, d_up| {
        let end = first + d_gate.len();
        gradients(&g[first..end], &u[first..end], &d[first..end], d_gate, d_up);
    });
    Ok((tensor(d_gate, gate.shape())?, tensor(d_up, gate.shape())?))
}

#[multiversion(targets = "simd")]
fn gated(g: &[f32], u: &[f32], y: &mut [f32]) {
    for ((y, g), u) in y.iter_mut().zip(g).zip(u) {
        *y = g * sigmoid(*g) * u;
    }
}

#[multiversion(targets = "simd")]
fn gradients(g: &[f32], u: &[f32], d: &[f32], d_gate: &mut [f32], d_up: &mut [f32]) {
    let inputs = g.iter().zip(u).zip(d);
    for ((dg, du), ((g, u), d)) in d_gate.iter_mut().zip(d_up).zip(inputs) {
        let s = sigmoid(*g);
        *du = d * g * s;
        *dg = d * u * s * g.mul_add(1.0 - s, 1.0);
    }
}
