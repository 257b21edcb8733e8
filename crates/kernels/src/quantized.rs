//! Matrices of weights stored in blocks of few bits, as GGUF files hold them.
//!
//! A row of weights is a row of blocks, each with its scale, so that any stretch of whole blocks can be read on its
//! own. Nothing is unpacked beforehand: the bytes may be a part of a mapped file.

mod blocks;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use candle_core::Tensor;
use candle_core::quantized::{GgmlDType, QTensor};
use rayon::prelude::*;

use crate::error::{Error, Result, check};
use crate::memory;

const OP: &str = "quantized";

/// How the numbers of a matrix are stored; names and layouts are ggml's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BlockFormat {
    /// 32-bit floats.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// 4 bits and a scale for 32 numbers.
    Q4_0,
    /// 4 bits, a scale and a smallest number for 32 numbers.
    Q4_1,
    /// 5 bits and a scale for 32 numbers.
    Q5_0,
    /// 5 bits, a scale and a smallest number for 32 numbers.
    Q5_1,
    /// 8 bits and a scale for 32 numbers.
    Q8_0,
    /// 4 bits; scales and smallest numbers for each 32 of 256, themselves of 6 bits.
    Q4K,
    /// 5 bits; scales and smallest numbers for each 32 of 256, themselves of 6 bits.
    Q5K,
    /// 6 bits; scales for each 16 of 256, themselves of 8 bits.
    Q6K,
}

impl BlockFormat {
    /// Every format.
    pub const ALL: [Self; 11] = [
        Self::F32,
        Self::F16,
        Self::Bf16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
    ];

    /// The name that ggml gives it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
        }
    }

    /// Numbers in a block.
    pub fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// Bytes of a row of `inputs` numbers; `None` if they are no whole blocks, or too many.
    pub fn row_bytes(self, inputs: usize) -> Option<usize> {
        let whole = inputs.is_multiple_of(self.block_len());
        whole.then(|| (inputs / self.block_len()).checked_mul(self.block_bytes())).flatten()
    }
}

/// Bytes that several matrices may share, such as a mapped file.
pub type SharedBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// A stretch of shared bytes.
#[derive(Clone)]
pub struct ByteRange {
    owner: SharedBytes,
    range: Range<usize>,
}

impl ByteRange {
    /// The bytes `range` of `owner`.
    ///
    /// # Errors
    /// The range reaches beyond the bytes that there are.
    pub fn new(owner: SharedBytes, range: Range<usize>) -> Result<Self> {
        let length = (*owner).as_ref().len();
        check(range.start <= range.end && range.end <= length, OP, || {
            format!("the bytes {range:?} are asked for, there are {length}")
        })?;
        Ok(Self { owner, range })
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        (*self.owner).as_ref().get(self.range.clone()).unwrap_or_default()
    }
}

impl From<Vec<u8>> for ByteRange {
    fn from(bytes: Vec<u8>) -> Self {
        let range = 0..bytes.len();
        Self { owner: Arc::new(bytes), range }
    }
}

/// A weight of shape (outputs, inputs) in blocks along its inputs. A clone shares the bytes.
#[derive(Clone)]
pub struct QuantizedMatrix {
    format: BlockFormat,
    outputs: usize,
    inputs: usize,
    row_bytes: usize,
    bytes: ByteRange,
}

impl fmt::Debug for QuantizedMatrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {})", self.format.name(), self.outputs, self.inputs)
    }
}

impl QuantizedMatrix {
    /// A matrix over `bytes`, its rows one behind the other.
    ///
    /// # Errors
    /// A row is no whole number of blocks, or `bytes` are more or fewer than the rows have.
    pub fn new(
        format: BlockFormat,
        outputs: usize,
        inputs: usize,
        bytes: ByteRange,
    ) -> Result<Self> {
        let row_bytes = format.row_bytes(inputs);
        let (name, block) = (format.name(), format.block_len());
        check(row_bytes.is_some(), OP, || {
            format!("a row has {inputs} numbers, {name} takes multiples of {block}")
        })?;
        let row_bytes = row_bytes.unwrap_or_default();
        let (want, found) = (outputs.checked_mul(row_bytes), bytes.as_slice().len());
        check(want == Some(found), OP, || {
            let want = want.map_or("more than there can be".to_owned(), |want| want.to_string());
            format!("{outputs} rows of {inputs} in {name} have {want} bytes, found {found}")
        })?;
        Ok(Self { format, outputs, inputs, row_bytes, bytes })
    }

    /// The numbers of `weight` (outputs, inputs) as the nearest that `format` can express, as ggml chooses them.
    ///
    /// # Errors
    /// A row is no whole number of blocks, or nothing is quantised to the format.
    pub fn quantize(weight: &Tensor, format: BlockFormat) -> Result<Self> {
        let (outputs, inputs) = weight.dims2()?;
        let known = match format {
            BlockFormat::Q8_0 => Some(GgmlDType::Q8_0),
            BlockFormat::Q4K => Some(GgmlDType::Q4K),
            _ => None,
        };
        let refused =
            || Error::Shape { op: OP, what: format!("nothing is quantised to {}", format.name()) };
        // candle takes the numbers from the beginning of the memory, wherever those of the tensor lie.
        let weight = memory::copy(weight)?;
        let blocks = QTensor::quantize(&weight, known.ok_or_else(refused)?)?;
        Self::new(format, outputs, inputs, ByteRange::from(blocks.data()?.into_owned()))
    }

    /// How the numbers are stored.
    pub fn format(&self) -> BlockFormat {
        self.format
    }

    /// Number of rows.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Numbers of a row.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Bytes that the matrix takes.
    pub fn byte_len(&self) -> usize {
        self.bytes.as_slice().len()
    }

    /// All of them, row behind row.
    #[cfg(device)]
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.as_slice()
    }

    /// The stored bytes of a row, if there is such a row.
    pub fn row(&self, row: usize) -> Option<&[u8]> {
        let start = (row < self.outputs).then(|| row * self.row_bytes)?;
        self.bytes.as_slice().get(start..start + self.row_bytes)
    }

    /// Writes the numbers of `columns` in the row `row` to `out`.
    ///
    /// # Shapes
    /// `columns` begins and ends between two blocks; `out` (columns).
    ///
    /// # Errors
    /// There is no such row or column, `columns` cuts a block, or `out` has another length.
    #[inline]
    pub fn read_row(&self, row: usize, columns: Range<usize>, out: &mut [f32]) -> Result<()> {
        let block = self.format.block_len();
        let whole = columns.start.is_multiple_of(block) && columns.end.is_multiple_of(block);
        let inside = columns.start <= columns.end && columns.end <= self.inputs;
        check(whole && inside && out.len() == columns.len(), OP, || {
            let (inputs, room) = (self.inputs, out.len());
            format!("columns {columns:?} of {inputs} in blocks of {block}, room for {room}")
        })?;
        check(row < self.outputs, OP, || format!("row {row} of {}", self.outputs))?;
        self.read_blocks(row, columns, out);
        Ok(())
    }

    /// [`Self::read_row`] where all is known to fit.
    #[inline]
    pub(crate) fn read_blocks(&self, row: usize, columns: Range<usize>, out: &mut [f32]) {
        let (block, size) = (self.format.block_len(), self.format.block_bytes());
        let first = row * self.row_bytes;
        let bytes = first + columns.start / block * size..first + columns.end / block * size;
        blocks::dequantize(self.format, &self.bytes.as_slice()[bytes], out);
    }

    /// All numbers.
    ///
    /// # Shapes
    /// Gives (outputs, inputs) in `f32`.
    ///
    /// # Errors
    /// Only if the tensor cannot be made.
    pub fn dequantize(&self) -> Result<Tensor> {
        let mut values = vec![0.0; self.outputs * self.inputs];
        if self.inputs > 0 {
            let rows = values.par_chunks_mut(self.inputs).enumerate();
            rows.try_for_each(|(row, out)| self.read_row(row, 0..self.inputs, out))?;
        }
        memory::tensor(values, (self.outputs, self.inputs))
    }
}
