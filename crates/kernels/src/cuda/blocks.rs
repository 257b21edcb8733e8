//! Weights in blocks of few bits on the device.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_longlong, c_void};

use candle_core::{Device, Tensor};

use super::{Dtype, Stream, create, launch, linear, memory, read, upload, write};
use crate::error::{Error, Result};
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
}

/// Rows that are multiplied with the blocks as they are. For more the blocks become numbers, which are multiplied with
/// by the tensor cores.
const FEW: usize = 8;

/// A matrix (outputs, inputs) in blocks. A clone shares them.
#[derive(Debug, Clone)]
pub(crate) struct Blocks {
    /// The bytes, four in each number.
    words: Tensor,
    code: c_int,
    outputs: usize,
    inputs: usize,
}

/// A format as the kernels know it (`Format` of `quantized.cu`); none of whole floats.
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

impl Blocks {
    /// The blocks on the device; none of a format that is no blocks.
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
        Ok(Some(Self { words, code, outputs, inputs }))
    }

    /// The rows `indices`, all of which there are, or all rows, as numbers held as `dtype`.
    pub(crate) fn rows(
        &self,
        indices: Option<&[usize]>,
        dtype: Dtype,
        op: &'static str,
    ) -> Result<Tensor> {
        let (device, stream) = (self.words.device(), Stream::of(&self.words)?);
        let shape = (indices.map_or(self.outputs, <[usize]>::len), self.inputs);
        if shape.0 * shape.1 == 0 {
            return create(device, shape, dtype, op, |_| Ok(()));
        }
        let words = read(&self.words, op)?;
        let indices = indices.map(|indices| upload(indices, device, op)).transpose()?;
        let indices = indices.as_ref().map(|indices| read(indices, op)).transpose()?;
        let picked = indices.as_ref().map_or(std::ptr::null(), |indices| indices.at);
        let (rows, width) = (shape.0 as c_longlong, shape.1 as c_int);
        create(device, shape, dtype, op, |out| {
            launch!(op, er_block_rows(out, words.at, picked, rows, width, self.code, dtype, stream))
        })
    }

    /// `x · Wᵀ + b`.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        bias: Option<&Tensor>,
        op: &'static str,
    ) -> Result<Tensor> {
        let (rows, dtype) = (x.dims()[0], Dtype::of(x, op)?);
        if rows > FEW {
            return linear::forward(x, &self.rows(None, dtype, op)?, bias, dtype, op);
        }
        create(x.device(), (rows, self.outputs), dtype, op, |y| self.product(y, x, bias, 0.0, op))
    }

    /// `y + x · Wᵀ + b`, in memory of its own.
    pub(crate) fn forward_add(
        &self,
        x: &Tensor,
        y: &Tensor,
        bias: Option<&Tensor>,
        op: &'static str,
    ) -> Result<Tensor> {
        let (rows, sum) = (x.dims()[0], memory::copy(y, op)?);
        let (dtype, held) = (Dtype::of(x, op)?, Dtype::of(y, op)?);
        if rows > FEW || dtype != held {
            if let Some(bias) = bias {
                linear::add_bias(&sum, bias, op)?;
            }
            linear::add(x, &self.rows(None, dtype, op)?, &sum, dtype, op)?;
        } else {
            write([(&sum, held)], op, |[at]| self.product(at, x, bias, 1.0, op))?;
        }
        Ok(sum)
    }

    /// `y = keep · y + x · Wᵀ + b` for a few rows, of y as x is held.
    fn product(
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
        let (x, words) = (read(x, op)?.float()?, read(&self.words, op)?);
        let bias = bias.map(|bias| read(bias, op)?.of(Dtype::F32)).transpose()?;
        let bias = bias.as_ref().map_or(std::ptr::null(), |bias| bias.at);
        let count = |n: usize| c_int::try_from(n).map_err(|_| too_large(op));
        let (outputs, inputs) = (count(self.outputs)?, count(self.inputs)?);
        launch!(
            op,
            er_block_product(
                y, x.at, words.at, bias, rows, outputs, inputs, keep, self.code, x.dtype, stream
            )
        )
    }
}

fn too_large(op: &'static str) -> Error {
    Error::Shape { op, what: "the matrix is too large".into() }
}
