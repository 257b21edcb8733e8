//! Embedding lookup and its gradient.

use candle_core::Tensor;

use crate::device::on_device;
use crate::error::{Result, check};
use crate::math::add;
use crate::memory::{floats, tensor, update};
use crate::panels::bf16;
use crate::parallel;
use crate::precision::Precision;

const OP: &str = "embedding";

/// The rows `indices` of `table`.
///
/// # Shapes
/// `table` (entries, width); returns (indices, width).
///
/// # Errors
/// An index is out of range, or the table is not contiguous `f32` on the CPU.
pub fn gather(table: &Tensor, indices: &[usize]) -> Result<Tensor> {
    let (entries, width) = table.dims2()?;
    check_indices(indices, entries)?;
    on_device!(table, lookup::gather(table, indices, None, OP));
    gathered(&floats(table, OP)?, width, indices)
}

/// [`gather`] from a slice.
pub(crate) fn gathered(table: &[f32], width: usize, indices: &[usize]) -> Result<Tensor> {
    check_indices(indices, table.len() / width.max(1))?;
    let out = parallel::filled_rows(indices.len(), width, |row, out| {
        out.write_copy_of_slice(&table[indices[row] * width..][..width])
    });
    tensor(out, (indices.len(), width))
}

/// [`gather`] for a decoder in `precision`: in bf16 each element is rounded to bf16, and on a device stored as bf16.
///
/// # Errors
/// As [`gather`].
pub fn gather_cast(table: &Tensor, indices: &[usize], precision: Precision) -> Result<Tensor> {
    check_indices(indices, table.dims2()?.0)?;
    on_device!(
        table,
        lookup::gather(table, indices, crate::cuda::Dtype::of_activations(precision), OP)
    );
    let rows = gather(table, indices)?;
    if precision == Precision::Bf16 {
        update(&rows, OP, |rows| parallel::rows(rows, 1, |_, rows| bf16::round(rows)))?;
    }
    Ok(rows)
}

/// Adds row `i` of `rows` to row `indices[i]` of `table`.
///
/// # Shapes
/// `table` (entries, width), `rows` (indices, width).
///
/// # Errors
/// As [`gather`].
pub fn scatter_add(table: &Tensor, indices: &[usize], rows: &Tensor) -> Result<()> {
    let (entries, width) = table.dims2()?;
    check_indices(indices, entries)?;
    check(rows.dims() == [indices.len(), width], OP, || {
        "the shape of the rows differs from (indices, width)".into()
    })?;
    on_device!(table, lookup::scatter_add(table, indices, rows, OP));
    let rows = floats(rows, OP)?;
    update(table, OP, |table| {
        for (index, row) in indices.iter().zip(rows.chunks(width)) {
            add(&mut table[index * width..(index + 1) * width], row);
        }
    })
}

pub(crate) fn check_indices(indices: &[usize], entries: usize) -> Result<()> {
    let outside = indices.iter().find(|index| **index >= entries);
    check(outside.is_none(), OP, || {
        format!("index {} is out of range for {entries} entries", outside.unwrap_or(&0))
    })
}
