//! GEMM on aligned copies, where the library has no algorithm for the matrices as they are: rows of bf16 whose stride is
//! no multiple of 16 bytes, or addresses that are not.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_longlong, c_void};

use candle_core::{Device, Tensor};

use super::{Addend, Algorithm, Destination, GemmOptions, Operand, backend, launched};
use crate::cuda::{Dtype, Stream, create, launch, read, row_width, write};
use crate::error::{Error, Result};

unsafe extern "C" {
    fn er_strided_copy(
        to: *mut c_void,
        to_row: c_longlong,
        to_batch: c_longlong,
        from: *const c_void,
        from_row: c_longlong,
        from_batch: c_longlong,
        rows: c_longlong,
        width: c_int,
        batch: c_int,
        dtype: Dtype,
        stream: Stream,
    ) -> c_int;
}

/// Row strides of the copies are multiples of this many elements: 16 bytes of bf16.
const ALIGNED: usize = 8;

/// A batch of matrices in memory.
#[derive(Clone, Copy)]
struct Layout {
    row_stride: usize,
    batch_stride: usize,
}

/// Sizes of a copy: matrices, and rows and columns of each.
#[derive(Clone, Copy)]
struct Size {
    batch: usize,
    rows: usize,
    cols: usize,
}

impl Size {
    /// The layout of an aligned copy.
    fn aligned(self) -> Layout {
        let row_stride = self.cols.next_multiple_of(ALIGNED);
        Layout { row_stride, batch_stride: self.rows * row_stride }
    }

    fn copy(
        self,
        (to, to_layout): (*mut c_void, Layout),
        (from, from_layout): (*const c_void, Layout),
        (dtype, stream): (Dtype, Stream),
        op: &'static str,
    ) -> Result<()> {
        let strides =
            |layout: Layout| (layout.row_stride as c_longlong, layout.batch_stride as c_longlong);
        let ((to_row, to_batch), (from_row, from_batch)) =
            (strides(to_layout), strides(from_layout));
        let (rows, width, batch) =
            (self.rows as c_longlong, row_width(self.cols, op)?, self.batch as c_int);
        launch!(
            op,
            er_strided_copy(
                to, to_row, to_batch, from, from_row, from_batch, rows, width, batch, dtype, stream
            )
        )
    }
}

/// See [`super::gemm()`].
pub(super) fn gemm(
    device: &Device,
    out: Destination,
    a: Operand,
    b: Operand,
    options: GemmOptions,
    op: &'static str,
) -> Result<()> {
    let stream = Stream::of_device(device)?;
    let (a_copy, b_copy) = (
        operand(device, a, options.batch, stream, op)?,
        operand(device, b, options.batch, stream, op)?,
    );
    let (a_copy, b_copy) = (read(&a_copy, op)?, read(&b_copy, op)?);
    let aligned = |operand: Operand, ptr: *const c_void| {
        let Layout { row_stride, batch_stride } =
            Size { batch: 1, rows: operand.rows, cols: operand.cols }.aligned();
        let batch_stride = if operand.batch_stride == 0 { 0 } else { batch_stride };
        Operand { ptr, row_stride, batch_stride, ..operand }
    };
    let (a, b) = (aligned(a, a_copy.ptr), aligned(b, b_copy.ptr));
    let size = Size { batch: options.batch, rows: out.rows, cols: out.cols };
    let (given, Layout { row_stride, batch_stride }) =
        (Layout { row_stride: out.row_stride, batch_stride: out.batch_stride }, size.aligned());
    let layout = Layout { row_stride, batch_stride };
    let sums = create(device, size.batch * batch_stride, out.dtype, op, |_| Ok(()))?;
    let addend = match options.addend {
        Addend::Zero => None,
        Addend::Destination => Some(out.ptr.cast_const()),
        Addend::At(base) => Some(base),
    };
    write([(&sums, out.dtype)], op, |[to]| {
        if let Some(addend) = addend {
            size.copy((to, layout), (addend, given), (out.dtype, stream), op)?;
        }
        let addend = if addend.is_some() { Addend::Destination } else { Addend::Zero };
        let into = Destination { ptr: to, row_stride, batch_stride, ..out };
        let options = GemmOptions { addend, ..options };
        match launched("gemm", || backend::gemm(device, into, a, b, options, op))? {
            Algorithm::Found => Ok(()),
            Algorithm::Missing => {
                let (m, n, k) = (out.rows, out.cols, a.shape().1);
                let what = format!("cuBLASLt has no algorithm for a product of {m} x {k} x {n}");
                Err(Error::Device { op, what })
            }
        }
    })?;
    let sums = read(&sums, op)?;
    size.copy((out.ptr, given), (sums.ptr, layout), (out.dtype, stream), op)
}

/// An aligned copy of an operand; of a single matrix if all products share it.
fn operand(
    device: &Device,
    operand: Operand,
    batch: usize,
    stream: Stream,
    op: &'static str,
) -> Result<Tensor> {
    let batch = if operand.batch_stride == 0 { 1 } else { batch };
    let size = Size { batch, rows: operand.rows, cols: operand.cols };
    let given = Layout { row_stride: operand.row_stride, batch_stride: operand.batch_stride };
    let layout = size.aligned();
    create(device, batch * layout.batch_stride, operand.dtype, op, |to| {
        size.copy((to, layout), (operand.ptr, given), (operand.dtype, stream), op)
    })
}

#[cfg(feature = "cuda-host")]
#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::*;
    use crate::cuda::host;

    fn noise(shape: &[usize], dtype: DType, seed: f32) -> Tensor {
        let count: usize = shape.iter().product();
        let values = (0..count).map(|i| (seed + 7.3 * i as f32).sin()).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
    }

    /// A batch of products of strided matrices, by `product`: (7 x 5) · (5 x 3), transposed in memory or shared.
    fn run(
        dtype: DType,
        [a_transposed, shared]: [bool; 2],
        addend: bool,
        product: fn(
            &Device,
            Destination,
            Operand,
            Operand,
            GemmOptions,
            &'static str,
        ) -> Result<()>,
    ) -> Vec<f32> {
        const OP: &str = "test";
        let (m, k, n, batch) = (7, 5, 3, 2);
        let (rows, cols) = if a_transposed { (k, m) } else { (m, k) };
        // Rows are one element longer than they are used.
        let a = noise(&[batch, rows, cols + 1], dtype, 1.0);
        let b = noise(&[batch, k, n + 1], dtype, 2.0);
        let y = noise(&[batch, m, n + 1], dtype, 3.0).copy().unwrap();
        host::set(true, || {
            let (a, b) = (read(&a, OP).unwrap(), read(&b, OP).unwrap());
            let strided =
                |values: &crate::cuda::DeviceSlice<'_>, rows: usize, cols: usize| Operand {
                    row_stride: cols + 1,
                    batch_stride: rows * (cols + 1),
                    ..Operand::new(values, rows, cols)
                };
            let lhs = strided(&a, rows, cols);
            let lhs = if a_transposed { lhs.t() } else { lhs };
            let rhs = strided(&b, k, n);
            let rhs = Operand { batch_stride: if shared { 0 } else { rhs.batch_stride }, ..rhs };
            let of = Dtype::of(&y, OP).unwrap();
            let addend = if addend { Addend::Destination } else { Addend::Zero };
            write([(&y, of)], OP, |[at]| {
                let out = Destination {
                    row_stride: n + 1,
                    batch_stride: m * (n + 1),
                    ..Destination::new(at, of, m, n)
                };
                let options = GemmOptions { batch, alpha: 0.5, addend, beta: 1.0 };
                product(&Device::Cpu, out, lhs, rhs, options, OP)
            })
            .unwrap();
        });
        y.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn aligned_copies_give_the_products_of_the_matrices_as_they_are() {
        for dtype in [DType::F32, DType::BF16] {
            for layout in [[false, false], [true, false], [false, true], [true, true]] {
                for addend in [false, true] {
                    let found = run(dtype, layout, addend, gemm);
                    let expected = run(dtype, layout, addend, super::super::gemm);
                    assert_eq!(found, expected, "{dtype:?} {layout:?} {addend}");
                }
            }
        }
    }
}
