//! Copies, arithmetic and dtype conversion on the device.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_longlong, c_void};
use std::ops::Range;

use candle_core::{Device, Shape, Tensor};

use super::{Dtype, Stream, create, launch, read, row_width, upload_values, write};
use crate::error::Result;

unsafe extern "C" {
    fn er_axpby(
        to: *mut c_void,
        from: *const c_void,
        from_share: f32,
        to_share: f32,
        count: c_longlong,
        dtype: Dtype,
        from_dtype: Dtype,
        stream: Stream,
    ) -> c_int;
    fn er_convert(
        to: *mut c_void,
        from: *const c_void,
        count: c_longlong,
        dtype: Dtype,
        from_dtype: Dtype,
        stream: Stream,
    ) -> c_int;
    fn er_scale_rows(
        x: *mut c_void,
        factors: *const c_void,
        rows: c_longlong,
        width: c_int,
        dtype: Dtype,
        stream: Stream,
    ) -> c_int;
    fn er_scale(
        x: *mut c_void,
        factor: f32,
        count: c_longlong,
        dtype: Dtype,
        stream: Stream,
    ) -> c_int;
    fn er_fill_zero(to: *mut c_void, bytes: c_longlong, stream: Stream) -> c_int;
    fn er_squares(
        parts: *mut c_void,
        x: *const c_void,
        count: c_longlong,
        dtype: Dtype,
        stream: Stream,
    ) -> c_int;
    fn er_total(
        total: *mut c_void,
        parts: *const c_void,
        count: c_longlong,
        stream: Stream,
    ) -> c_int;
}

/// Elements per partial sum of squares: `SQUARES` of `optimizer.cu`.
const SQUARES: usize = 4096;

pub(crate) fn zeros(
    device: &Device,
    shape: impl Into<Shape>,
    dtype: Dtype,
    op: &'static str,
) -> Result<Tensor> {
    let shape = shape.into();
    let (stream, bytes) = (Stream::of_device(device)?, shape.elem_count() * dtype.bytes());
    create(device, shape, dtype, op, |to| match bytes {
        0 => Ok(()),
        _ => launch!(op, er_fill_zero(to, bytes as c_longlong, stream)),
    })
}

/// Zeros of a shape, with the device and dtype of `like`.
pub(crate) fn zeros_shaped_like(
    like: &Tensor,
    shape: &[usize],
    op: &'static str,
) -> Result<Tensor> {
    zeros(like.device(), shape, Dtype::of(like, op)?, op)
}

/// A copy of `from` as `dtype`.
pub(crate) fn cast_copy(from: &Tensor, dtype: Dtype, op: &'static str) -> Result<Tensor> {
    let (stream, n) = (Stream::of(from)?, from.elem_count() as c_longlong);
    let values = read(from, op)?.expect_float()?;
    create(from.device(), from.shape(), dtype, op, |to| match n {
        0 => Ok(()),
        _ => launch!(op, er_convert(to, values.ptr, n, dtype, values.dtype, stream)),
    })
}

pub(crate) fn copy(from: &Tensor, op: &'static str) -> Result<Tensor> {
    cast_copy(from, Dtype::of(from, op)?, op)
}

/// `from` as `dtype`; no copy if it already is.
pub(crate) fn cast(from: &Tensor, dtype: Dtype, op: &'static str) -> Result<Tensor> {
    match Dtype::of(from, op)? == dtype {
        true => Ok(from.clone()),
        false => cast_copy(from, dtype, op),
    }
}

/// `to = from` in place, in to's dtype.
pub(crate) fn overwrite(to: &Tensor, from: &Tensor, op: &'static str) -> Result<()> {
    let (stream, n) = (Stream::of(to)?, from.elem_count() as c_longlong);
    let (dtype, from) = (Dtype::of(to, op)?, read(from, op)?.expect_float()?);
    if n == 0 {
        return Ok(());
    }
    write([(to, dtype)], op, |[to]| {
        launch!(op, er_convert(to, from.ptr, n, dtype, from.dtype, stream))
    })
}

pub(crate) fn copy_rows(
    to: &Tensor,
    first: usize,
    from: &Tensor,
    range: Range<usize>,
    op: &'static str,
) -> Result<()> {
    let to = to.narrow(0, first, range.len())?;
    overwrite(&to, &from.narrow(0, range.start, range.len())?, op)
}

/// `to = from_share · from + to_share · to`, in place.
pub(crate) fn axpby(
    to: &Tensor,
    from: &Tensor,
    (from_share, to_share): (f32, f32),
    op: &'static str,
) -> Result<()> {
    let (stream, n) = (Stream::of(to)?, to.elem_count() as c_longlong);
    let (dtype, from) = (Dtype::of(to, op)?, read(from, op)?.expect_float()?);
    if n == 0 {
        return Ok(());
    }
    write([(to, dtype)], op, |[to]| {
        launch!(op, er_axpby(to, from.ptr, from_share, to_share, n, dtype, from.dtype, stream))
    })
}

pub(crate) fn scale(x: &Tensor, factor: f32, op: &'static str) -> Result<()> {
    let (stream, n, dtype) = (Stream::of(x)?, x.elem_count() as c_longlong, Dtype::of(x, op)?);
    if n == 0 {
        return Ok(());
    }
    write([(x, dtype)], op, |[x]| launch!(op, er_scale(x, factor, n, dtype, stream)))
}

pub(crate) fn scale_rows(x: &Tensor, factors: &[f32], op: &'static str) -> Result<()> {
    let (rows, width) = x.dims2()?;
    let (stream, dtype, width) = (Stream::of(x)?, Dtype::of(x, op)?, row_width(width, op)?);
    if rows == 0 || width == 0 {
        return Ok(());
    }
    let factors = upload_values(factors, x.device())?;
    let factors = read(&factors, op)?;
    let n = rows as c_longlong;
    write([(x, dtype)], op, |[x]| {
        launch!(op, er_scale_rows(x, factors.ptr, n, width, dtype, stream))
    })
}

/// Sum of squares: partial sums in f32, their total in f64.
pub(crate) fn squared_norm(x: &Tensor, op: &'static str) -> Result<f64> {
    let (device, stream) = (x.device(), Stream::of(x)?);
    let (n, count) = (x.elem_count() as c_longlong, x.elem_count().div_ceil(SQUARES));
    if count == 0 {
        return Ok(0.0);
    }
    let x = read(x, op)?.expect_float()?;
    let parts = create(device, count, Dtype::F32, op, |parts| {
        launch!(op, er_squares(parts, x.ptr, n, x.dtype, stream))
    })?;
    let parts = read(&parts, op)?;
    // An f64 as two u32 words, as launchers have no f64.
    let total = create(device, 2, Dtype::U32, op, |total| {
        launch!(op, er_total(total, parts.ptr, count as c_longlong, stream))
    })?;
    let halves = total.to_vec1::<u32>()?;
    let bits = halves.iter().rev().fold(0u64, |bits, half| bits << 32 | u64::from(*half));
    Ok(f64::from_bits(bits))
}
