//! Tensors as slices: reading, creating and in-place updates.

use std::cell::Cell;
use std::ops::{Deref, Range};

use candle_core::{
    CpuStorage, DType, Device, InplaceOp1, Layout, Shape, Storage, StorageRef, Tensor,
};

use rayon::prelude::*;

use crate::device::on_device;
use crate::error::{Error, Result, check};
use crate::math::square_sum;
use crate::parallel;

mod data_ptr;

pub use data_ptr::{StreamEvent, data_ptr};

/// Elements per task.
const CHUNK: usize = 1 << 16;

/// Read access to a contiguous `f32` tensor on the CPU.
pub struct Floats<'a> {
    storage: StorageRef<'a>,
    start: usize,
    len: usize,
}

impl Deref for Floats<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(values)) => &values[self.start..self.start + self.len],
            // `floats` has checked the storage.
            _ => &[],
        }
    }
}

/// The elements of `tensor`, in row-major order.
///
/// # Errors
/// [`Error::Storage`] unless the tensor is contiguous `f32` on the CPU.
pub fn floats<'a>(tensor: &'a Tensor, op: &'static str) -> Result<Floats<'a>> {
    let (storage, layout) = tensor.storage_and_layout();
    let Some((start, end)) = layout.contiguous_offsets() else {
        return Err(Error::Storage { op });
    };
    match &*storage {
        Storage::Cpu(CpuStorage::F32(_)) => Ok(Floats { storage, start, len: end - start }),
        _ => Err(Error::Storage { op }),
    }
}

/// A CPU tensor that takes ownership of `values`.
///
/// # Errors
/// The number of values differs from the shape's.
pub fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> Result<Tensor> {
    Ok(Tensor::from_vec(values, shape.into(), &Device::Cpu)?)
}

/// An f32 tensor of zeros on `device`.
///
/// # Errors
/// Out of memory.
pub fn zeros(shape: &[usize], device: &Device) -> Result<Tensor> {
    #[cfg(device)]
    if crate::cuda::is_device(device) {
        return crate::cuda::memory::zeros(device, shape, crate::cuda::Dtype::F32, "zeros");
    }
    check(device.is_cpu(), "zeros", || "this build does not support the device".into())?;
    tensor(parallel::zeros(shape.iter().product()), shape)
}

/// Zeros with the shape, device and dtype of `tensor`.
///
/// # Errors
/// As [`zeros`].
pub fn zeros_like(tensor: &Tensor) -> Result<Tensor> {
    on_device!(tensor, memory::zeros_shaped_like(tensor, tensor.dims(), "zeros"));
    zeros(tensor.dims(), tensor.device())
}

/// Zeros (elements) on `device` for all `tensors`, one after the other, and a view of the shape of each.
///
/// # Errors
/// As [`zeros`].
pub fn flat_zeros<'a>(
    tensors: impl Iterator<Item = &'a Tensor>,
    device: &Device,
) -> Result<(Tensor, Vec<Tensor>)> {
    let tensors: Vec<&Tensor> = tensors.collect();
    let elements = tensors.iter().map(|tensor| tensor.elem_count()).sum();
    let buffer = zeros(&[elements], device)?;
    let mut first = 0;
    let view = |tensor: &Tensor| {
        let view = buffer.narrow(0, first, tensor.elem_count())?.reshape(tensor.shape())?;
        first += tensor.elem_count();
        Ok(view)
    };
    let views = tensors.into_iter().map(view).collect::<Result<_>>()?;
    Ok((buffer, views))
}

/// `rows` rows of zeros with the width, device and dtype of `like`.
///
/// # Errors
/// As [`zeros`].
pub fn zero_rows(rows: usize, like: &Tensor) -> Result<Tensor> {
    let shape = [rows, like.dims2()?.1];
    on_device!(like, memory::zeros_shaped_like(like, &shape, "zeros"));
    zeros(&shape, like.device())
}

/// The tensor on `device`; no copy if it is already there.
///
/// # Errors
/// Out of memory.
pub fn to_device(tensor: &Tensor, device: &Device) -> Result<Tensor> {
    // CUDA cannot allocate 0 bytes, and candle tries to.
    #[cfg(device)]
    if tensor.elem_count() == 0 && crate::cuda::is_device(device) {
        let dtype = crate::cuda::Dtype::of(tensor, "to_device")?;
        return crate::cuda::memory::zeros(device, tensor.shape(), dtype, "to_device");
    }
    let leaves = !tensor.device().is_cpu() && !device.same_device(tensor.device());
    match leaves && tensor.dtype().is_float() {
        // candle's own copy transfers the whole storage of a view.
        true => Ok(copy(tensor)?.to_device(device)?),
        false => Ok(tensor.to_device(device)?),
    }
}

/// The tensor in `dtype`; no copy if it already has it.
///
/// # Errors
/// Out of memory, or an unsupported dtype.
pub fn to_dtype(tensor: &Tensor, dtype: DType) -> Result<Tensor> {
    // CUDA cannot allocate 0 bytes, and candle tries to.
    #[cfg(device)]
    if tensor.elem_count() == 0 && crate::cuda::on(tensor) {
        let dtype = crate::cuda::Dtype::named(dtype, "to_dtype")?;
        return crate::cuda::memory::zeros(tensor.device(), tensor.shape(), dtype, "to_dtype");
    }
    Ok(tensor.to_dtype(dtype)?)
}

/// The tensor in host memory, as f32; no copy if it is already there. Of a view only its own elements are
/// transferred.
///
/// # Errors
/// The tensor is not contiguous, or out of memory.
pub fn to_host(tensor: &Tensor) -> Result<Tensor> {
    if tensor.device().is_cpu() {
        return Ok(tensor.to_dtype(DType::F32)?);
    }
    Ok(copy(tensor)?.to_device(&Device::Cpu)?.to_dtype(DType::F32)?)
}

/// Writes host values to an f32 tensor, in place.
///
/// # Errors
/// The lengths differ, or the tensor is not contiguous `f32`.
pub fn write_slice(to: &Tensor, values: &[f32]) -> Result<()> {
    const OP: &str = "write_slice";
    check(to.elem_count() == values.len(), OP, || "the numbers of elements differ".into())?;
    if to.device().is_cpu() {
        return update(to, OP, |to| to.copy_from_slice(values));
    }
    match values.is_empty() {
        true => Ok(()),
        false => overwrite(to, &Tensor::from_slice(values, to.shape(), to.device())?),
    }
}

/// A deep copy of a tensor.
///
/// # Errors
/// [`Error::Storage`] unless the tensor is contiguous `f32` on the CPU.
pub fn copy(from: &Tensor) -> Result<Tensor> {
    on_device!(from, memory::copy(from, "copy"));
    let values = floats(from, "copy")?;
    let copy = parallel::filled(values.len(), |first, to| {
        to.write_copy_of_slice(&values[first..first + to.len()])
    });
    tensor(copy, from.shape())
}

/// Modifies `tensor` in place; all tensors that share its storage change.
///
/// # Errors
/// [`Error::Storage`] unless the tensor is contiguous `f32` on the CPU.
pub fn update(tensor: &Tensor, op: &'static str, act: impl FnOnce(&mut [f32])) -> Result<()> {
    // The check comes first, so that `act` always runs when this returns `Ok`.
    drop(floats(tensor, op)?);
    Ok(tensor.inplace_op1(&Update { name: op, act: Cell::new(Some(act)) })?)
}

/// A view with another shape.
///
/// # Errors
/// The numbers of elements differ.
pub fn reshape(tensor: &Tensor, shape: (usize, usize)) -> Result<Tensor> {
    Ok(tensor.reshape(shape)?)
}

/// A copy of some rows of a matrix, or elements of a vector.
///
/// # Errors
/// The range is out of bounds, or the tensor is not contiguous `f32` on the CPU.
pub fn rows(matrix: &Tensor, rows: Range<usize>) -> Result<Tensor> {
    // candle's own copy takes the whole storage.
    copy(&matrix.narrow(0, rows.start, rows.len())?)
}

/// Copies rows `range` of `from` to `to`, starting at row `first`, in place.
///
/// # Errors
/// The widths differ, or a range is out of bounds.
pub fn copy_rows(to: &Tensor, first: usize, from: &Tensor, range: Range<usize>) -> Result<()> {
    const OP: &str = "copy_rows";
    let ((to_rows, width), (from_rows, from_width)) = (to.dims2()?, from.dims2()?);
    let fits = range.start <= range.end
        && range.end <= from_rows
        && first + range.len() <= to_rows
        && width == from_width;
    check(fits, OP, || format!("rows {range:?} do not fit from row {first} on"))?;
    on_device!(to, memory::copy_rows(to, first, from, range, OP));
    let from = floats(from, OP)?;
    update(to, OP, |to| {
        let rows = &from[range.start * width..range.end * width];
        to[first * width..][..rows.len()].copy_from_slice(rows);
    })
}

/// Concatenates matrices of the same width along the rows.
///
/// # Errors
/// The widths differ.
pub fn concat_rows(matrices: &[&Tensor]) -> Result<Tensor> {
    Ok(Tensor::cat(matrices, 0)?)
}

/// Copies of the tensors as views of one contiguous allocation, in order.
///
/// # Errors
/// The tensors differ in more than their number of rows, or out of memory.
pub fn pack_contiguous(tensors: &[&Tensor]) -> Result<Vec<Tensor>> {
    let (whole, mut first) = (concat_rows(tensors)?, 0);
    let part = |tensor: &&Tensor| {
        let (start, rows) = (first, tensor.dims()[0]);
        first += rows;
        Ok(whole.narrow(0, start, rows)?)
    };
    tensors.iter().map(part).collect()
}

/// `to += from`, in place.
///
/// # Errors
/// The tensors differ in size, or one is not contiguous `f32` on the CPU.
pub fn add(to: &Tensor, from: &Tensor) -> Result<()> {
    const OP: &str = "add";
    check(to.elem_count() == from.elem_count(), OP, || "the tensors differ in size".into())?;
    on_device!(to, memory::axpby(to, from, (1.0, 1.0), OP));
    let from = floats(from, OP)?;
    update(to, OP, |to| {
        to.par_chunks_mut(CHUNK)
            .zip(from.par_chunks(CHUNK))
            .for_each(|(to, from)| crate::math::add(to, from));
    })
}

/// Linear interpolation `to = weight · from + (1 - weight) · to`, in place.
///
/// # Errors
/// The tensors differ in size, or one is not contiguous `f32` on the CPU.
pub fn lerp(to: &Tensor, from: &Tensor, weight: f64) -> Result<()> {
    const OP: &str = "lerp";
    check(to.elem_count() == from.elem_count(), OP, || "the tensors differ in size".into())?;
    let (weight, rest) = (weight as f32, (1.0 - weight) as f32);
    on_device!(to, memory::axpby(to, from, (weight, rest), OP));
    let from = floats(from, OP)?;
    update(to, OP, |to| {
        to.par_chunks_mut(CHUNK).zip(from.par_chunks(CHUNK)).for_each(|(to, from)| {
            for (to, from) in to.iter_mut().zip(from) {
                *to = weight * from + rest * *to;
            }
        });
    })
}

/// `to = from`, in place.
///
/// # Errors
/// The tensors differ in size, or one is not contiguous `f32` on the CPU.
pub fn overwrite(to: &Tensor, from: &Tensor) -> Result<()> {
    const OP: &str = "overwrite";
    check(to.elem_count() == from.elem_count(), OP, || "the tensors differ in size".into())?;
    on_device!(to, memory::overwrite(to, from, OP));
    let from = floats(from, OP)?;
    update(to, OP, |to| to.copy_from_slice(&from))
}

/// `x *= factor`, in place.
///
/// # Errors
/// [`Error::Storage`] unless the tensor is contiguous `f32` on the CPU.
pub fn scale(x: &Tensor, factor: f32) -> Result<()> {
    const OP: &str = "scale";
    on_device!(x, memory::scale(x, factor, OP));
    update(x, OP, |x| x.iter_mut().for_each(|x| *x *= factor))
}

/// Multiplies each row of `x` by its factor, in place.
///
/// # Shapes
/// `x` (rows, width), `factors` (rows).
///
/// # Errors
/// There is not a factor for each row, or [`Error::Storage`] unless the tensor is contiguous `f32` on the CPU.
pub fn scale_rows(x: &Tensor, factors: &[f32]) -> Result<()> {
    const OP: &str = "scale_rows";
    let (rows, width) = x.dims2()?;
    check(factors.len() == rows, OP, || format!("{rows} rows have {} factors", factors.len()))?;
    on_device!(x, memory::scale_rows(x, factors, OP));
    update(x, OP, |x| {
        for (row, factor) in x.chunks_mut(width.max(1)).zip(factors) {
            row.iter_mut().for_each(|x| *x *= factor);
        }
    })
}

/// Squared L2 norm: chunks in f32, their sum in f64, in an order that depends on the length alone.
///
/// # Errors
/// [`Error::Storage`] unless the tensor is contiguous `f32` on the CPU.
pub fn squared_norm(tensor: &Tensor) -> Result<f64> {
    const OP: &str = "squared_norm";
    on_device!(tensor, memory::squared_norm(tensor, OP));
    Ok(sum_of_squares(&floats(tensor, OP)?))
}

/// Sum of squares: chunks in f32, their sum in f64, in an order that depends on the length alone.
pub fn sum_of_squares(values: &[f32]) -> f64 {
    let parts: Vec<f64> =
        values.par_chunks(4096).map(|chunk| f64::from(square_sum(chunk))).collect();
    parts.iter().sum()
}

struct Update<F> {
    name: &'static str,
    act: Cell<Option<F>>,
}

impl<F: FnOnce(&mut [f32])> InplaceOp1 for Update<F> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        if let (CpuStorage::F32(values), Some((start, end)), Some(act)) =
            (storage, layout.contiguous_offsets(), self.act.take())
        {
            act(&mut values[start..end]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
