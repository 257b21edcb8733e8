//! An open GGUF file: metadata by key, and tensors by their stored names.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::Tensor;
use embodied_r_kernels::memory;
use embodied_r_kernels::quantized::{ByteRange, QuantizedMatrix, SharedBytes};
use indexmap::IndexMap;

use super::GgufTensor;
use super::fault::{self, GgufFault};
use super::header::{self, Header, TensorInfo};
use super::metadata::Metadata;
use crate::error::{Error, Result, TensorContext};
use crate::tensor_parallel::TensorSlice;
use crate::weights::{self, WeightFault};

/// An open GGUF file of any architecture.
pub struct GgufFile {
    path: PathBuf,
    bytes: SharedBytes,
    metadata: Metadata,
    tensors: IndexMap<String, TensorInfo>,
}

impl fmt::Debug for GgufFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GgufFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl GgufFile {
    /// Opens the file `path`.
    ///
    /// # Errors
    /// [`Error::Gguf`] if the file is broken.
    pub fn open(path: &Path) -> Result<Self> {
        let shared: SharedBytes = Arc::new(weights::map(path)?);
        Self::new(path, shared)
    }

    pub(super) fn new(path: &Path, bytes: SharedBytes) -> Result<Self> {
        let failed = |fault: GgufFault| Error::Gguf { path: path.to_owned(), fault: fault.into() };
        let Header { metadata, tensors } = header::read(&bytes).map_err(failed)?;
        Ok(Self { path: path.to_owned(), bytes, metadata, tensors })
    }

    /// The file's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    pub(super) fn tensors(&self) -> &IndexMap<String, TensorInfo> {
        &self.tensors
    }

    /// An [`Error::Gguf`] about this file.
    #[must_use]
    pub fn error(&self, fault: GgufFault) -> Error {
        Error::Gguf { path: self.path.clone(), fault: fault.into() }
    }

    fn in_file<T>(&self, value: fault::Result<Option<T>>) -> Result<Option<T>> {
        value.map_err(|fault| self.error(fault))
    }

    /// The string value of a key, if present.
    ///
    /// # Errors
    /// The value is not a string.
    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        self.in_file(self.metadata.text(key))
    }

    /// The integer value of a key, if present.
    ///
    /// # Errors
    /// The value is not an integer, or negative.
    pub fn count(&self, key: &str) -> Result<Option<u64>> {
        self.in_file(self.metadata.count(key))
    }

    /// The boolean value of a key, if present.
    ///
    /// # Errors
    /// The value is not a boolean.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.in_file(self.metadata.flag(key))
    }

    /// The boolean array of a key, if present.
    ///
    /// # Errors
    /// The value is not an array of booleans.
    pub fn flags(&self, key: &str) -> Result<Option<Vec<bool>>> {
        self.in_file(self.metadata.flags(key))
    }

    /// The float array of a key, if present.
    ///
    /// # Errors
    /// The value is not an array of 32-bit floats.
    pub fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>> {
        self.in_file(self.metadata.numbers(key))
    }

    /// The shape of a tensor, if present, in row-major order.
    #[must_use]
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        Some(&self.tensors.get(name)?.shape)
    }

    /// The stored names of the tensors, in the file's order.
    pub fn tensor_names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// A tensor by its stored name. Tensors of more than two dimensions become matrices whose inputs are all dimensions
    /// but the first.
    ///
    /// # Errors
    /// [`Error::Weights`] if it is missing or has another shape.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<GgufTensor> {
        self.read_slice(name, self.stored(name, shape)?, &TensorSlice::Whole)
    }

    /// The rows `rows` of a matrix, or values of a vector, by its stored name; `shape` is that of the whole tensor. Nothing
    /// else is read.
    ///
    /// # Errors
    /// As [`Self::tensor`], and if there are no such rows.
    pub fn rows(&self, name: &str, shape: &[usize], rows: Range<usize>) -> Result<GgufTensor> {
        let stored = self.stored(name, shape)?;
        if shape.first().is_none_or(|have| rows.end > *have) {
            let (name, found) = (name.to_owned(), shape.to_vec());
            let want = [&[rows.end], shape.get(1..).unwrap_or_default()].concat();
            return Err(self.weights_error(WeightFault::ShapeMismatch { name, found, want }));
        }
        self.read_slice(name, stored, &TensorSlice::Rows(rows))
    }

    fn stored(&self, name: &str, shape: &[usize]) -> Result<&TensorInfo> {
        let fault = match self.tensors.get(name) {
            Some(stored) if stored.shape == shape => return Ok(stored),
            Some(stored) => WeightFault::ShapeMismatch {
                name: name.to_owned(),
                found: stored.shape.clone(),
                want: shape.to_vec(),
            },
            None => WeightFault::Missing { name: name.to_owned() },
        };
        Err(self.weights_error(fault))
    }

    /// An [`Error::Weights`] about a tensor of this file.
    #[must_use]
    pub fn weights_error(&self, fault: WeightFault) -> Error {
        Error::Weights { dir: self.path.clone(), faults: vec![fault] }
    }

    /// Reads a slice of a stored tensor. Rows stay in the mapped file, columns are copied.
    pub(super) fn read_slice(
        &self,
        name: &str,
        stored: &TensorInfo,
        slice: &TensorSlice,
    ) -> Result<GgufTensor> {
        let (outputs, inputs) = match stored.shape.as_slice() {
            [inputs] => (1, *inputs),
            [outputs, inputs @ ..] => (*outputs, inputs.iter().product()),
            [] => (0, 0),
        };
        let shared = || SharedBytes::clone(&self.bytes);
        let (format, is_matrix) = (stored.format, stored.shape.len() > 1);
        let matrix = match slice {
            TensorSlice::Rows(rows) if is_matrix => {
                // The header has validated the sizes.
                let width = format.row_bytes(inputs).unwrap_or_default();
                let start = stored.range.start;
                let bytes = start + rows.start * width..start + rows.end * width;
                let bytes = ByteRange::new(shared(), bytes)?;
                QuantizedMatrix::new(format, rows.len(), inputs, bytes)?
            }
            _ => {
                let bytes = ByteRange::new(shared(), stored.range.clone())?;
                QuantizedMatrix::new(format, outputs, inputs, bytes)?
            }
        };
        match slice {
            TensorSlice::Columns(taken) => columns(name, &matrix, taken).map(GgufTensor::Matrix),
            _ if is_matrix => Ok(GgufTensor::Matrix(matrix)),
            _ => {
                let numbers = matrix.dequantize()?.flatten_all();
                let numbers: Tensor = numbers.context(format!("read `{name}`"))?;
                match slice {
                    TensorSlice::Rows(rows) => {
                        Ok(GgufTensor::Vector(memory::rows(&numbers, rows.clone())?))
                    }
                    _ => Ok(GgufTensor::Vector(numbers)),
                }
            }
        }
    }
}

/// Copies columns of a matrix.
fn columns(name: &str, matrix: &QuantizedMatrix, taken: &Range<usize>) -> Result<QuantizedMatrix> {
    let format = matrix.format();
    let (block, width) = (format.block_len(), format.block_bytes());
    let cut = [taken.start, taken.end].into_iter().find(|column| !column.is_multiple_of(block));
    if let Some(column) = cut {
        let (name, format) = (name.to_owned(), format.name());
        return Err(Error::ShardBlock { name, column, format, block });
    }
    let part = taken.start / block * width..taken.end / block * width;
    let mut bytes = Vec::with_capacity(matrix.outputs() * part.len());
    for row in 0..matrix.outputs() {
        bytes.extend_from_slice(
            matrix.row(row).unwrap_or_default().get(part.clone()).unwrap_or_default(),
        );
    }
    Ok(QuantizedMatrix::new(format, matrix.outputs(), taken.len(), bytes.into())?)
}
