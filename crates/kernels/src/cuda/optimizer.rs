//! Optimizer steps on the device.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_longlong, c_void};

use candle_core::Tensor;

use super::gemm::{Destination, Operand, gemm};
use super::memory::{axpby, cast, scale, squared_norm};
use super::{Dtype, Stream, create, launch, read, write};
use crate::error::Result;
use crate::matmul::WriteMode;

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
    fn er_polynomial(
        square: *mut c_void,
        gram: *const c_void,
        a: f32,
        b: f32,
        c: f32,
        size: c_int,
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

/// Coefficients and number of Newton-Schulz iterations.
pub(crate) struct Iteration {
    pub(crate) coefficients: [f32; 3],
    pub(crate) times: usize,
}

/// A step of [`crate::muon()`], with the parameter's decay and the update's rate.
pub(crate) fn muon(
    param: &Tensor,
    grad: &Tensor,
    of_grads: &Tensor,
    step: &crate::MuonStep,
    iteration: &Iteration,
    rates: (f32, f32),
    op: &'static str,
) -> Result<()> {
    let factors = (step.momentum as f32, step.grad_scale as f32);
    let direction = momentum(of_grads, grad, factors, op)?;
    orthogonal_step(param, direction, iteration, rates, op)
}

/// `param = keep · param - rate · orthogonalized(direction)`.
fn orthogonal_step(
    param: &Tensor,
    direction: Tensor,
    iteration: &Iteration,
    (keep, rate): (f32, f32),
    op: &'static str,
) -> Result<()> {
    let norm = squared_norm(&direction, op)?.sqrt().max(1e-7);
    scale(&direction, (1.0 / norm) as f32, op)?;
    let mut x = direction;
    for _ in 0..iteration.times {
        x = iterated(&x, iteration.coefficients, op)?;
    }
    axpby(param, &cast(&x, Dtype::of(param, op)?, op)?, (-rate, keep), op)
}

/// `(a + b x xᵀ + c (x xᵀ)²) x`, transposed so that the inner matrices have the smaller side's size.
fn iterated(x: &Tensor, [a, b, c]: [f32; 3], op: &'static str) -> Result<Tensor> {
    let (rows, cols) = x.dims2()?;
    let (device, stream, size) = (x.device(), Stream::of(x)?, rows.min(cols));
    let values = read(x, op)?.expect_dtype(Dtype::F32)?;
    let of_x = Operand::new(&values, rows, cols);
    let (lhs, rhs) = if rows > cols { (of_x.t(), of_x) } else { (of_x, of_x.t()) };
    let square = |lhs: Operand, rhs: Operand| {
        create(device, (size, size), Dtype::F32, op, |at| {
            let out = Destination::new(at, Dtype::F32, size, size);
            gemm(device, out, lhs, rhs, WriteMode::Overwrite.into(), op)
        })
    };
    let gram = square(lhs, rhs)?;
    let gram = read(&gram, op)?;
    let of_gram = Operand::new(&gram, size, size);
    let poly = square(of_gram, of_gram)?;
    write([(&poly, Dtype::F32)], op, |[poly]| {
        launch!(op, er_polynomial(poly, gram.ptr, a, b, c, size as c_int, stream))
    })?;
    let poly = read(&poly, op)?;
    let of_poly = Operand::new(&poly, size, size);
    let (lhs, rhs) = if rows > cols { (of_x, of_poly) } else { (of_poly, of_x) };
    create(device, (rows, cols), Dtype::F32, op, |at| {
        let out = Destination::new(at, Dtype::F32, rows, cols);
        gemm(device, out, lhs, rhs, WriteMode::Overwrite.into(), op)
    })
}
