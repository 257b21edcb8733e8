//! Tables' rows on the device.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_longlong, c_void};

use candle_core::Tensor;

use super::{Dtype, Stream, create, launch, lookup, read, write_all};
use crate::error::{Error, Result};
use crate::memory;

unsafe extern "C" {
    fn er_table_push(
        to: *const *mut c_void,
        from: *const *const c_void,
        bytes: *const c_longlong,
        count: c_int,
        stream: Stream,
    ) -> c_int;
}

/// Tables that a launch serves.
const TOGETHER: usize = 16;

/// Rows of one width, held as those that came first. Its memory is asked for with the first of them.
pub(crate) struct Rows {
    /// (room, width); the first `used` are rows.
    numbers: Tensor,
    used: usize,
}

impl Rows {
    /// Room for `room` rows, as those of `like`.
    pub(crate) fn new(room: usize, like: &Tensor, op: &'static str) -> Result<Self> {
        let shape = (room.max(like.dims()[0]).max(1), like.dims()[1]);
        let numbers = create(like.device(), shape, Dtype::of(like, op)?, op, |_| Ok(()))?;
        Ok(Self { numbers, used: 0 })
    }

    pub(crate) fn clear(&mut self) {
        self.used = 0;
    }

    pub(crate) fn count(&self) -> usize {
        self.used
    }

    /// Makes room for so many rows behind the others; where there is none, in memory of twice the size.
    fn make_room(&mut self, new: usize, op: &'static str) -> Result<()> {
        let (room, width) = self.numbers.dims2()?;
        if self.used + new > room {
            let (shape, dtype) = ((2 * room).max(self.used + new), Dtype::of(&self.numbers, op)?);
            let numbers = create(self.numbers.device(), (shape, width), dtype, op, |_| Ok(()))?;
            memory::copy_rows(&numbers, 0, &self.numbers, 0..self.used)?;
            self.numbers = numbers;
        }
        Ok(())
    }

    /// The rows of these numbers, all of which there are.
    pub(crate) fn gather(&self, indices: &[usize], op: &'static str) -> Result<Tensor> {
        lookup::gather(&self.numbers, indices, None, op)
    }
}

/// Puts rows behind those of tables, whose widths they have.
pub(crate) fn push_all(mut pushes: Vec<(&mut Rows, &Tensor)>, op: &'static str) -> Result<()> {
    for (table, rows) in &mut pushes {
        table.make_room(rows.dims()[0], op)?;
    }
    for pushes in pushes.chunks_mut(TOGETHER) {
        push_some(pushes, op)?;
    }
    Ok(())
}

/// As [`push_all`], in one launch, where there is room.
fn push_some(pushes: &mut [(&mut Rows, &Tensor)], op: &'static str) -> Result<()> {
    let Some((_, first)) = pushes.first() else { return Ok(()) };
    let stream = Stream::of(first)?;
    let numbers: Result<Vec<_>> = pushes.iter().map(|(_, rows)| read(rows, op)?.float()).collect();
    let numbers = numbers?;
    let mut tables = Vec::with_capacity(pushes.len());
    for ((table, _), numbers) in pushes.iter().zip(&numbers) {
        tables.push((&table.numbers, numbers.dtype));
    }
    let from: Vec<*const c_void> = numbers.iter().map(|numbers| numbers.at).collect();
    let size = |((_, rows), (_, dtype)): (&(&mut Rows, &Tensor), &(&Tensor, Dtype))| {
        (rows.elem_count() * dtype.bytes()) as c_longlong
    };
    let bytes: Vec<c_longlong> = pushes.iter().zip(&tables).map(size).collect();
    let ahead = pushes
        .iter()
        .zip(&tables)
        .map(|((table, _), (numbers, dtype))| table.used * numbers.dims()[1] * dtype.bytes());
    let ahead: Vec<usize> = ahead.collect();
    let count = c_int::try_from(pushes.len()).map_err(|_| Error::DeviceStorage { op })?;
    if bytes.iter().any(|bytes| *bytes > 0) {
        write_all(&tables, op, |to| {
            let to = to.iter().zip(&ahead).map(|(to, ahead)| to.wrapping_byte_add(*ahead));
            let to: Vec<*mut c_void> = to.collect();
            launch!(op, er_table_push(to.as_ptr(), from.as_ptr(), bytes.as_ptr(), count, stream))
        })?;
    }
    drop(numbers);
    for (table, rows) in pushes {
        table.used += rows.dims()[0];
    }
    Ok(())
}
