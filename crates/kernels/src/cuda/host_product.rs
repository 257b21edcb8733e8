//! Products where kernels run on the host: the CPU's, of numbers that are f32 or become so.
#![allow(unsafe_code)]

use candle_core::Device;
use half::bf16;
use half::slice::HalfFloatSliceExt;

use super::Dtype;
use super::product::{Base, Destination, Factor, How};
use crate::error::Result;
use crate::matmul::{Into, Threads, View, ViewMut};

/// As [`super::product::product`], which has checked the shapes.
pub(super) fn product(
    _device: &Device,
    out: Destination,
    a: Factor,
    b: Factor,
    how: How,
    _op: &'static str,
) -> Result<()> {
    super::host::count_launch();
    let mut sums = vec![0.0; out.rows * out.cols];
    for i in 0..how.batch {
        let (lhs, rhs) = (matrix(&a, i), matrix(&b, i));
        let dst = ViewMut::new(&mut sums, out.rows, out.cols);
        crate::matmul::product(dst, Into::Replace, view(&a, &lhs), view(&b, &rhs), Threads::One);
        for (row, sums) in sums.chunks(out.cols).enumerate() {
            put(&out, i * out.batch_stride + row * out.row_stride, sums, how);
        }
    }
    Ok(())
}

fn view<'a>(factor: &Factor, numbers: &'a [f32]) -> View<'a> {
    let view = View::new(numbers, factor.rows, factor.cols);
    if factor.transposed { view.t() } else { view }
}

/// The stored matrix of the `i`-th of a batch, rows end to end.
fn matrix(factor: &Factor, i: usize) -> Vec<f32> {
    let mut numbers = vec![0.0; factor.rows * factor.cols];
    if factor.cols == 0 {
        return numbers;
    }
    for (row, to) in numbers.chunks_mut(factor.cols).enumerate() {
        let first = i * factor.batch_stride + row * factor.row_stride;
        // SAFETY: the caller holds memory of the factor's sizes.
        unsafe {
            match factor.dtype {
                Dtype::Bf16 => {
                    let from = factor.at.cast::<bf16>().add(first);
                    std::slice::from_raw_parts(from, to.len()).convert_to_f32_slice(to);
                }
                _ => {
                    let from = factor.at.cast::<f32>().add(first);
                    to.copy_from_slice(std::slice::from_raw_parts(from, to.len()));
                }
            }
        }
    }
    numbers
}

/// Writes a row of sums from the `first` number on, added to what it is based on.
fn put(out: &Destination, first: usize, sums: &[f32], how: How) {
    let base = match how.base {
        Base::Nothing => None,
        Base::Destination => Some(out.at.cast_const()),
        Base::At(base) => Some(base),
    };
    for (i, sum) in sums.iter().enumerate() {
        let (at, sum) = (first + i, how.alpha * sum);
        // SAFETY: the caller holds memory of the product's sizes, and nobody else reads or writes it.
        unsafe {
            match out.dtype {
                Dtype::Bf16 => {
                    let was = base.map_or(0.0, |base| (*base.cast::<bf16>().add(at)).to_f32());
                    *out.at.cast::<bf16>().add(at) = bf16::from_f32(was + sum);
                }
                _ => {
                    let was = base.map_or(0.0, |base| *base.cast::<f32>().add(at));
                    *out.at.cast::<f32>().add(at) = was + sum;
                }
            }
        }
    }
}
