//! GEMM under CPU emulation: the CPU's, with operands converted to f32.
#![allow(unsafe_code)]

use candle_core::Device;
use half::bf16;
use half::slice::HalfFloatSliceExt;

use super::Dtype;
use super::gemm::{Addend, Algorithm, Destination, GemmOptions, Operand};
use crate::error::Result;
use crate::matmul::{Threads, View, ViewMut, WriteMode};

/// See [`super::gemm::gemm`], which has checked the shapes.
pub(super) fn gemm(
    _device: &Device,
    out: Destination,
    a: Operand,
    b: Operand,
    options: GemmOptions,
    _op: &'static str,
) -> Result<Algorithm> {
    let mut sums = vec![0.0; out.rows * out.cols];
    for i in 0..options.batch {
        let (lhs, rhs) = (matrix(&a, i), matrix(&b, i));
        let dst = ViewMut::new(&mut sums, out.rows, out.cols);
        crate::matmul::gemm(
            dst,
            WriteMode::Overwrite,
            view(&a, &lhs),
            view(&b, &rhs),
            Threads::One,
        );
        for (row, sums) in sums.chunks(out.cols).enumerate() {
            put(&out, i * out.batch_stride + row * out.row_stride, sums, options);
        }
    }
    Ok(Algorithm::Found)
}

fn view<'a>(operand: &Operand, values: &'a [f32]) -> View<'a> {
    let view = View::new(values, operand.rows, operand.cols);
    if operand.transposed { view.t() } else { view }
}

/// The `i`-th stored matrix of the batch, contiguous.
fn matrix(operand: &Operand, i: usize) -> Vec<f32> {
    let mut values = vec![0.0; operand.rows * operand.cols];
    if operand.cols == 0 {
        return values;
    }
    for (row, to) in values.chunks_mut(operand.cols).enumerate() {
        let first = i * operand.batch_stride + row * operand.row_stride;
        // SAFETY: the caller holds memory of the operand's sizes.
        unsafe {
            match operand.dtype {
                Dtype::Bf16 => {
                    let from = operand.ptr.cast::<bf16>().add(first);
                    std::slice::from_raw_parts(from, to.len()).convert_to_f32_slice(to);
                }
                _ => {
                    let from = operand.ptr.cast::<f32>().add(first);
                    to.copy_from_slice(std::slice::from_raw_parts(from, to.len()));
                }
            }
        }
    }
    values
}

/// Writes a row of the product from element `first` on, plus the addend.
fn put(out: &Destination, first: usize, sums: &[f32], options: GemmOptions) {
    let base = match options.addend {
        Addend::Zero => None,
        Addend::Destination => Some(out.ptr.cast_const()),
        Addend::At(base) => Some(base),
    };
    for (i, sum) in sums.iter().enumerate() {
        let (at, sum) = (first + i, options.alpha * sum);
        // SAFETY: the caller holds memory of the output's sizes, which nobody else accesses.
        unsafe {
            match out.dtype {
                Dtype::Bf16 => {
                    let was = base.map_or(0.0, |base| (*base.cast::<bf16>().add(at)).to_f32());
                    *out.ptr.cast::<bf16>().add(at) = bf16::from_f32(options.beta * was + sum);
                }
                _ => {
                    let was = base.map_or(0.0, |base| *base.cast::<f32>().add(at));
                    *out.ptr.cast::<f32>().add(at) = options.beta * was + sum;
                }
            }
        }
    }
}
