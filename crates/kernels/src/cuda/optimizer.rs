//! Optimizer steps on the device.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_longlong, c_void};

use candle_core::Tensor;

use super::gemm::{Addend, Destination, GemmOptions, Operand, gemm};
use super::memory::{axpby, cast, scale, squared_norm};
use super::{Dtype, Stream, create, launch, read, write};
use crate::error::Result;
use crate::muon::{Iteration, MuonStep};
use crate::precision::Precision;

unsafe extern "C" {
    fn er_adamw(
        param: *mut c_void,
        m: *mut c_void,
        v: *mut c_void,
        grad: *const c_void,
        factors: *const f32,
        count: c_longlong,
        dtype: Dtype,
        stream: Stream,
    ) -> c_int;
    fn er_momentum(
        momentum: *mut c_void,
        direction: *mut c_void,
        grad: *const c_void,
        keep: f32,
        scale: f32,
        count: c_longlong,
        dtype: Dtype,
        stream: Stream,
    ) -> c_int;
}

/// A step on f32 parameters and moments; coefficients: rate, root, keep, beta1, beta2, eps and the gradient scale.
pub(crate) fn adamw(
    param: &Tensor,
    grad: &Tensor,
    m: &Tensor,
    v: &Tensor,
    factors: [f32; 7],
    op: &'static str,
) -> Result<()> {
    let (stream, n) = (Stream::of(param)?, param.elem_count() as c_longlong);
    if n == 0 {
        return Ok(());
    }
    let grad = read(grad, op)?.expect_float()?;
    write([(param, Dtype::F32), (m, Dtype::F32), (v, Dtype::F32)], op, |[param, m, v]| {
        launch!(op, er_adamw(param, m, v, grad.ptr, factors.as_ptr(), n, grad.dtype, stream))
    })
}

/// Updates the momentum, and returns the Nesterov direction (f32).
fn momentum(
    momentum: &Tensor,
    grad: &Tensor,
    (keep, scale): (f32, f32),
    op: &'static str,
) -> Result<Tensor> {
    let (stream, n) = (Stream::of(grad)?, grad.elem_count() as c_longlong);
    let (device, shape) = (grad.device(), grad.shape());
    let grad = read(grad, op)?.expect_float()?;
    create(device, shape, Dtype::F32, op, |direction| {
        if n == 0 {
            return Ok(());
        }
        write([(momentum, Dtype::F32)], op, |[momentum]| {
            launch!(
                op,
                er_momentum(momentum, direction, grad.ptr, keep, scale, n, grad.dtype, stream)
            )
        })
    })
}

/// A step of [`crate::muon()`], with the parameter's decay and the update's rate.
pub(crate) fn muon(
    param: &Tensor,
    grad: &Tensor,
    of_grads: &Tensor,
    step: &MuonStep,
    iteration: &Iteration,
    rates: (f32, f32),
    op: &'static str,
) -> Result<()> {
    let factors = (step.momentum as f32, step.grad_scale as f32);
    let direction = momentum(of_grads, grad, factors, op)?;
    orthogonal_step(param, direction, (iteration, step.precision), rates, op)
}

/// `param = keep · param - rate · orthogonalized(direction)`, where the iteration's matrices have the precision given.
fn orthogonal_step(
    param: &Tensor,
    direction: Tensor,
    (iteration, precision): (&Iteration, Precision),
    (keep, rate): (f32, f32),
    op: &'static str,
) -> Result<()> {
    let mut x = cast(&direction, precision.into(), op)?;
    let norm = squared_norm(&x, op)?.sqrt().max(1e-7);
    scale(&x, (1.0 / norm) as f32, op)?;
    for _ in 0..iteration.times {
        x = iterated(&x, iteration.coefficients, op)?;
    }
    axpby(param, &x, (-rate, keep), op)
}

/// `a x + (b x xᵀ + c (x xᵀ)²) x`, transposed so that the inner matrices have the smaller side's size. Each of the three
/// products is rounded to x's dtype once, as in PyTorch.
fn iterated(x: &Tensor, [a, b, c]: [f32; 3], op: &'static str) -> Result<Tensor> {
    let (rows, cols) = x.dims2()?;
    let (device, size) = (x.device(), rows.min(cols));
    let values = read(x, op)?.expect_float()?;
    let dtype = values.dtype;
    let product = |shape: (usize, usize), [lhs, rhs]: [Operand; 2], options: GemmOptions| {
        create(device, shape, dtype, op, |at| {
            let out = Destination::new(at, dtype, shape.0, shape.1);
            gemm(device, out, lhs, rhs, options, op)
        })
    };
    let of_x = Operand::new(&values, rows, cols);
    let sides = if rows > cols { [of_x.t(), of_x] } else { [of_x, of_x.t()] };
    let gram = product((size, size), sides, Addend::Zero.into())?;
    let gram = read(&gram, op)?;
    let of_gram = Operand::new(&gram, size, size);
    let options = GemmOptions { alpha: c, beta: b, ..Addend::At(gram.ptr).into() };
    let poly = product((size, size), [of_gram, of_gram], options)?;
    let poly = read(&poly, op)?;
    let poly = Operand::new(&poly, size, size);
    let sides = if rows > cols { [of_x, poly] } else { [poly, of_x] };
    product((rows, cols), sides, GemmOptions { beta: a, ..Addend::At(values.ptr).into() })
}
