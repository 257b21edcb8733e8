//! SwiGLU, the gated unit of the feed-forward layer: `silu(gate) · up`.

use candle_core::Tensor;
use multiversion::multiversion;

use crate::device::on_device;
use crate::error::{Result, check};
use crate::math::sigmoid;
use crate::memory::{floats, tensor, update};
use crate::parallel::{self, Uninit, each};

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
    on_device!(gate, elementwise::swiglu(gate, up, OP));
    let (g, u) = (floats(gate, OP)?, floats(up, OP)?);
    let y = parallel::filled(g.len(), |first, y| {
        let end = first + y.len();
        gated(&g[first..end], &u[first..end], y)
    });
    tensor(y, gate.shape())
}

/// The gradients of `gate` and `up`, written in place: tensors that share their memory change too.
///
/// # Errors
/// As [`forward`].
pub fn backward(gate: Tensor, up: Tensor, dy: &Tensor) -> Result<(Tensor, Tensor)> {
    let same = gate.dims() == up.dims() && gate.dims() == dy.dims();
    check(same, OP, || "gate, up and dy differ in shape".into())?;
    on_device!(dy, elementwise::swiglu_backward(gate, up, dy, OP));
    let d = floats(dy, OP)?;
    let mut of_up = Ok(());
    update(&gate, OP, |g| {
        of_up = update(&up, OP, |u| {
            parallel::rows2((g, 1), (u, 1), |first, g, u| {
                gradients(g, u, &d[first..first + g.len()]);
            });
        });
    })?;
    of_up?;
    Ok((gate, up))
}

#[multiversion(targets = "simd")]
fn gated<'o>(g: &[f32], u: &[f32], y: &'o mut Uninit) -> &'o mut [f32] {
    let (g, u) = (&g[..y.len()], &u[..y.len()]);
    each(y, |i| g[i] * sigmoid(g[i]) * u[i])
}

/// Replaces gate and up by their gradients.
#[multiversion(targets = "simd")]
fn gradients(g: &mut [f32], u: &mut [f32], d: &[f32]) {
    for ((g, u), d) in g.iter_mut().zip(u).zip(d) {
        let s = sigmoid(*g);
        let du = d * *g * s;
        *g = d * *u * s * g.mul_add(1.0 - s, 1.0);
        *u = du;
    }
}
