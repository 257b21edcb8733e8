//! Block-quantized weight matrices, as in GGUF files.
//!
//! A row is a sequence of blocks, each with its scale, so any range of whole blocks can be dequantized on its own.
//! Nothing is unpacked up front: the bytes may be part of a memory-mapped file.

pub(crate) mod blocks;
mod format;
#[cfg(test)]
pub(crate) mod tests;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use candle_core::Tensor;
use candle_core::quantized::{GgmlDType, QTensor};
use rayon::prelude::*;

use crate::error::{Error, Result, check};
use crate::memory;
pub use format::BlockFormat;

const OP: &str = "quantized";

/// Bytes that several matrices may share, such as a memory-mapped file.
pub type SharedBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// A range of shared bytes.
#[derive(Clone)]
pub struct ByteRange {
    owner: SharedBytes,
    range: Range<usize>,
}

impl ByteRange {
    /// Bytes `range` of `owner`.
    ///
    /// # Errors
    /// The range is out of bounds.
    pub fn new(owner: SharedBytes, range: Range<usize>) -> Result<Self> {
        let length = (*owner).as_ref().len();
        check(range.start <= range.end && range.end <= length, OP, || {
            format!("bytes {range:?} are out of range for {length} bytes")
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

/// A weight (outputs, inputs), quantized in blocks along its inputs. A clone shares the bytes.
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
    /// A matrix over `bytes`, rows contiguous.
    ///
    /// # Errors
    /// A row is not a whole number of blocks, or the number of bytes differs from the rows'.
    pub fn new(
        format: BlockFormat,
        outputs: usize,
        inputs: usize,
        bytes: ByteRange,
    ) -> Result<Self> {
        let row_bytes = format.row_bytes(inputs);
        let (name, block) = (format.name(), format.block_len());
        check(row_bytes.is_some(), OP, || {
            format!("a row has {inputs} elements, {name} needs multiples of {block}")
        })?;
        let row_bytes = row_bytes.unwrap_or_default();
        let (expected, found) = (outputs.checked_mul(row_bytes), bytes.as_slice().len());
        check(expected == Some(found), OP, || {
            let expected = expected.map_or("too many".to_owned(), |expected| expected.to_string());
            format!("{outputs} rows of {inputs} in {name} need {expected} bytes, found {found}")
        })?;
        Ok(Self { format, outputs, inputs, row_bytes, bytes })
    }

    /// Quantizes `weight` (outputs, inputs) to `format`, as ggml does.
    ///
    /// # Errors
    /// A row is not a whole number of blocks, or quantization to the format is not supported.
    pub fn quantize(weight: &Tensor, format: BlockFormat) -> Result<Self> {
        let (outputs, inputs) = weight.dims2()?;
        let known = match format {
            BlockFormat::Q5_0 => Some(GgmlDType::Q5_0),
            BlockFormat::Q8_0 => Some(GgmlDType::Q8_0),
            BlockFormat::Q4K => Some(GgmlDType::Q4K),
            _ => None,
        };
        let refused = || Error::Shape {
            op: OP,
            what: format!("quantization to {} is not supported", format.name()),
        };
        // candle reads from the start of the storage, ignoring a view's offset.
        let weight = memory::copy(weight)?;
        let blocks = QTensor::quantize(&weight, known.ok_or_else(refused)?)?;
        Self::new(format, outputs, inputs, ByteRange::from(blocks.data()?.into_owned()))
    }

    /// The quantization format.
    pub fn format(&self) -> BlockFormat {
        self.format
    }

    /// Number of rows.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Elements per row.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Size in bytes.
    pub fn byte_len(&self) -> usize {
        self.bytes.as_slice().len()
    }

    /// All bytes, row-major.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.as_slice()
    }

    /// The bytes of a row; `None` if out of range.
    pub fn row(&self, row: usize) -> Option<&[u8]> {
        let start = (row < self.outputs).then(|| row * self.row_bytes)?;
        self.bytes.as_slice().get(start..start + self.row_bytes)
    }

    /// Dequantizes `columns` of a row into `out`.
    ///
    /// # Shapes
    /// `columns` starts and ends at block boundaries; `out` (columns).
    ///
    /// # Errors
    /// The row or the columns are out of range, `columns` splits a block, or `out` has another length.
    #[inline]
    pub fn read_row(&self, row: usize, columns: Range<usize>, out: &mut [f32]) -> Result<()> {
        let block = self.format.block_len();
        let whole = columns.start.is_multiple_of(block) && columns.end.is_multiple_of(block);
        let inside = columns.start <= columns.end && columns.end <= self.inputs;
        check(whole && inside && out.len() == columns.len(), OP, || {
            let (inputs, len) = (self.inputs, out.len());
            format!(
                "columns {columns:?} of {inputs} in blocks of {block} do not fit an output of {len}"
            )
        })?;
        check(row < self.outputs, OP, || format!("row {row} of {}", self.outputs))?;
        self.read_blocks(row, columns, out);
        Ok(())
    }

    /// [`Self::read_row`] without checks.
    #[inline]
    pub(crate) fn read_blocks(&self, row: usize, columns: Range<usize>, out: &mut [f32]) {
        let (block, size) = (self.format.block_len(), self.format.block_bytes());
        let first = row * self.row_bytes;
        let bytes = first + columns.start / block * size..first + columns.end / block * size;
        blocks::dequantize(self.format, &self.bytes.as_slice()[bytes], out);
    }

    /// Dequantizes the whole matrix.
    ///
    /// # Shapes
    /// Returns (outputs, inputs) in `f32`.
    ///
    /// # Errors
    /// The tensor cannot be created.
    pub fn dequantize(&self) -> Result<Tensor> {
        let mut values = vec![0.0; self.outputs * self.inputs];
        if self.inputs > 0 {
            let rows = values.par_chunks_mut(self.inputs).enumerate();
            rows.try_for_each(|(row, out)| self.read_row(row, 0..self.inputs, out))?;
        }
        memory::tensor(values, (self.outputs, self.inputs))
    }
}
