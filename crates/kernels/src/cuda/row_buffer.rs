//! Row buffers on the device.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_longlong, c_void};

use candle_core::Tensor;

use super::{Dtype, Stream, create, launch, lookup, read, write_all};
use crate::error::{Error, Result};
use crate::memory;

unsafe extern "C" {
    fn er_row_buffer_push(
        to: *const *mut c_void,
        from: *const *const c_void,
        bytes: *const c_longlong,
        count: c_int,
        stream: Stream,
    ) -> c_int;
}

/// Copies per launch.
const MAX_COPIES: usize = 16;

/// Rows of one width, in the dtype of the first ones pushed, with which they are allocated.
pub(crate) struct DeviceRows {
    /// (capacity, width); the first `len` rows are used.
    data: Tensor,
    len: usize,
}

impl DeviceRows {
    /// An empty buffer for `capacity` rows like those of `like`.
    pub(crate) fn new(capacity: usize, like: &Tensor, op: &'static str) -> Result<Self> {
        let shape = (capacity.max(like.dims()[0]).max(1), like.dims()[1]);
        let data = create(like.device(), shape, Dtype::of(like, op)?, op, |_| Ok(()))?;
        Ok(Self { data, len: 0 })
    }

    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }

    pub(crate) fn count(&self) -> usize {
        self.len
    }

    /// Reserves space for `new` more rows, doubling the capacity if needed.
    fn reserve(&mut self, new: usize, op: &'static str) -> Result<()> {
        let (capacity, width) = self.data.dims2()?;
        if self.len + new > capacity {
            let (shape, dtype) = ((2 * capacity).max(self.len + new), Dtype::of(&self.data, op)?);
            let values = create(self.data.device(), (shape, width), dtype, op, |_| Ok(()))?;
            memory::copy_rows(&values, 0, &self.data, 0..self.len)?;
            self.data = values;
        }
        Ok(())
    }

    /// Rows `indices`, which are in range.
    pub(crate) fn gather(&self, indices: &[usize], op: &'static str) -> Result<Tensor> {
        lookup::gather(&self.data, indices, None, op)
    }
}

/// Appends rows to several buffers; the widths match.
pub(crate) fn push_all(
    mut pushes: Vec<(&mut DeviceRows, &Tensor)>,
    op: &'static str,
) -> Result<()> {
    for (buffer, rows) in &mut pushes {
        buffer.reserve(rows.dims()[0], op)?;
    }
    for pushes in pushes.chunks_mut(MAX_COPIES) {
        push_some(pushes, op)?;
    }
    Ok(())
}

/// [`push_all`] in one launch, with capacity reserved.
fn push_some(pushes: &mut [(&mut DeviceRows, &Tensor)], op: &'static str) -> Result<()> {
    let Some((_, first)) = pushes.first() else { return Ok(()) };
    let stream = Stream::of(first)?;
    let values: Result<Vec<_>> =
        pushes.iter().map(|(_, rows)| read(rows, op)?.expect_float()).collect();
    let values = values?;
    let mut buffers = Vec::with_capacity(pushes.len());
    for ((buffer, _), values) in pushes.iter().zip(&values) {
        buffers.push((&buffer.data, values.dtype));
    }
    let from: Vec<*const c_void> = values.iter().map(|values| values.ptr).collect();
    let size = |((_, rows), (_, dtype)): (&(&mut DeviceRows, &Tensor), &(&Tensor, Dtype))| {
        (rows.elem_count() * dtype.bytes()) as c_longlong
    };
    let bytes: Vec<c_longlong> = pushes.iter().zip(&buffers).map(size).collect();
    let offsets = pushes
        .iter()
        .zip(&buffers)
        .map(|((buffer, _), (values, dtype))| buffer.len * values.dims()[1] * dtype.bytes());
    let offsets: Vec<usize> = offsets.collect();
    let count = c_int::try_from(pushes.len()).map_err(|_| Error::DeviceStorage { op })?;
    if bytes.iter().any(|bytes| *bytes > 0) {
        write_all(&buffers, op, |to| {
            let to = to.iter().zip(&offsets).map(|(to, offsets)| to.wrapping_byte_add(*offsets));
            let to: Vec<*mut c_void> = to.collect();
            launch!(
                op,
                er_row_buffer_push(to.as_ptr(), from.as_ptr(), bytes.as_ptr(), count, stream)
            )
        })?;
    }
    drop(values);
    for (buffer, rows) in pushes {
        buffer.len += rows.dims()[0];
    }
    Ok(())
}
