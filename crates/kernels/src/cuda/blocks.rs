//! Weights in blocks of few bits on the device.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_longlong, c_void};
use std::ops::Range;

use candle_core::{Device, Tensor};

use super::product::{Destination, Factor, product};
use super::{Dtype, Stream, create, launch, linear, memory, read, upload, write};
use crate::error::{Error, Result};
use crate::matmul::Into;
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

/// Numbers that blocks become at a time. The matrices of tests are small, and are cut all the same.
const TOGETHER: usize = if cfg!(test) { 1024 } else { 1 << 26 };

/// A matrix (outputs, inputs) in blocks. A clone shares them.
#[derive(Debug, Clone)]
pub(crate) struct Blocks {
    /// The bytes, four in each number.
    words: Tensor,
    code: c_int,
    outputs: usize,
    inputs: usize,
    row_bytes: usize,
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
        let row_bytes = matrix.byte_len() / outputs.max(1);
        Ok(Some(Self { words, code, outputs, inputs, row_bytes }))
    }

    /// The rows `indices`, all of which there are, as numbers held as `dtype`.
    pub(crate) fn rows(&self, indices: &[usize], dtype: Dtype, op: &'static str) -> Result<Tensor> {
        let indices = upload(indices, self.words.device(), op)?;
        let picked = read(&indices, op)?;
        self.numbers((0, picked.at, indices.elem_count()), dtype, op)
    }

    /// The rows `range` as numbers.
    fn stretch(&self, range: Range<usize>, dtype: Dtype, op: &'static str) -> Result<Tensor> {
        self.numbers((range.start, std::ptr::null(), range.len()), dtype, op)
    }

    /// So many rows as numbers: those that the indices name, or, without any, from the row `first` on.
    fn numbers(
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
        let blocks = words.at.wrapping_byte_add(first * self.row_bytes);
        let (rows, width) = (rows as c_longlong, self.inputs as c_int);
        create(device, shape, dtype, op, |out| {
            launch!(op, er_block_rows(out, blocks, indices, rows, width, self.code, dtype, stream))
        })
    }

    /// `x · Wᵀ + b`.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        bias: Option<&Tensor>,
        op: &'static str,
    ) -> Result<Tensor> {
        let (shape, dtype) = ((x.dims()[0], self.outputs), Dtype::of(x, op)?);
        create(x.device(), shape, dtype, op, |y| {
            if shape.0 <= FEW {
                return self.few(y, x, bias, 0.0, op);
            }
            let into = match bias {
                None => Into::Replace,
                Some(bias) => {
                    linear::set_rows(y, dtype, bias, shape, 0.0, Stream::of(x)?, op)?;
                    Into::Add
                }
            };
            self.many((y, dtype), x, into, op)
        })
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
        if rows <= FEW && dtype == held {
            write([(&sum, held)], op, |[at]| self.few(at, x, bias, 1.0, op))?;
            return Ok(sum);
        }
        if let Some(bias) = bias {
            linear::add_bias(&sum, bias, op)?;
        }
        write([(&sum, held)], op, |[at]| self.many((at, held), x, Into::Add, op))?;
        Ok(sum)
    }

    /// `y = x · Wᵀ`, or `y += x · Wᵀ`, with some of the blocks as numbers at a time.
    fn many(
        &self,
        (y, held): (*mut c_void, Dtype),
        x: &Tensor,
        into: Into,
        op: &'static str,
    ) -> Result<()> {
        let (rows, dtype) = (x.dims()[0], Dtype::of(x, op)?);
        let numbers = read(x, op)?.float()?;
        let left = Factor::new(&numbers, rows, self.inputs);
        let together = (TOGETHER / self.inputs.max(1)).max(1);
        for first in (0..self.outputs).step_by(together) {
            let count = together.min(self.outputs - first);
            let weight = self.stretch(first..first + count, dtype, op)?;
            let weight = read(&weight, op)?;
            let right = Factor::new(&weight, count, self.inputs).t();
            let to = Destination::new(y.wrapping_byte_add(first * held.bytes()), held, rows, count);
            let to = Destination { row_stride: self.outputs, ..to };
            product(x.device(), to, left, right, into.into(), op)?;
        }
        Ok(())
    }

    /// `y = keep · y + x · Wᵀ + b` for a few rows, of y as x is held.
    fn few(
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
