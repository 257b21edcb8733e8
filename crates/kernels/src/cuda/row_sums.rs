//! Sums over rows, in an order that depends on the number of rows alone.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};

use candle_core::{Device, Tensor};

use super::{Dtype, Stream, create, launch, read, write};
use crate::error::Result;

/// Rows summed per thread.
const PART_ROWS: usize = 64;

unsafe extern "C" {
    fn er_add_parts(
        to: *mut c_void,
        parts: *const c_void,
        count: c_int,
        width: c_int,
        stream: Stream,
    ) -> c_int;
}

/// Accumulates a sum over `rows` in the f32 tensor `to` of `width` elements. `partial(parts, part_rows)` launches a
/// kernel that writes the sum of every `part_rows` rows to (parts, width) f32.
pub(crate) fn add_over_rows(
    to: &Tensor,
    device: &Device,
    (rows, width): (usize, usize),
    op: &'static str,
    partial: impl FnOnce(*mut c_void, usize) -> Result<()>,
) -> Result<()> {
    let count = rows.div_ceil(PART_ROWS);
    if count * width == 0 {
        return Ok(());
    }
    let stream = Stream::of(to)?;
    let parts = create(device, (count, width), Dtype::F32, op, |parts| partial(parts, PART_ROWS))?;
    let parts = read(&parts, op)?;
    write([(to, Dtype::F32)], op, |[to]| {
        launch!(op, er_add_parts(to, parts.ptr, count as c_int, width as c_int, stream))
    })
}
