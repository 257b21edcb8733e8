//! SwiGLU and GELU on the device.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_longlong, c_void};

use candle_core::Tensor;

use super::{Dtype, Stream, create, launch, read, write};
use crate::error::Result;
use crate::gelu::Gelu;

unsafe extern "C" {
    fn er_swiglu(
        y: *mut c_void,
        gate: *const c_void,
        up: *const c_void,
        count: c_longlong,
        dtype: Dtype,
        stream: Stream,
    ) -> c_int;
    fn er_swiglu_backward(
        gate: *mut c_void,
        up: *mut c_void,
        dy: *const c_void,
        count: c_longlong,
        dtype: Dtype,
        stream: Stream,
    ) -> c_int;
    fn er_gelu(
        y: *mut c_void,
        x: *const c_void,
        count: c_longlong,
        tanh: c_int,
        dtype: Dtype,
        stream: Stream,
    ) -> c_int;
    fn er_gelu_backward(
        x: *mut c_void,
        dy: *const c_void,
        count: c_longlong,
        tanh: c_int,
        dtype: Dtype,
        stream: Stream,
    ) -> c_int;
}

pub(crate) fn swiglu(gate: &Tensor, up: &Tensor, op: &'static str) -> Result<Tensor> {
    let (stream, n) = (Stream::of(gate)?, gate.elem_count() as c_longlong);
    let g = read(gate, op)?.expect_float()?;
    let u = read(up, op)?.expect_dtype(g.dtype)?;
    create(gate.device(), gate.shape(), g.dtype, op, |y| match n {
        0 => Ok(()),
        _ => launch!(op, er_swiglu(y, g.ptr, u.ptr, n, g.dtype, stream)),
    })
}

pub(crate) fn swiglu_backward(
    gate: Tensor,
    up: Tensor,
    dy: &Tensor,
    op: &'static str,
) -> Result<(Tensor, Tensor)> {
    let (stream, n) = (Stream::of(dy)?, dy.elem_count() as c_longlong);
    let d = read(dy, op)?.expect_float()?;
    if n > 0 {
        write([(&gate, d.dtype), (&up, d.dtype)], op, |[gate, up]| {
            launch!(op, er_swiglu_backward(gate, up, d.ptr, n, d.dtype, stream))
        })?;
    }
    Ok((gate, up))
}

pub(crate) fn gelu(x: &Tensor, gelu: Gelu, op: &'static str) -> Result<Tensor> {
    let (stream, n) = (Stream::of(x)?, x.elem_count() as c_longlong);
    let values = read(x, op)?.expect_float()?;
    create(x.device(), x.shape(), values.dtype, op, |y| match n {
        0 => Ok(()),
        _ => launch!(op, er_gelu(y, values.ptr, n, tanh(gelu), values.dtype, stream)),
    })
}

pub(crate) fn gelu_backward(
    x: Tensor,
    dy: &Tensor,
    gelu: Gelu,
    op: &'static str,
) -> Result<Tensor> {
    let (stream, n) = (Stream::of(dy)?, dy.elem_count() as c_longlong);
    let d = read(dy, op)?.expect_float()?;
    if n > 0 {
        write([(&x, d.dtype)], op, |[x]| {
            launch!(op, er_gelu_backward(x, d.ptr, n, tanh(gelu), d.dtype, stream))
        })?;
    }
    Ok(x)
}

/// Whether the approximation is used.
fn tanh(gelu: Gelu) -> c_int {
    c_int::from(gelu == Gelu::Tanh)
}
