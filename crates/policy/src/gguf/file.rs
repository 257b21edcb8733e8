//! An open GGUF file: its values by key, and its tensors by the names that it gives them.

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
use super::header::{self, Header, StoredTensor};
use super::metadata::Metadata;
use crate::error::{During, Error, Result};
use crate::tensor_parallel::Slice;
use crate::weights::{self, WeightFault};

/// An open GGUF file, whatever it describes.
pub struct GgufFile {
    path: PathBuf,
    bytes: SharedBytes,
    metadata: Metadata,
    tensors: IndexMap<String, StoredTensor>,
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

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    pub(super) fn tensors(&self) -> &IndexMap<String, StoredTensor> {
        &self.tensors
    }

    /// An [`Error::Gguf`] about this file.
    #[must_use]
    pub fn error(&self, fault: GgufFault) -> Error {
        Error::Gguf { path: self.path.clone(), fault: fault.into() }
    }

    fn told<T>(&self, value: fault::Result<Option<T>>) -> Result<Option<T>> {
        value.map_err(|fault| self.error(fault))
    }

    /// The text of a key, if it is there.
    ///
    /// # Errors
    /// It is no text.
    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        self.told(self.metadata.text(key))
    }

    /// The integer of a key, if it is there.
    ///
    /// # Errors
    /// It is no integer, or negative.
    pub fn count(&self, key: &str) -> Result<Option<u64>> {
        self.told(self.metadata.count(key))
    }

    /// The numbers of a key, if it is there.
    ///
    /// # Errors
    /// It is no list of 32-bit floats.
    pub fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>> {
        self.told(self.metadata.numbers(key))
    }

    /// The sizes of a tensor, if it is there, the one whose numbers lie side by side last.
    #[must_use]
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        Some(&self.tensors.get(name)?.shape)
    }

    /// A tensor, by the name that the file gives it. One of more than two sizes is a matrix whose inputs are all sizes
    /// but the first.
    ///
    /// # Errors
    /// [`Error::Weights`] if it is not there or of another shape.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<GgufTensor> {
        let fault = match self.tensors.get(name) {
            Some(stored) if stored.shape == shape => return self.read(name, stored),
            Some(stored) => WeightFault::Misshapen {
                name: name.to_owned(),
                found: stored.shape.clone(),
                want: shape.to_vec(),
            },
            None => WeightFault::Missing { name: name.to_owned() },
        };
        Err(Error::Weights { dir: self.path.clone(), faults: vec![fault] })
    }

    /// What is stored; `name` is for the error.
    pub(super) fn read(&self, name: &str, stored: &StoredTensor) -> Result<GgufTensor> {
        self.read_slice(name, stored, &Slice::Whole)
    }

    /// A part of what is stored. Rows stay in the file, columns are copied.
    pub(super) fn read_slice(
        &self,
        name: &str,
        stored: &StoredTensor,
        slice: &Slice,
    ) -> Result<GgufTensor> {
        let (outputs, inputs) = match stored.shape.as_slice() {
            [inputs] => (1, *inputs),
            [outputs, inputs @ ..] => (*outputs, inputs.iter().product()),
            [] => (0, 0),
        };
        let shared = || SharedBytes::clone(&self.bytes);
        let (format, is_matrix) = (stored.format, stored.shape.len() > 1);
        let matrix = match slice {
            Slice::Rows(rows) if is_matrix => {
                // The header has been held against the sizes.
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
            Slice::Columns(taken) => columns(name, &matrix, taken).map(GgufTensor::Matrix),
            _ if is_matrix => Ok(GgufTensor::Matrix(matrix)),
            _ => {
                let numbers = matrix.dequantize()?.flatten_all();
                let numbers: Tensor = numbers.during(format!("read `{name}`"))?;
                match slice {
                    Slice::Rows(rows) => {
                        Ok(GgufTensor::Vector(memory::rows(&numbers, rows.clone())?))
                    }
                    _ => Ok(GgufTensor::Vector(numbers)),
                }
            }
        }
    }
}

/// Some columns of a matrix.
fn columns(name: &str, matrix: &QuantizedMatrix, taken: &Range<usize>) -> Result<QuantizedMatrix> {
    let format = matrix.format();
    let (block, width) = (format.block_len(), format.block_bytes());
    let cut = [taken.start, taken.end].into_iter().find(|column| !column.is_multiple_of(block));
    if let Some(column) = cut {
        let (name, format) = (name.to_owned(), format.name());
        return Err(Error::SplitBlock { name, column, format, block });
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
