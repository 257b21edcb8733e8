//! Matrix products on the device: cuBLASLt's on a GPU, the CPU's where kernels run on the host.

use std::ffi::c_void;

use candle_core::{Device, Tensor};

#[cfg(feature = "cuda")]
use super::blas as backend;
#[cfg(not(feature = "cuda"))]
use super::host_product as backend;
use super::{Dtype, Numbers, read, write};
use crate::error::{Result, check};
use crate::matmul::Into;

/// Matrices to read: one, or a batch at equal distances. Rows lie at equal distances, a row's numbers end to end.
#[derive(Clone, Copy)]
pub(crate) struct Factor {
    pub(crate) at: *const c_void,
    pub(crate) dtype: Dtype,
    /// Of the stored matrix, before [`Self::t`].
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    /// Numbers from a row to the next.
    pub(crate) row_stride: usize,
    /// Numbers from a matrix of the batch to the next; 0 where all share one.
    pub(crate) batch_stride: usize,
    /// Whether the transposed matrix is meant.
    pub(crate) transposed: bool,
}

impl Factor {
    /// A stored matrix `rows × cols`, rows end to end.
    pub(crate) fn new(numbers: &Numbers<'_>, rows: usize, cols: usize) -> Self {
        Self {
            at: numbers.at,
            dtype: numbers.dtype,
            rows,
            cols,
            row_stride: cols,
            batch_stride: 0,
            transposed: false,
        }
    }

    /// The transposed matrix.
    pub(crate) fn t(self) -> Self {
        Self { transposed: !self.transposed, ..self }
    }

    /// Rows and columns as they are meant.
    pub(crate) fn shape(&self) -> (usize, usize) {
        match self.transposed {
            true => (self.cols, self.rows),
            false => (self.rows, self.cols),
        }
    }
}

/// Matrices to write: `rows × cols`, one or a batch.
#[derive(Clone, Copy)]
pub(crate) struct Destination {
    pub(crate) at: *mut c_void,
    pub(crate) dtype: Dtype,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) row_stride: usize,
    pub(crate) batch_stride: usize,
}

impl Destination {
    /// A matrix `rows × cols`, rows end to end.
    pub(crate) fn new(at: *mut c_void, dtype: Dtype, rows: usize, cols: usize) -> Self {
        Self { at, dtype, rows, cols, row_stride: cols, batch_stride: 0 }
    }
}

/// What a product is added to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Base {
    Nothing,
    /// What lies at the destination.
    Destination,
    /// What lies elsewhere, as long and held as the destination.
    At(*const c_void),
}

impl From<Into> for Base {
    fn from(into: Into) -> Self {
        match into {
            Into::Replace => Self::Nothing,
            Into::Add => Self::Destination,
        }
    }
}

/// How a product is made.
#[derive(Clone, Copy)]
pub(crate) struct How {
    /// Matrices of the batch.
    pub(crate) batch: usize,
    /// Factor of the product.
    pub(crate) alpha: f32,
    pub(crate) base: Base,
}

impl<B: std::convert::Into<Base>> From<B> for How {
    fn from(base: B) -> Self {
        Self { batch: 1, alpha: 1.0, base: base.into() }
    }
}

/// `out = base + alpha · a · b` for each matrix of a batch; sums are f32. Both factors are f32, or both bf16; `out` is
/// f32, or bf16 where they are. The memory of all is held by the caller, and as large as their sizes say.
///
/// # Errors
/// The shapes do not fit, or the device refused.
pub(crate) fn product(
    device: &Device,
    out: Destination,
    a: Factor,
    b: Factor,
    how: How,
    op: &'static str,
) -> Result<()> {
    let ((m, k), (depth, n)) = (a.shape(), b.shape());
    check((out.rows, out.cols, depth) == (m, n, k), op, || {
        format!("({m}, {k}) times ({depth}, {n}) does not give ({}, {})", out.rows, out.cols)
    })?;
    let types = a.dtype == b.dtype && (out.dtype == Dtype::F32 || out.dtype == a.dtype);
    check(types, op, || "the factors and the product misfit in type".into())?;
    check(k > 0 || how.base == Base::Destination, op, || "a product of nothing".into())?;
    if m * n * k * how.batch == 0 {
        return Ok(());
    }
    backend::product(device, out, a, b, how, op)
}

/// What a product with numbers held as `dtype` has for factors where its precision is bf16 or not.
pub(crate) fn factor_dtype(dtype: Dtype, bf16: bool) -> Dtype {
    if bf16 { Dtype::Bf16 } else { dtype }
}

/// [`product`] of two matrices into the tensor `out`, in place.
pub(crate) fn into_tensor(
    out: &Tensor,
    (rows, cols): (usize, usize),
    a: Factor,
    b: Factor,
    how: How,
    op: &'static str,
) -> Result<()> {
    let dtype = read(out, op)?.float()?.dtype;
    write([(out, dtype)], op, |[at]| {
        product(out.device(), Destination::new(at, dtype, rows, cols), a, b, how, op)
    })
}
