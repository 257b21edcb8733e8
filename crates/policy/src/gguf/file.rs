//! An open GGUF file: its values by key, and its tensors by the names that it gives them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::Tensor;
use embodied_r_kernels::quantized::{ByteRange, QuantizedMatrix, SharedBytes};
use indexmap::IndexMap;

use super::GgufTensor;
use super::fault::{self, GgufFault};
use super::header::{self, Header, StoredTensor};
use super::metadata::Metadata;
use crate::error::{During, Error, Result};
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
        let (outputs, inputs) = match stored.shape.as_slice() {
            [inputs] => (1, *inputs),
            [outputs, inputs @ ..] => (*outputs, inputs.iter().product()),
            [] => (0, 0),
        };
        let bytes = ByteRange::new(SharedBytes::clone(&self.bytes), stored.range.clone())?;
        let matrix = QuantizedMatrix::new(stored.format, outputs, inputs, bytes)?;
        if stored.shape.len() > 1 {
            return Ok(GgufTensor::Matrix(matrix));
        }
        let numbers: Tensor =
            matrix.dequantize()?.flatten_all().during(format!("read `{name}`"))?;
        Ok(GgufTensor::Vector(numbers))
    }
}
