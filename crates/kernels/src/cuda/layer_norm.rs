//! LayerNorm on the device.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_longlong, c_void};

use candle_core::Tensor;

use super::{Dtype, Stream, create, launch, read, row_sums, write};
use crate::error::Result;
use crate::layer_norm::{Affine, LayerNormOutput};

const OP: &str = "layer_norm";

unsafe extern "C" {
    fn er_layer_norm(
        y: *mut c_void,
        stats: *mut c_void,
        x: *const c_void,
        weight: *const c_void,
        bias: *const c_void,
        rows: c_longlong,
        width: c_int,
        eps: f32,
        dtype: Dtype,
        weight_dtype: Dtype,
        stream: Stream,
    ) -> c_int;
    fn er_layer_norm_recompute(
        y: *mut c_void,
        x: *const c_void,
        weight: *const c_void,
        bias: *const c_void,
        stats: *const c_void,
        rows: c_longlong,
        width: c_int,
        dtype: Dtype,
        weight_dtype: Dtype,
        stream: Stream,
    ) -> c_int;
    fn er_layer_norm_backward(
        dx: *mut c_void,
        x: *const c_void,
        weight: *const c_void,
        stats: *const c_void,
        dy: *const c_void,
        rows: c_longlong,
        width: c_int,
        dtype: Dtype,
        weight_dtype: Dtype,
        stream: Stream,
    ) -> c_int;
    fn er_layer_norm_weight(
        parts: *mut c_void,
        x: *const c_void,
        stats: *const c_void,
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
    affine: Affine<&Tensor>,
    eps: f64,
    (rows, width): (usize, usize),
) -> Result<LayerNormOutput> {
    let (device, stream, x) = (x.device(), Stream::of(x)?, read(x, OP)?.expect_float()?);
    let w = read(affine.weight, OP)?.expect_float()?;
    let b = read(affine.bias, OP)?.expect_dtype(w.dtype)?;
    let (n, m) = (rows as c_longlong, width as c_int);
    let mut stats = None;
    let y = create(device, (rows, width), x.dtype, OP, |y| {
        let made = create(device, (rows, 2), Dtype::F32, OP, |stats| match rows {
            0 => Ok(()),
            _ => launch!(
                OP,
                er_layer_norm(
                    y, stats, x.ptr, w.ptr, b.ptr, n, m, eps as f32, x.dtype, w.dtype, stream
                )
            ),
        })?;
        stats = Some(made);
        Ok(())
    })?;
    let stats = stats.ok_or_else(|| super::buffer::write_failed(OP))?;
    Ok(LayerNormOutput { y, stats })
}

pub(crate) fn recompute(
    x: &Tensor,
    affine: Affine<&Tensor>,
    stats: &Tensor,
    (rows, width): (usize, usize),
) -> Result<Tensor> {
    let (device, stream, x) = (x.device(), Stream::of(x)?, read(x, OP)?.expect_float()?);
    let w = read(affine.weight, OP)?.expect_float()?;
    let b = read(affine.bias, OP)?.expect_dtype(w.dtype)?;
    let stats = read(stats, OP)?.expect_dtype(Dtype::F32)?;
    let (n, m) = (rows as c_longlong, width as c_int);
    create(device, (rows, width), x.dtype, OP, |y| match rows {
        0 => Ok(()),
        _ => launch!(
            OP,
            er_layer_norm_recompute(
                y, x.ptr, w.ptr, b.ptr, stats.ptr, n, m, x.dtype, w.dtype, stream
            )
        ),
    })
}

pub(crate) fn backward(
    x: &Tensor,
    affine: Affine<&Tensor>,
    stats: &Tensor,
    dy: &Tensor,
    dx: &Tensor,
    d_weight: Option<&Tensor>,
    (rows, width): (usize, usize),
) -> Result<()> {
    if rows == 0 {
        return Ok(());
    }
    let (device, stream) = (x.device(), Stream::of(x)?);
    let (x, w) = (read(x, OP)?.expect_float()?, read(affine.weight, OP)?.expect_float()?);
    let (stats, dy) =
        (read(stats, OP)?.expect_dtype(Dtype::F32)?, read(dy, OP)?.expect_dtype(x.dtype)?);
    let (n, m) = (rows as c_longlong, width as c_int);
    write([(dx, x.dtype)], OP, |[dx]| {
        launch!(
            OP,
            er_layer_norm_backward(
                dx, x.ptr, w.ptr, stats.ptr, dy.ptr, n, m, x.dtype, w.dtype, stream
            )
        )
    })?;
    let Some(d_weight) = d_weight else { return Ok(()) };
    row_sums::add_over_rows(d_weight, device, (rows, width), OP, |parts, part_rows| {
        launch!(
            OP,
            er_layer_norm_weight(
                parts,
                x.ptr,
                stats.ptr,
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
