//! GGUF files, the format of llama.cpp: a decoder, optionally quantized, with its configuration and tokenizer.
//!
//! A file is memory-mapped, and every count, offset and shape of its header is validated when it is opened. Tensors
//! are read on demand.
//!
//! candle's `gguf_file::Content::read` does not do: it takes 32 bytes of memory per element of a metadata array (2 GB
//! for a file of 64 MB) and panics if `general.alignment` is 0. It also keeps the last of two equal keys or tensors,
//! replaces invalid UTF-8, drops zeros at the end of strings, and names neither key nor tensor in its errors.

mod config;
mod cursor;
mod fault;
mod file;
mod header;
mod locate;
mod metadata;
mod names;
mod tensor;
#[cfg(test)]
mod tests;
mod tokenizer;

use std::fmt;
use std::path::Path;

use candle_core::Tensor;
use embodied_r_kernels::quantized::QuantizedMatrix;
use indexmap::IndexMap;
use rayon::prelude::*;

use crate::config::{GgufArchitecture, ModelConfig};
use crate::error::{Error, Result};
use crate::layer::{Module, Part};
use crate::tensor_parallel::TensorSlice;
use crate::tensors::{Place, tensor_shapes};
use crate::weights::WeightFault;
pub use fault::GgufFault;
pub use file::GgufFile;
use header::TensorInfo;
pub(crate) use locate::is_gguf;
pub use locate::{EXTENSION, find, find_mmproj, folder};
pub use tensor::GgufTensor;
pub(crate) use tokenizer::Files as TokenizerFiles;

/// An open GGUF file whose tensors match its configuration.
pub struct GgufModel {
    file: GgufFile,
    config: ModelConfig,
    architecture: &'static GgufArchitecture,
    /// By canonical name, in the model's order.
    tensors: IndexMap<String, TensorInfo>,
}

impl fmt::Debug for GgufModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GgufModel")
            .field("path", &self.path())
            .field("config", &self.config)
            .finish()
    }
}

impl GgufModel {
    /// Opens the file `path`.
    ///
    /// # Errors
    /// [`Error::Gguf`] if the file is corrupt or unsupported, [`Error::Config`] if its sizes are inconsistent, and
    /// [`Error::Weights`] with every missing, misshapen or unexpected tensor.
    pub fn open(path: &Path) -> Result<Self> {
        Self::of_file(GgufFile::open(path)?)
    }

    fn of_file(file: GgufFile) -> Result<Self> {
        let (architecture, config) = config::read(&file).map_err(|fault| file.error(fault))?;
        let path = || file.path().to_owned();
        config.check().map_err(|faults| Error::Config { path: path(), faults })?;
        let tensors = fitting(&config, file.tensors())
            .map_err(|faults| Error::Weights { dir: path(), faults })?;
        Ok(Self { file, config, architecture, tensors })
    }

    /// The decoder's configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Canonical names of the tensors, as in [`tensor_shapes`].
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The tensor of a canonical name. Query and key weights of the architecture `llama` are copied to restore the row
    /// order of `transformers`; other matrices are read from the mapped file.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] if the model has no such tensor.
    pub fn tensor(&self, name: &str) -> Result<GgufTensor> {
        self.tensor_slice(name, &TensorSlice::Whole)
    }

    /// A slice of the tensor of a canonical name, as [`Self::tensor`]; nothing else is read. Rows are whole heads.
    ///
    /// # Errors
    /// As [`Self::tensor`], and [`Error::ShardBlock`] if columns do not align with quantization blocks.
    pub(crate) fn tensor_slice(&self, name: &str, slice: &TensorSlice) -> Result<GgufTensor> {
        match self.file.read_slice(name, self.stored(name)?, slice)? {
            GgufTensor::Matrix(matrix) if self.is_interleaved(name) => {
                self.deinterleaved(&matrix).map(GgufTensor::Matrix)
            }
            tensor => Ok(tensor),
        }
    }

    /// Weights per quantization block of the tensor of a canonical name.
    pub(crate) fn block_len(&self, name: &str) -> Result<usize> {
        Ok(self.stored(name)?.format.block_len())
    }

    fn stored(&self, name: &str) -> Result<&TensorInfo> {
        let missing = || Error::MissingTensor { name: name.to_owned() };
        self.tensors.get(name).ok_or_else(missing)
    }

    /// All tensors as `f32`, by canonical name in the model's order.
    ///
    /// # Errors
    /// Out of memory.
    pub fn dequantize(&self) -> Result<IndexMap<String, Tensor>> {
        let read = |name: &String| Ok((name.clone(), self.tensor(name)?.dequantize()?));
        let names: Vec<&String> = self.tensors.keys().collect();
        names.into_par_iter().map(read).collect::<Result<Vec<_>>>().map(IndexMap::from_iter)
    }

    /// The tokenizer in the file format of a Hugging Face folder, if the file has one.
    pub(crate) fn tokenizer(&self) -> Result<Option<TokenizerFiles>> {
        tokenizer::read(self.file.metadata()).map_err(|fault| self.file.error(fault))
    }

    fn is_interleaved(&self, name: &str) -> bool {
        let rotated = [Module::Q, Module::K].map(Part::Weight);
        matches!(Place::of(name), Some(Place::Layer(_, part)) if rotated.contains(&part))
            && self.architecture.is_interleaved
    }

    fn deinterleaved(&self, matrix: &QuantizedMatrix) -> Result<QuantizedMatrix> {
        let mut bytes = Vec::with_capacity(matrix.byte_len());
        for row in 0..matrix.outputs() {
            let stored = names::interleaved(row, self.config.head_dim);
            bytes.extend_from_slice(matrix.row(stored).unwrap_or_default());
        }
        let (outputs, inputs) = (matrix.outputs(), matrix.inputs());
        Ok(QuantizedMatrix::new(matrix.format(), outputs, inputs, bytes.into())?)
    }
}

/// Matches the stored tensors against the configuration, by canonical name.
fn fitting(
    config: &ModelConfig,
    stored: &IndexMap<String, TensorInfo>,
) -> Result<IndexMap<String, TensorInfo>, Vec<WeightFault>> {
    let wanted = tensor_shapes(config);
    let mut found = IndexMap::new();
    let mut faults = Vec::new();
    for (name, tensor) in stored {
        let canonical = Place::of_gguf(name).map(Place::name);
        let canonical = canonical.filter(|name| wanted.contains_key(name));
        let Some(canonical) = canonical else {
            faults.push(WeightFault::Unexpected { name: name.clone() });
            continue;
        };
        let want = &wanted[&canonical];
        if tensor.shape != *want {
            let (name, found, want) = (name.clone(), tensor.shape.clone(), want.clone());
            faults.push(WeightFault::ShapeMismatch { name, found, want });
        }
        found.insert(canonical, tensor.clone());
    }
    let mut tensors = IndexMap::with_capacity(wanted.len());
    for name in wanted.into_keys() {
        match found.swap_remove(&name) {
            Some(tensor) => {
                tensors.insert(name, tensor);
            }
            // By the file's name for it.
            None => {
                let name = Place::of(&name).map_or(name, Place::gguf_name);
                faults.push(WeightFault::Missing { name });
            }
        }
    }
    if faults.is_empty() { Ok(tensors) } else { Err(faults) }
}
