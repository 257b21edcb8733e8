//! A tensor's numbers as slices: to read, to make, and to change in place.

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

mod address;

pub use address::{Mark, address};

/// Numbers of one task.
const CHUNK: usize = 1 << 16;

/// Read access to the numbers of a contiguous `f32` tensor on the CPU.
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

/// The numbers of `tensor`, in row-major order.
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

/// A CPU tensor that takes over `values`.
///
/// # Errors
/// The number of values is not that of the shape.
pub fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> Result<Tensor> {
    Ok(Tensor::from_vec(values, shape.into(), &Device::Cpu)?)
}

/// An f32 tensor of zeros on `device`.
///
/// # Errors
/// There is no room for it.
pub fn zeros(shape: &[usize], device: &Device) -> Result<Tensor> {
    #[cfg(device)]
    if crate::cuda::is_device(device) {
        return crate::cuda::memory::zeros(device, shape, crate::cuda::Dtype::F32, "zeros");
    }
    check(device.is_cpu(), "zeros", || "this build has no such device".into())?;
    tensor(parallel::filled(shape.iter().product(), 1, |_, _| ()), shape)
}

/// Zeros of a tensor's shape, where it is and held as it is.
///
/// # Errors
/// As [`zeros`].
pub fn zeros_like(tensor: &Tensor) -> Result<Tensor> {
    on_device!(tensor, memory::zeros_as(tensor, tensor.dims(), "zeros"));
    zeros(tensor.dims(), tensor.device())
}

/// Zeros of so many rows of a matrix's width, where it is and held as it is.
///
/// # Errors
/// As [`zeros`].
pub fn zero_rows(rows: usize, like: &Tensor) -> Result<Tensor> {
    let shape = [rows, like.dims2()?.1];
    on_device!(like, memory::zeros_as(like, &shape, "zeros"));
    zeros(&shape, like.device())
}

/// The tensor on `device`: itself if it is there.
///
/// # Errors
/// There is no room for it.
pub fn to_device(tensor: &Tensor, device: &Device) -> Result<Tensor> {
    // CUDA has no memory of no bytes, and candle asks for it.
    #[cfg(device)]
    if tensor.elem_count() == 0 && crate::cuda::is_device(device) {
        let dtype = crate::cuda::Dtype::of(tensor, "to_device")?;
        return crate::cuda::memory::zeros(device, tensor.shape(), dtype, "to_device");
    }
    let leaves = !tensor.device().is_cpu() && !device.same_device(tensor.device());
    match leaves && tensor.dtype().is_float() {
        // candle's own copy takes the whole of what a part lies in.
        true => Ok(copy(tensor)?.to_device(device)?),
        false => Ok(tensor.to_device(device)?),
    }
}

/// The numbers of a tensor in the host's memory, as f32: itself if it is there. Of a part of a device's tensor the
/// part alone is fetched.
///
/// # Errors
/// The tensor is not contiguous, or there is no room.
pub fn fetched(tensor: &Tensor) -> Result<Tensor> {
    if tensor.device().is_cpu() {
        return Ok(tensor.to_dtype(DType::F32)?);
    }
    Ok(copy(tensor)?.to_device(&Device::Cpu)?.to_dtype(DType::F32)?)
}

/// Puts numbers of the host's memory into an f32 tensor, in place.
///
/// # Errors
/// They are not as many, or the tensor is not contiguous `f32`.
pub fn set(to: &Tensor, numbers: &[f32]) -> Result<()> {
    const OP: &str = "set";
    check(to.elem_count() == numbers.len(), OP, || "the numbers differ in count".into())?;
    if to.device().is_cpu() {
        return update(to, OP, |to| to.copy_from_slice(numbers));
    }
    overwrite(to, &Tensor::from_slice(numbers, to.shape(), to.device())?)
}

/// A copy of a tensor, in memory of its own.
///
/// # Errors
/// [`Error::Storage`] unless the tensor is contiguous `f32` on the CPU.
pub fn copy(from: &Tensor) -> Result<Tensor> {
    on_device!(from, memory::copy(from, "copy"));
    let numbers = floats(from, "copy")?;
    let copy = parallel::filled(numbers.len(), 1, |first, to| {
        to.copy_from_slice(&numbers[first..first + to.len()]);
    });
    tensor(copy, from.shape())
}

/// Changes the numbers of `tensor` in place, for every tensor that shares its storage.
///
/// # Errors
/// [`Error::Storage`] unless the tensor is contiguous `f32` on the CPU.
pub fn update(tensor: &Tensor, op: &'static str, act: impl FnOnce(&mut [f32])) -> Result<()> {
    // The check comes first, so that `act` always runs when this returns `Ok`.
    drop(floats(tensor, op)?);
    Ok(tensor.inplace_op1(&Update { name: op, act: Cell::new(Some(act)) })?)
}

/// The same numbers in another shape, in the same memory.
///
/// # Errors
/// The shapes differ in size.
pub fn reshaped(tensor: &Tensor, shape: (usize, usize)) -> Result<Tensor> {
    Ok(tensor.reshape(shape)?)
}

/// Some rows of a matrix, or numbers of a vector, in memory of their own.
///
/// # Errors
/// The rows are not there, or the tensor is not contiguous `f32` on the CPU.
pub fn rows(matrix: &Tensor, rows: Range<usize>) -> Result<Tensor> {
    // candle's own copy takes the whole of what the rows lie in.
    copy(&matrix.narrow(0, rows.start, rows.len())?)
}

/// Copies the rows `range` of `from` over those of `to` from the row `first` on, in place.
///
/// # Errors
/// The widths differ, or the rows are not there.
pub fn copy_rows(to: &Tensor, first: usize, from: &Tensor, range: Range<usize>) -> Result<()> {
    const OP: &str = "copy_rows";
    let ((to_rows, width), (from_rows, from_width)) = (to.dims2()?, from.dims2()?);
    let fits = range.start <= range.end
        && range.end <= from_rows
        && first + range.len() <= to_rows
        && width == from_width;
    check(fits, OP, || format!("rows {range:?} do not fit behind row {first}"))?;
    on_device!(to, memory::copy_rows(to, first, from, range, OP));
    let from = floats(from, OP)?;
    update(to, OP, |to| {
        let rows = &from[range.start * width..range.end * width];
        to[first * width..][..rows.len()].copy_from_slice(rows);
    })
}

/// Matrices of the same width, one below the other.
///
/// # Errors
/// The widths differ.
pub fn stacked(matrices: &[&Tensor]) -> Result<Tensor> {
    Ok(Tensor::cat(matrices, 0)?)
}

/// The same numbers in one tensor's memory, one tensor behind the other.
///
/// # Errors
/// The tensors differ in more than their number of rows, or there is no room.
pub fn end_to_end(tensors: &[&Tensor]) -> Result<Vec<Tensor>> {
    let (whole, mut first) = (stacked(tensors)?, 0);
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
    on_device!(to, memory::blend(to, from, (1.0, 1.0), OP));
    let from = floats(from, OP)?;
    update(to, OP, |to| {
        to.par_chunks_mut(CHUNK)
            .zip(from.par_chunks(CHUNK))
            .for_each(|(to, from)| crate::math::add(to, from));
    })
}

/// `to = share · from + (1 - share) · to`, in place.
///
/// # Errors
/// The tensors differ in size, or one is not contiguous `f32` on the CPU.
pub fn blend(to: &Tensor, from: &Tensor, share: f64) -> Result<()> {
    const OP: &str = "blend";
    check(to.elem_count() == from.elem_count(), OP, || "the tensors differ in size".into())?;
    let (share, rest) = (share as f32, (1.0 - share) as f32);
    on_device!(to, memory::blend(to, from, (share, rest), OP));
    let from = floats(from, OP)?;
    update(to, OP, |to| {
        to.par_chunks_mut(CHUNK).zip(from.par_chunks(CHUNK)).for_each(|(to, from)| {
            for (to, from) in to.iter_mut().zip(from) {
                *to = share * from + rest * *to;
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

/// The sum of a tensor's squares: of chunks in f32, their sum in f64, in an order that depends on the length
/// alone.
///
/// # Errors
/// [`Error::Storage`] unless the tensor is contiguous `f32` on the CPU.
pub fn square_sum_of(tensor: &Tensor) -> Result<f64> {
    const OP: &str = "square_sum";
    on_device!(tensor, memory::squares(tensor, OP));
    Ok(sum_of_squares(&floats(tensor, OP)?))
}

/// The sum of the squares, chunk by chunk in f64, in an order that depends on the length alone.
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
