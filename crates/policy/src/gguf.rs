//! GGUF files, the format of llama.cpp: a decoder, quantised or not, with its configuration and its tokenizer.
//!
//! A file is mapped and held against itself when it is opened: every count, place and shape that its header gives.
//! Its numbers stay where they are until they are asked for.

mod config;
mod cursor;
mod fault;
mod header;
mod metadata;
mod names;
mod place;
#[cfg(test)]
mod tests;
mod tokenizer;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::Tensor;
use embodied_r_kernels::quantized::{ByteRange, QuantizedMatrix, SharedBytes};
use indexmap::IndexMap;
use rayon::prelude::*;

use crate::config::ModelConfig;
use crate::error::{During, Error, Result};
use crate::weights::{self, WeightFault, tensor_shapes};
use config::Architecture;
pub use fault::GgufFault;
use header::{Header, StoredTensor};
use metadata::Metadata;
pub use place::find;
pub(crate) use place::is_gguf;
pub(crate) use tokenizer::Files as TokenizerFiles;

/// How a file's name ends.
pub const EXTENSION: &str = "gguf";

/// An open GGUF file whose tensors are those of its configuration.
pub struct GgufModel {
    path: PathBuf,
    bytes: SharedBytes,
    metadata: Metadata,
    config: ModelConfig,
    architecture: Architecture,
    /// By canonical name, in the model's order.
    tensors: IndexMap<String, StoredTensor>,
}

impl fmt::Debug for GgufModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GgufModel").field("path", &self.path).field("config", &self.config).finish()
    }
}

/// A tensor of a GGUF file.
#[derive(Debug, Clone)]
pub enum GgufTensor {
    /// A product's weight or an embedding, as it is stored.
    Matrix(QuantizedMatrix),
    /// A bias or a norm, as `f32`.
    Vector(Tensor),
}

impl GgufTensor {
    /// The numbers as `f32`.
    ///
    /// # Errors
    /// There is no room for them.
    pub fn dequantize(&self) -> Result<Tensor> {
        match self {
            Self::Matrix(matrix) => Ok(matrix.dequantize()?),
            Self::Vector(tensor) => Ok(tensor.clone()),
        }
    }
}

impl GgufModel {
    /// Opens the file `path`.
    ///
    /// # Errors
    /// [`Error::Gguf`] if the file is broken or describes what is not supported, [`Error::Config`] if its sizes do not
    /// fit each other, and [`Error::Weights`] with every tensor that is missing, misshapen or not expected.
    pub fn open(path: &Path) -> Result<Self> {
        let shared: SharedBytes = Arc::new(weights::map(path)?);
        Self::new(path, shared)
    }

    fn new(path: &Path, bytes: SharedBytes) -> Result<Self> {
        let failed = |fault: GgufFault| Error::Gguf { path: path.to_owned(), fault: fault.into() };
        let header = header::read(&bytes).map_err(failed)?;
        let (architecture, config) = config::read(&header).map_err(failed)?;
        config.check().map_err(|faults| Error::Config { path: path.to_owned(), faults })?;
        let Header { metadata, tensors } = header;
        let tensors = fitting(&config, tensors)
            .map_err(|faults| Error::Weights { dir: path.to_owned(), faults })?;
        Ok(Self { path: path.to_owned(), bytes, metadata, config, architecture, tensors })
    }

    /// The decoder's shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Canonical names of the tensors, as [`tensor_shapes`] gives them.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The tensor of a canonical name. Query and key products of the architecture `llama` get their rows back in
    /// `transformers`' order, and are copied for that; other matrices are read from the file.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] if the model has no such tensor.
    pub fn tensor(&self, name: &str) -> Result<GgufTensor> {
        let missing = || Error::MissingTensor { name: name.to_owned() };
        let stored = self.tensors.get(name).ok_or_else(missing)?;
        let (outputs, inputs) = match stored.shape.as_slice() {
            [outputs, inputs] => (*outputs, *inputs),
            shape => (1, shape.iter().product()),
        };
        let bytes = ByteRange::new(SharedBytes::clone(&self.bytes), stored.range.clone())?;
        let matrix = QuantizedMatrix::new(stored.format, outputs, inputs, bytes)?;
        if stored.shape.len() == 1 {
            let numbers = matrix.dequantize()?.flatten_all().during(format!("read `{name}`"))?;
            return Ok(GgufTensor::Vector(numbers));
        }
        match self.is_interleaved(name) {
            true => self.in_halves(&matrix).map(GgufTensor::Matrix),
            false => Ok(GgufTensor::Matrix(matrix)),
        }
    }

    /// All numbers as `f32`, by canonical name in the model's order.
    ///
    /// # Errors
    /// There is no room for them.
    pub fn dequantize(&self) -> Result<IndexMap<String, Tensor>> {
        let read = |name: &String| Ok((name.clone(), self.tensor(name)?.dequantize()?));
        let names: Vec<&String> = self.tensors.keys().collect();
        names.into_par_iter().map(read).collect::<Result<Vec<_>>>().map(IndexMap::from_iter)
    }

    /// The tokenizer as files of a Hugging Face folder, if the file has one.
    pub(crate) fn tokenizer(&self) -> Result<Option<TokenizerFiles>> {
        let failed =
            |fault: GgufFault| Error::Gguf { path: self.path.clone(), fault: fault.into() };
        tokenizer::read(&self.metadata).map_err(failed)
    }

    fn is_interleaved(&self, name: &str) -> bool {
        let rotated = name.ends_with(".self_attn.q_proj.weight")
            || name.ends_with(".self_attn.k_proj.weight");
        rotated && self.architecture == Architecture::Llama
    }

    fn in_halves(&self, matrix: &QuantizedMatrix) -> Result<QuantizedMatrix> {
        let mut bytes = Vec::with_capacity(matrix.byte_len());
        for row in 0..matrix.outputs() {
            let stored = names::interleaved(row, self.config.head_dim);
            bytes.extend_from_slice(matrix.row(stored).unwrap_or_default());
        }
        let (outputs, inputs) = (matrix.outputs(), matrix.inputs());
        Ok(QuantizedMatrix::new(matrix.format(), outputs, inputs, bytes.into())?)
    }
}

/// The tensors of a configuration, by canonical name, or all faults.
fn fitting(
    config: &ModelConfig,
    stored: IndexMap<String, StoredTensor>,
) -> Result<IndexMap<String, StoredTensor>, Vec<WeightFault>> {
    let wanted = tensor_shapes(config);
    let mut found = IndexMap::new();
    let mut faults = Vec::new();
    for (name, tensor) in stored {
        let canonical = names::canonical(&name).filter(|name| wanted.contains_key(name));
        let Some(canonical) = canonical else {
            faults.push(WeightFault::Extra { name });
            continue;
        };
        let want = &wanted[&canonical];
        if tensor.shape != *want {
            let (found, want) = (tensor.shape.clone(), want.clone());
            faults.push(WeightFault::Misshapen { name, found, want });
        }
        found.insert(canonical, tensor);
    }
    let mut tensors = IndexMap::with_capacity(wanted.len());
    for name in wanted.into_keys() {
        match found.swap_remove(&name) {
            Some(tensor) => {
                tensors.insert(name, tensor);
            }
            None => faults.push(WeightFault::Missing { name }),
        }
    }
    if faults.is_empty() { Ok(tensors) } else { Err(faults) }
}
