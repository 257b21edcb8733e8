//! Matrices and options of a GEMM.

use std::ffi::c_void;

use crate::cuda::{DeviceSlice, Dtype};
use crate::matmul::WriteMode;

/// A strided batch of row-major matrices to read.
#[derive(Clone, Copy)]
pub(crate) struct Operand {
    pub(crate) ptr: *const c_void,
    pub(crate) dtype: Dtype,
    /// Of the stored matrix, before [`Self::t`].
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    /// Elements between rows.
    pub(crate) row_stride: usize,
    /// Elements between matrices of the batch; 0 if all share one.
    pub(crate) batch_stride: usize,
    /// Whether the operand is transposed.
    pub(crate) transposed: bool,
}

impl Operand {
    /// A contiguous row-major matrix.
    pub(crate) fn new(values: &DeviceSlice<'_>, rows: usize, cols: usize) -> Self {
        Self {
            ptr: values.ptr,
            dtype: values.dtype,
            rows,
            cols,
            row_stride: cols,
            batch_stride: 0,
            transposed: false,
        }
    }

    /// The transpose.
    pub(crate) fn t(self) -> Self {
        Self { transposed: !self.transposed, ..self }
    }

    /// Rows and columns, after transposition.
    pub(crate) fn shape(&self) -> (usize, usize) {
        match self.transposed {
            true => (self.cols, self.rows),
            false => (self.rows, self.cols),
        }
    }
}

/// A strided batch of row-major matrices to write.
#[derive(Clone, Copy)]
pub(crate) struct Destination {
    pub(crate) ptr: *mut c_void,
    pub(crate) dtype: Dtype,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) row_stride: usize,
    pub(crate) batch_stride: usize,
}

impl Destination {
    /// A contiguous row-major matrix.
    pub(crate) fn new(ptr: *mut c_void, dtype: Dtype, rows: usize, cols: usize) -> Self {
        Self { ptr, dtype, rows, cols, row_stride: cols, batch_stride: 0 }
    }
}

/// What the product is added to (C of the GEMM).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Addend {
    Zero,
    /// The destination's content.
    Destination,
    /// Other memory, with the destination's layout and dtype.
    At(*const c_void),
}

impl From<WriteMode> for Addend {
    fn from(into: WriteMode) -> Self {
        match into {
            WriteMode::Overwrite => Self::Zero,
            WriteMode::Accumulate => Self::Destination,
        }
    }
}

/// Options of a GEMM.
#[derive(Clone, Copy)]
pub(crate) struct GemmOptions {
    /// Batch size.
    pub(crate) batch: usize,
    /// Scale of the product.
    pub(crate) alpha: f32,
    pub(crate) addend: Addend,
    /// Scale of the addend.
    pub(crate) beta: f32,
}

impl<B: Into<Addend>> From<B> for GemmOptions {
    fn from(addend: B) -> Self {
        Self { batch: 1, alpha: 1.0, addend: addend.into(), beta: 1.0 }
    }
}

/// Whether the library has an algorithm for a product.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::cuda) enum Algorithm {
    /// The product has been launched.
    Found,
    /// Nothing has been launched.
    #[cfg_attr(not(feature = "cuda"), allow(dead_code))]
    Missing,
}
