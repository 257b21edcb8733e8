//! RMSNorm on the device.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_longlong, c_void};

use candle_core::Tensor;

use super::{Dtype, Stream, create, launch, read, row_sums, write};
use crate::error::Result;
use crate::rms_norm::RmsNormOutput;

const OP: &str = "rms_norm";

unsafe extern "C" {
    fn er_rms_norm(
        y: *mut c_void,
        scale: *mut c_void,
        x: *const c_void,
        weight: *const c_void,
        rows: c_longlong,
        width: c_int,
        eps: f32,
        dtype: Dtype,
        weight_dtype: Dtype,
        stream: Stream,
    ) -> c_int;
    fn er_rms_norm_recompute(
        y: *mut c_void,
        x: *const c_void,
        weight: *const c_void,
        scale: *const c_void,
        rows: c_longlong,
        width: c_int,
        dtype: Dtype,
        weight_dtype: Dtype,
        stream: Stream,
    ) -> c_int;
    fn er_rms_norm_backward(
        dx: *mut c_void,
        x: *const c_void,
        weight: *const c_void,
        scale: *const c_void,
        dy: *const c_void,
        rows: c_longlong,
        width: c_int,
        dtype: Dtype,
        weight_dtype: Dtype,
        stream: Stream,
    ) -> c_int;
    fn er_rms_norm_weight(
        parts: *mut c_void,
        x: *const c_void,
        scale: *const c_void,
        dy: *const c_void,
        rows: c_longlong,
        width: c_int,
        part_rows: c_int,
        dtype: Dtype,
        stream: Stream,
    ) -> c_int;
}

pub(crate) fn forward(
    x: &Tensor,
    weight: &Tensor,
    eps: f64,
    (rows, width): (usize, usize),
) -> Result<RmsNormOutput> {
    let (device, stream) = (x.device(), Stream::of(x)?);
    let (x, w) = (read(x, OP)?.expect_float()?, read(weight, OP)?.expect_float()?);
    let (n, m) = (rows as c_longlong, width as c_int);
    let mut scale = None;
    let y = create(device, (rows, width), x.dtype, OP, |y| {
        let made = create(device, (rows, 1), Dtype::F32, OP, |scale| match rows {
            0 => Ok(()),
            _ => launch!(
                OP,
                er_rms_norm(y, scale, x.ptr, w.ptr, n, m, eps as f32, x.dtype, w.dtype, stream)
            ),
        })?;
        scale = Some(made);
        Ok(())
    })?;
    let scale = scale.ok_or_else(|| super::buffer::write_failed(OP))?;
    Ok(RmsNormOutput { y, scale })
}

pub(crate) fn recompute(
    x: &Tensor,
    weight: &Tensor,
    scale: &Tensor,
    (rows, width): (usize, usize),
) -> Result<Tensor> {
    let (device, stream) = (x.device(), Stream::of(x)?);
    let (x, w) = (read(x, OP)?.expect_float()?, read(weight, OP)?.expect_float()?);
    let scale = read(scale, OP)?.expect_dtype(Dtype::F32)?;
    let (n, m) = (rows as c_longlong, width as c_int);
    create(device, (rows, width), x.dtype, OP, |y| match rows {
        0 => Ok(()),
        _ => {
            launch!(
                OP,
                er_rms_norm_recompute(y, x.ptr, w.ptr, scale.ptr, n, m, x.dtype, w.dtype, stream)
            )
        }
    })
}

pub(crate) fn backward(
    x: &Tensor,
    weight: &Tensor,
    scale: &Tensor,
    dy: &Tensor,
    dx: &Tensor,
    d_weight: Option<&Tensor>,
    (rows, width): (usize, usize),
) -> Result<()> {
    if rows == 0 {
        return Ok(());
    }
    let (device, stream) = (x.device(), Stream::of(x)?);
    let (x, w) = (read(x, OP)?.expect_float()?, read(weight, OP)?.expect_float()?);
    let (scale, dy) =
        (read(scale, OP)?.expect_dtype(Dtype::F32)?, read(dy, OP)?.expect_dtype(x.dtype)?);
    let (n, m) = (rows as c_longlong, width as c_int);
    write([(dx, x.dtype)], OP, |[dx]| {
        launch!(
            OP,
            er_rms_norm_backward(
                dx, x.ptr, w.ptr, scale.ptr, dy.ptr, n, m, x.dtype, w.dtype, stream
            )
        )
    })?;
    let Some(d_weight) = d_weight else { return Ok(()) };
    row_sums::add_over_rows(d_weight, device, (rows, width), OP, |parts, part_rows| {
        launch!(
            OP,
            er_rms_norm_weight(
                parts,
                x.ptr,
                scale.ptr,
                dy.ptr,
                n,
                m,
                part_rows as c_int,
                x.dtype,
                stream
            )
        )
    })
}
