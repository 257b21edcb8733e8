//! SwiGLU, GELU and RoPE on the device.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_longlong, c_void};

use candle_core::Tensor;

use super::{Dtype, Stream, create, launch, read, write};
use crate::error::Result;

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
        dtype: Dtype,
        stream: Stream,
    ) -> c_int;
    fn er_gelu_backward(
        x: *mut c_void,
        dy: *const c_void,
        count: c_longlong,
        dtype: Dtype,
        stream: Stream,
    ) -> c_int;
    fn er_rope(
        x: *mut c_void,
        cos: *const c_void,
        sin: *const c_void,
        tokens: c_longlong,
        heads: c_int,
        half: c_int,
        sign: f32,
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

pub(crate) fn gelu(x: &Tensor, op: &'static str) -> Result<Tensor> {
    let (stream, n) = (Stream::of(x)?, x.elem_count() as c_longlong);
    let values = read(x, op)?.expect_float()?;
    create(x.device(), x.shape(), values.dtype, op, |y| match n {
        0 => Ok(()),
        _ => launch!(op, er_gelu(y, values.ptr, n, values.dtype, stream)),
    })
}

pub(crate) fn gelu_backward(x: Tensor, dy: &Tensor, op: &'static str) -> Result<Tensor> {
    let (stream, n) = (Stream::of(dy)?, dy.elem_count() as c_longlong);
    let d = read(dy, op)?.expect_float()?;
    if n > 0 {
        write([(&x, d.dtype)], op, |[x]| {
            launch!(op, er_gelu_backward(x, d.ptr, n, d.dtype, stream))
        })?;
    }
    Ok(x)
}

/// Rotates every head of `x` (tokens, heads · 2 · half); cosines and sines are (tokens, half) f32.
pub(crate) fn rope(
    x: &Tensor,
    (cos, sin): &(Tensor, Tensor),
    half: usize,
    sign: f32,
    op: &'static str,
) -> Result<()> {
    let (tokens, width) = x.dims2()?;
    if x.elem_count() == 0 {
        return Ok(());
    }
    let (stream, dtype) = (Stream::of(x)?, Dtype::of(x, op)?);
    let (cos, sin) =
        (read(cos, op)?.expect_dtype(Dtype::F32)?, read(sin, op)?.expect_dtype(Dtype::F32)?);
    let (tokens, heads) = (tokens as c_longlong, (width / (2 * half)) as c_int);
    write([(x, dtype)], op, |[x]| {
        launch!(op, er_rope(x, cos.ptr, sin.ptr, tokens, heads, half as c_int, sign, dtype, stream))
    })
}
