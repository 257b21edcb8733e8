//! Block-quantized weights on the device.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_longlong, c_void};
use std::ops::Range;

use candle_core::{Device, Tensor};

use super::gemm::{Destination, Operand, gemm};
use super::{Dtype, Stream, create, launch, linear, memory, read, row_width, upload, write};
use crate::error::{Error, Result};
use crate::matmul::WriteMode;
use crate::quantized::{BlockFormat, QuantizedMatrix};

unsafe extern "C" {
    fn er_block_rows(
        out: *mut c_void,
        blocks: *const c_void,
        indices: *const c_void,
        rows: c_longlong,
        width: c_int,
        format: c_int,
        dtype: Dtype,
        stream: Stream,
    ) -> c_int;
    fn er_block_product(
        y: *mut c_void,
        x: *const c_void,
        blocks: *const c_void,
        bias: *const c_void,
        rows: c_int,
        outputs: c_int,
        inputs: c_int,
        keep: f32,
        format: c_int,
        dtype: Dtype,
        stream: Stream,
    ) -> c_int;
    fn er_block_tile(
        y: *mut c_void,
        x: *const c_void,
        blocks: *const c_void,
        bias: *const c_void,
        rows: c_int,
        outputs: c_int,
        inputs: c_int,
        keep: f32,
        format: c_int,
        dtype: Dtype,
        stream: Stream,
    ) -> c_int;
}

/// Maximum rows for the fused dequantize-GEMV kernel.
const MAX_GEMV_ROWS: usize = 8;

/// Maximum rows, with bf16 operands, for the kernel that dequantizes tiles in shared memory: decoding steps. For more
/// rows, prompts, blocks are dequantized for a GEMM of cuBLASLt, which is faster per row; that is a small part of it.
const MAX_TILE_ROWS: usize = 128;

/// Elements dequantized at a time. Small in tests, so that they cover several steps.
const DEQUANTIZED_ELEMENTS: usize = if cfg!(test) { 1024 } else { 1 << 26 };

/// A block-quantized matrix (outputs, inputs). A clone shares the blocks.
#[derive(Debug, Clone)]
pub(crate) struct QuantizedBlocks {
    /// The bytes, packed into u32 words.
    words: Tensor,
    code: c_int,
    outputs: usize,
    inputs: usize,
    row_bytes: usize,
}

/// Format code of the kernels (`Format` of `quantized.cu`); `None` for float formats.
fn code(format: BlockFormat) -> Option<c_int> {
    match format {
        BlockFormat::F32 | BlockFormat::F16 | BlockFormat::Bf16 => None,
        BlockFormat::Q4_0 => Some(0),
        BlockFormat::Q4_1 => Some(1),
        BlockFormat::Q5_0 => Some(2),
        BlockFormat::Q5_1 => Some(3),
        BlockFormat::Q8_0 => Some(4),
        BlockFormat::Q4K => Some(5),
        BlockFormat::Q5K => Some(6),
        BlockFormat::Q6K => Some(7),
    }
}

impl QuantizedBlocks {
    /// Uploads the blocks; `None` for float formats.
    pub(crate) fn new(matrix: &QuantizedMatrix, device: &Device) -> Result<Option<Self>> {
        let Some(code) = code(matrix.format()) else { return Ok(None) };
        let word = |bytes: &[u8]| {
            let mut word = [0; 4];
            word[..bytes.len()].copy_from_slice(bytes);
            u32::from_le_bytes(word)
        };
        let words: Vec<u32> = matrix.bytes().chunks(4).map(word).collect();
        let length = words.len();
        let words = Tensor::from_vec(words, length, &Device::Cpu)?;
        let words = crate::memory::to_device(&words, device)?;
        let (outputs, inputs) = (matrix.outputs(), matrix.inputs());
        let row_bytes = matrix.byte_len() / outputs.max(1);
        Ok(Some(Self { words, code, outputs, inputs, row_bytes }))
    }

    /// Rows `indices`, which are in range, dequantized to `dtype`.
    pub(crate) fn rows(&self, indices: &[usize], dtype: Dtype, op: &'static str) -> Result<Tensor> {
        let indices = upload(indices, self.words.device(), op)?;
        let picked = read(&indices, op)?;
        self.dequantize((0, picked.ptr, indices.elem_count()), dtype, op)
    }

    /// Dequantizes the rows `range`.
    fn dequantize_rows(
        &self,
        range: Range<usize>,
        dtype: Dtype,
        op: &'static str,
    ) -> Result<Tensor> {
        self.dequantize((range.start, std::ptr::null(), range.len()), dtype, op)
    }

    /// Dequantizes `rows` rows: those of `indices` or, if that is null, from row `first` on.
    fn dequantize(
        &self,
        (first, indices, rows): (usize, *const c_void, usize),
        dtype: Dtype,
        op: &'static str,
    ) -> Result<Tensor> {
        let (device, stream) = (self.words.device(), Stream::of(&self.words)?);
        let shape = (rows, self.inputs);
        if rows * self.inputs == 0 {
            return create(device, shape, dtype, op, |_| Ok(()));
        }
        let words = read(&self.words, op)?;
        let blocks = words.ptr.wrapping_byte_add(first * self.row_bytes);
        let (rows, width) = (rows as c_longlong, row_width(self.inputs, op)?);
        create(device, shape, dtype, op, |out| {
            launch!(op, er_block_rows(out, blocks, indices, rows, width, self.code, dtype, stream))
        })
    }

    /// `x · Wᵀ + b`; operands may be rounded to bf16 if x or `activations` is.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        bias: Option<&Tensor>,
        activations: Dtype,
        op: &'static str,
    ) -> Result<Tensor> {
        let (shape, dtype) = ((x.dims()[0], self.outputs), Dtype::of(x, op)?);
        create(x.device(), shape, dtype, op, |y| {
            if is_fused(shape.0, [dtype, activations]) {
                return self.fused(y, x, bias, 0.0, op);
            }
            let into = match bias {
                None => WriteMode::Overwrite,
                Some(bias) => {
                    linear::set_rows(y, dtype, bias, shape, 0.0, Stream::of(x)?, op)?;
                    WriteMode::Accumulate
                }
            };
            self.dequantize_gemm((y, dtype), x, into, op)
        })
    }

    /// `y + x · Wᵀ + b`, out of place.
    pub(crate) fn forward_add(
        &self,
        x: &Tensor,
        y: &Tensor,
        bias: Option<&Tensor>,
        activations: Dtype,
        op: &'static str,
    ) -> Result<Tensor> {
        let (rows, sum) = (x.dims()[0], memory::copy(y, op)?);
        let (dtype, out_dtype) = (Dtype::of(x, op)?, Dtype::of(y, op)?);
        if is_fused(rows, [dtype, activations]) && dtype == out_dtype {
            write([(&sum, out_dtype)], op, |[at]| self.fused(at, x, bias, 1.0, op))?;
            return Ok(sum);
        }
        if let Some(bias) = bias {
            linear::add_bias(&sum, bias, op)?;
        }
        write([(&sum, out_dtype)], op, |[at]| {
            self.dequantize_gemm((at, out_dtype), x, WriteMode::Accumulate, op)
        })?;
        Ok(sum)
    }

    /// `y = x · Wᵀ`, or `y += x · Wᵀ`, dequantizing some rows of the weight at a time.
    fn dequantize_gemm(
        &self,
        (y, out_dtype): (*mut c_void, Dtype),
        x: &Tensor,
        into: WriteMode,
        op: &'static str,
    ) -> Result<()> {
        let (rows, dtype) = (x.dims()[0], Dtype::of(x, op)?);
        let values = read(x, op)?.expect_float()?;
        let left = Operand::new(&values, rows, self.inputs);
        let step = (DEQUANTIZED_ELEMENTS / self.inputs.max(1)).max(1);
        for first in (0..self.outputs).step_by(step) {
            let count = step.min(self.outputs - first);
            let weight = self.dequantize_rows(first..first + count, dtype, op)?;
            let weight = read(&weight, op)?;
            let right = Operand::new(&weight, count, self.inputs).t();
            let to = Destination::new(
                y.wrapping_byte_add(first * out_dtype.bytes()),
                out_dtype,
                rows,
                count,
            );
            let to = Destination { row_stride: self.outputs, ..to };
            gemm(x.device(), to, left, right, into.into(), op)?;
        }
        Ok(())
    }

    /// `y = keep · y + x · Wᵀ + b` from the blocks, for rows that [`is_fused`] admits; y has x's dtype.
    fn fused(
        &self,
        y: *mut c_void,
        x: &Tensor,
        bias: Option<&Tensor>,
        keep: f32,
        op: &'static str,
    ) -> Result<()> {
        let (stream, rows) = (Stream::of(x)?, x.dims()[0] as c_int);
        if rows == 0 || self.outputs == 0 {
            return Ok(());
        }
        let (x, words) = (read(x, op)?.expect_float()?, read(&self.words, op)?);
        let bias = bias.map(|bias| read(bias, op)?.expect_dtype(Dtype::F32)).transpose()?;
        let bias = bias.as_ref().map_or(std::ptr::null(), |bias| bias.ptr);
        let count = |n: usize| c_int::try_from(n).map_err(|_| too_large(op));
        let (outputs, inputs) = (count(self.outputs)?, count(self.inputs)?);
        let (x, dtype, blocks, code) = (x.ptr, x.dtype, words.ptr, self.code);
        if rows as usize > MAX_GEMV_ROWS {
            return launch!(
                op,
                er_block_tile(y, x, blocks, bias, rows, outputs, inputs, keep, code, dtype, stream)
            );
        }
        launch!(
            op,
            er_block_product(y, x, blocks, bias, rows, outputs, inputs, keep, code, dtype, stream)
        )
    }
}

/// Whether a product with so many rows is computed from the blocks; its operands are bf16 if one of `dtypes` is.
fn is_fused(rows: usize, dtypes: [Dtype; 2]) -> bool {
    rows <= MAX_GEMV_ROWS || dtypes.contains(&Dtype::Bf16) && rows <= MAX_TILE_ROWS
}

fn too_large(op: &'static str) -> Error {
    Error::Shape { op, what: "the matrix is too large".into() }
}
