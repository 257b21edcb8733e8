//! Gather, scatter-add and dropout on the device.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_longlong, c_void};

use candle_core::{Device, Tensor};

use super::{Dtype, Stream, create, launch, read, upload, write};
use crate::error::Result;

unsafe extern "C" {
    fn er_gather(
        out: *mut c_void,
        table: *const c_void,
        indices: *const c_void,
        rows: c_longlong,
        width: c_int,
        dtype: Dtype,
        table_dtype: Dtype,
        stream: Stream,
    ) -> c_int;
    fn er_scatter(
        table: *mut c_void,
        entries: *const c_void,
        first: *const c_void,
        order: *const c_void,
        rows: *const c_void,
        count: c_int,
        width: c_int,
        dtype: Dtype,
        rows_dtype: Dtype,
        stream: Stream,
    ) -> c_int;
    fn er_dropout(
        y: *mut c_void,
        x: *const c_void,
        keys: *const c_void,
        rows: c_longlong,
        width: c_int,
        threshold: u32,
        scale: f32,
        keep: f32,
        dtype: Dtype,
        stream: Stream,
    ) -> c_int;
}

/// Rows `indices` of `table`, which are in range, as `dtype`, or in the table's dtype.
pub(crate) fn gather(
    table: &Tensor,
    indices: &[usize],
    dtype: Option<Dtype>,
    op: &'static str,
) -> Result<Tensor> {
    let (_, width) = table.dims2()?;
    let (device, stream) = (table.device(), Stream::of(table)?);
    let table = read(table, op)?.expect_float()?;
    let dtype = dtype.unwrap_or(table.dtype);
    let shape = (indices.len(), width);
    if indices.is_empty() || width == 0 {
        return create(device, shape, dtype, op, |_| Ok(()));
    }
    let rows = indices.len() as c_longlong;
    let indices = upload(indices, device, op)?;
    let at = read(&indices, op)?;
    create(device, shape, dtype, op, |out| {
        launch!(
            op,
            er_gather(out, table.ptr, at.ptr, rows, width as c_int, dtype, table.dtype, stream)
        )
    })
}

/// Adds row `i` of `rows` to row `indices[i]` of `table`, in the order of `i`.
pub(crate) fn scatter_add(
    table: &Tensor,
    indices: &[usize],
    rows: &Tensor,
    op: &'static str,
) -> Result<()> {
    let (_, width) = table.dims2()?;
    if indices.is_empty() || width == 0 {
        return Ok(());
    }
    let (device, stream, dtype) = (table.device(), Stream::of(table)?, Dtype::of(table, op)?);
    let rows = read(rows, op)?.expect_float()?;
    let Segments { entries, first, order } = Segments::of(indices);
    let count = entries.len() as c_int;
    let [entries, first, order] = [entries, first, order].map(|list| upload(&list, device, op));
    let (entries, first, order) = (entries?, first?, order?);
    let (entries, first, order) = (read(&entries, op)?, read(&first, op)?, read(&order, op)?);
    write([(table, dtype)], op, |[table]| {
        launch!(
            op,
            er_scatter(
                table,
                entries.ptr,
                first.ptr,
                order.ptr,
                rows.ptr,
                count,
                width as c_int,
                dtype,
                rows.dtype,
                stream
            )
        )
    })
}

/// Rows grouped by target entry, in CSR form.
struct Segments {
    entries: Vec<usize>,
    /// Start of each entry's rows in `order`; entries + 1 values.
    first: Vec<usize>,
    order: Vec<usize>,
}

impl Segments {
    fn of(indices: &[usize]) -> Self {
        let mut order: Vec<usize> = (0..indices.len()).collect();
        order.sort_by_key(|row| indices[*row]);
        let mut segments = Self { entries: Vec::new(), first: Vec::new(), order };
        for (i, row) in segments.order.iter().enumerate() {
            if segments.entries.last() != Some(&indices[*row]) {
                segments.entries.push(indices[*row]);
                segments.first.push(i);
            }
        }
        segments.first.push(indices.len());
        segments
    }
}

/// Parameters of a dropout mask.
pub(crate) struct Drop {
    /// Key of each row, mixed with the site.
    pub(crate) keys: Vec<u64>,
    pub(crate) threshold: u32,
    pub(crate) scale: f32,
}

impl Drop {
    fn upload(&self, device: &Device, op: &'static str) -> Result<Tensor> {
        let halves = |key: &u64| [*key & u64::from(u32::MAX), *key >> 32].map(|half| half as usize);
        upload(&self.keys.iter().flat_map(halves).collect::<Vec<usize>>(), device, op)
    }
}

/// `x · scale` where kept, 0 elsewhere.
pub(crate) fn dropout(x: &Tensor, drop: &Drop, op: &'static str) -> Result<Tensor> {
    let (rows, width) = x.dims2()?;
    let (device, stream, dtype) = (x.device(), Stream::of(x)?, Dtype::of(x, op)?);
    if rows * width == 0 {
        return create(device, (rows, width), dtype, op, |_| Ok(()));
    }
    let keys = drop.upload(device, op)?;
    let (x, keys) = (read(x, op)?, read(&keys, op)?);
    let (rows_, width_) = (rows as c_longlong, width as c_int);
    create(device, (rows, width), dtype, op, |y| {
        launch!(
            op,
            er_dropout(
                y,
                x.ptr,
                keys.ptr,
                rows_,
                width_,
                drop.threshold,
                drop.scale,
                0.0,
                dtype,
                stream
            )
        )
    })
}

/// Adds `dy · scale` to `dx` where kept.
pub(crate) fn dropout_backward(
    dy: &Tensor,
    drop: &Drop,
    dx: &Tensor,
    op: &'static str,
) -> Result<()> {
    let (rows, width) = dy.dims2()?;
    if rows * width == 0 {
        return Ok(());
    }
    let (stream, dtype) = (Stream::of(dy)?, Dtype::of(dy, op)?);
    let keys = drop.upload(dy.device(), op)?;
    let (dy, keys) = (read(dy, op)?.expect_float()?, read(&keys, op)?);
    let (rows, width) = (rows as c_longlong, width as c_int);
    write([(dx, dtype)], op, |[dx]| {
        launch!(
            op,
            er_dropout(
                dx,
                dy.ptr,
                keys.ptr,
                rows,
                width,
                drop.threshold,
                drop.scale,
                1.0,
                dtype,
                stream
            )
        )
    })
}
