//! GEMM on the device: cuBLASLt on a GPU, the CPU's under CPU emulation.

mod operand;
mod padded;

use candle_core::{Device, Tensor};

#[cfg(feature = "cuda")]
use super::blas as backend;
#[cfg(not(feature = "cuda"))]
use super::host_gemm as backend;
use super::profile::launched;
use super::{Dtype, read, write};
use crate::error::{Result, check};
pub(super) use operand::Algorithm;
pub(crate) use operand::{Addend, Destination, GemmOptions, Operand};

/// `out = beta · addend + alpha · a · b` for each matrix of a batch, with f32 accumulation. Both operands are f32, or both
/// bf16; `out` is f32, or bf16 if they are. The caller holds the memory, which must have the sizes given.
///
/// # Errors
/// The shapes are inconsistent, or the device failed.
pub(crate) fn gemm(
    device: &Device,
    out: Destination,
    a: Operand,
    b: Operand,
    options: GemmOptions,
    op: &'static str,
) -> Result<()> {
    let ((m, k), (depth, n)) = (a.shape(), b.shape());
    check((out.rows, out.cols, depth) == (m, n, k), op, || {
        format!("({m}, {k}) x ({depth}, {n}) does not give ({}, {})", out.rows, out.cols)
    })?;
    let types = a.dtype == b.dtype && (out.dtype == Dtype::F32 || out.dtype == a.dtype);
    check(types, op, || "unsupported dtypes of operands and output".into())?;
    check(k > 0 || options.addend == Addend::Destination, op, || {
        "the inner dimension is 0".into()
    })?;
    if m * n * k * options.batch == 0 {
        return Ok(());
    }
    match launched("gemm", || backend::gemm(device, out, a, b, options, op))? {
        Algorithm::Found => Ok(()),
        Algorithm::Missing => padded::gemm(device, out, a, b, options, op),
    }
}

/// Operand dtype of a GEMM with activations of `dtype`.
pub(crate) fn gemm_dtype(dtype: Dtype, bf16: bool) -> Dtype {
    if bf16 { Dtype::Bf16 } else { dtype }
}

/// [`gemm`] into the tensor `out`, in place.
pub(crate) fn gemm_into(
    out: &Tensor,
    (rows, cols): (usize, usize),
    a: Operand,
    b: Operand,
    options: GemmOptions,
    op: &'static str,
) -> Result<()> {
    let dtype = read(out, op)?.expect_float()?.dtype;
    write([(out, dtype)], op, |[at]| {
        gemm(out.device(), Destination::new(at, dtype, rows, cols), a, b, options, op)
    })
}
