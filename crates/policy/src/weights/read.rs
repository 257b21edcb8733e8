//! Reads the weight files of a folder.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use embodied_r_kernels::memory;
use half::bf16;
use indexmap::IndexMap;
use rayon::prelude::*;
use safetensors::tensor::Dtype;
use serde::Deserialize;

use super::file::{TensorInfo, WeightFile};
use super::names::canonical;
use super::{INDEX_FILE, SINGLE_FILE, WeightFault};
use crate::config::ModelConfig;
use crate::error::{Error, Result, TensorContext};
use crate::tensor_parallel::TensorSlice;
use crate::tensors::{EMBEDDING, HEAD, tensor_shapes};

/// Loads the decoder's weights from the folder `dir` as f32 on the CPU.
///
/// The result has the names, the order and the shapes of [`tensor_shapes`]. Weights are read from `model.safetensors`,
/// or from the shards of `model.safetensors.index.json`, which decides the shard of each tensor. Tensors of an
/// encoder are skipped, and so is a stored copy of a tied LM head. A tied model may have the LM head alone.
///
/// # Errors
/// [`Error::NoWeights`], [`Error::CorruptWeights`] for a truncated or corrupt file, and [`Error::Weights`] with every
/// missing, misshapen, duplicate or unexpected tensor, and a tied LM head that differs from the embedding matrix.
pub fn load(dir: &Path, config: &ModelConfig) -> Result<IndexMap<String, Tensor>> {
    decoder(dir, &open(dir)?, config)
}

/// The weight files of a model, whose headers have been checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredDecoder {
    /// Number of files.
    pub files: usize,
    /// Their size.
    pub bytes: u64,
    /// Number of parameters in them, also those of an encoder.
    pub parameters: u64,
}

/// Checks, as [`load`] does but from the files' headers and a tied LM head alone, that the folder `dir` has the weights of `config`.
///
/// # Errors
/// As [`load`].
pub fn check_headers(dir: &Path, config: &ModelConfig) -> Result<StoredDecoder> {
    let files = open(dir)?;
    find(dir, &files, config)?;
    let tensors = || files.iter().flat_map(WeightFile::iter);
    Ok(StoredDecoder {
        files: files.len(),
        bytes: files.iter().map(|file| file.byte_len() as u64).sum(),
        parameters: tensors()
            .map(|(_, stored)| stored.shape.iter().product::<usize>() as u64)
            .sum(),
    })
}

/// Opens the weight files of the folder `dir` and validates its index. A shard's copies of tensors that the index maps to
/// another shard are forgotten: checkpoints with an overlay keep the old tensors in their shards.
pub(crate) fn open(dir: &Path) -> Result<Vec<WeightFile>> {
    let WeightFiles { files, index } = weight_files(dir)?;
    let mut opened = IndexMap::new();
    for path in files {
        let mut file = WeightFile::open(&path)?;
        let shard = path.file_name().and_then(OsStr::to_str).unwrap_or_default().to_owned();
        file.retain(|name| index.get(name).is_none_or(|indexed| *indexed == shard));
        opened.insert(shard, file);
    }
    let is_missing = |(name, shard): &(String, String)| {
        opened.get(shard).is_none_or(|file| file.get(name).is_none())
    };
    let missing = index.into_iter().filter(is_missing);
    let faults: Vec<_> =
        missing.map(|(name, shard)| WeightFault::NotInShard { name, shard }).collect();
    match faults.is_empty() {
        true => Ok(opened.into_values().collect()),
        false => Err(Error::Weights { dir: dir.to_owned(), faults }),
    }
}

/// Reads the decoder's tensors from the files of `dir`.
pub(crate) fn decoder(
    dir: &Path,
    files: &[WeightFile],
    config: &ModelConfig,
) -> Result<IndexMap<String, Tensor>> {
    let lazy: Vec<_> = find(dir, files, config)?.into_iter().collect();
    let read = |(name, lazy): (String, LazyTensor)| {
        let tensor = lazy.read(&name)?;
        Ok((name, tensor))
    };
    let tensors: Result<Vec<_>> = lazy.into_par_iter().map(read).collect();
    Ok(tensors?.into_iter().collect())
}

/// As [`decoder`], on `device`: matrices in the dtype `matrices`, others in f32. The host holds one tensor at a time.
pub(crate) fn decoder_on(
    device: &Device,
    dir: &Path,
    files: &[WeightFile],
    config: &ModelConfig,
    matrices: DType,
) -> Result<IndexMap<String, Tensor>> {
    let mut tensors = IndexMap::new();
    for (name, lazy) in find(dir, files, config)? {
        let dtype = if lazy.shape().len() == 2 { matrices } else { DType::F32 };
        let tensor = memory::to_device(&lazy.read_as(&name, dtype)?, device)?;
        lazy.file.release();
        tensors.insert(name, tensor);
    }
    Ok(tensors)
}

/// A tensor in its file, read on demand.
#[derive(Clone)]
pub(crate) struct LazyTensor {
    pub(super) file: WeightFile,
    pub(super) stored: TensorInfo,
}

impl LazyTensor {
    /// Reads the tensor as f32; `name` is for errors.
    pub(crate) fn read(&self, name: &str) -> Result<Tensor> {
        tensor(&self.file, &self.stored).context(format!("read the weights `{name}`"))
    }

    /// Reads the tensor in `dtype`, without another copy if it is stored in bf16 and wanted so.
    pub(super) fn read_as(&self, name: &str, dtype: DType) -> Result<Tensor> {
        let doing = || format!("read the weights `{name}`");
        if self.stored.dtype != Dtype::BF16 || dtype != DType::BF16 {
            return self.read(name)?.to_dtype(dtype).context(doing());
        }
        let bytes = self.file.bytes(&self.stored).as_chunks().0.iter();
        let values: Vec<bf16> = bytes.map(|bytes| bf16::from_le_bytes(*bytes)).collect();
        Tensor::from_vec(values, self.shape(), &Device::Cpu).context(doing())
    }

    /// Reads a slice as f32; nothing else is read from the file.
    pub(crate) fn read_slice(&self, name: &str, slice: &TensorSlice) -> Result<Tensor> {
        if *slice == TensorSlice::Whole {
            return self.read(name);
        }
        let (values, shape) = slice_values(&self.file, &self.stored, slice);
        Tensor::from_vec(values, shape, &Device::Cpu)
            .context(format!("read a slice of the weights `{name}`"))
    }

    /// Its shape.
    pub(crate) fn shape(&self) -> &[usize] {
        &self.stored.shape
    }
}

/// The elements and the shape of a slice.
fn slice_values(
    file: &WeightFile,
    stored: &TensorInfo,
    slice: &TensorSlice,
) -> (Vec<f32>, Vec<usize>) {
    let (rows, width) = match stored.shape.as_slice() {
        [rows, inner @ ..] => (*rows, inner.iter().product::<usize>()),
        [] => (1, 1),
    };
    let read = |range| values(stored.dtype, file.part(stored, range));
    match slice {
        TensorSlice::Whole => (read(0..rows * width), stored.shape.clone()),
        TensorSlice::Rows(taken) => {
            let mut shape = stored.shape.clone();
            shape.iter_mut().take(1).for_each(|rows| *rows = taken.len());
            (read(taken.start * width..taken.end * width), shape)
        }
        TensorSlice::Columns(taken) => {
            let mut values = vec![0.0; rows * taken.len()];
            let parts = values.par_chunks_mut(taken.len().max(1)).enumerate();
            parts.for_each(|(row, part)| {
                part.copy_from_slice(&read(row * width + taken.start..row * width + taken.end));
            });
            (values, vec![rows, taken.len()])
        }
    }
}

/// The decoder's tensors in the files of `dir`, by canonical name and in the model's order.
pub(crate) fn find(
    dir: &Path,
    files: &[WeightFile],
    config: &ModelConfig,
) -> Result<IndexMap<String, LazyTensor>> {
    let failed = |faults| Error::Weights { dir: dir.to_owned(), faults };
    let tensors = files.iter().map(|file| file.iter().count()).sum();
    // Checked before the names of so many layers are allocated.
    if config.num_hidden_layers > tensors {
        let layers = config.num_hidden_layers;
        return Err(failed(vec![WeightFault::Layers { layers, tensors }]));
    }
    let wanted = tensor_shapes(config);
    let mut found = BTreeMap::new();
    let mut faults = Vec::new();
    for file in files {
        find_in_file(file, &wanted, &mut found, &mut faults);
    }
    if config.tie_word_embeddings {
        tie(&mut found, &mut faults);
    }
    let mut tensors = IndexMap::with_capacity(wanted.len());
    for name in wanted.keys() {
        match found.remove(name) {
            Some(tensor) => {
                tensors.insert(name.clone(), tensor);
            }
            None if faults.iter().any(|fault| is_about(fault, name)) => {}
            None => faults.push(WeightFault::Missing { name: name.clone() }),
        }
    }
    if faults.is_empty() { Ok(tensors) } else { Err(failed(faults)) }
}

/// Leaves one matrix of a tied model: the embedding, of which a stored LM head must be a copy, or the LM head alone.
fn tie(found: &mut BTreeMap<String, LazyTensor>, faults: &mut Vec<WeightFault>) {
    let Some(head) = found.remove(HEAD) else { return };
    match found.get(EMBEDDING) {
        Some(embedding) if embedding.equals(&head) => {}
        Some(_) => faults.push(WeightFault::OwnHead { name: HEAD.to_owned() }),
        None => {
            found.insert(EMBEDDING.to_owned(), head);
        }
    }
}

/// The weight files of the model in `dir`.
pub(crate) fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    Ok(weight_files(dir)?.files)
}

/// A folder's weight files and its index.
struct WeightFiles {
    files: Vec<PathBuf>,
    /// Shards by tensor.
    index: BTreeMap<String, String>,
}

fn weight_files(dir: &Path) -> Result<WeightFiles> {
    let single = dir.join(SINGLE_FILE);
    if single.is_file() {
        return Ok(WeightFiles { files: vec![single], index: BTreeMap::new() });
    }
    let path = dir.join(INDEX_FILE);
    if !path.is_file() {
        return Err(Error::NoWeights { dir: dir.to_owned() });
    }
    let text = std::fs::read(&path).map_err(Error::io("read", &path))?;
    let Index { weight_map: index } = serde_json::from_slice(&text).map_err(Error::json(&path))?;
    let shards: BTreeSet<&String> = index.values().collect();
    let files =
        shards.into_iter().map(|shard| shard_path(dir, &path, shard)).collect::<Result<_>>();
    Ok(WeightFiles { files: files?, index })
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// A shard has to be a file next to its index: an untrusted index must not lead out of the folder.
fn shard_path(dir: &Path, index: &Path, shard: &str) -> Result<PathBuf> {
    let mut parts = Path::new(shard).components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(_)), None) => Ok(dir.join(shard)),
        _ => Err(Error::ShardName { index: index.to_owned(), shard: shard.to_owned() }),
    }
}

fn find_in_file(
    file: &WeightFile,
    wanted: &IndexMap<String, Vec<usize>>,
    found: &mut BTreeMap<String, LazyTensor>,
    faults: &mut Vec<WeightFault>,
) {
    let mut stored: Vec<_> = file.iter().collect();
    stored.sort_by_key(|(name, _)| *name);
    for (name, stored) in stored {
        let Some(canonical) = canonical(name) else { continue };
        if let Err(fault) = check(name, &canonical, stored, wanted) {
            faults.push(fault);
            continue;
        }
        match found.entry(canonical) {
            Entry::Occupied(known) => {
                faults.push(WeightFault::Duplicate { name: known.key().clone() });
            }
            Entry::Vacant(place) => {
                place.insert(LazyTensor { file: file.clone(), stored: stored.clone() });
            }
        }
    }
}

/// Checks a stored tensor against the configuration. A tied model may have an LM head, which has the embedding's shape.
fn check(
    name: &str,
    canonical: &str,
    stored: &TensorInfo,
    wanted: &IndexMap<String, Vec<usize>>,
) -> Result<(), WeightFault> {
    let as_embedding = || wanted.get(EMBEDDING).filter(|_| canonical == HEAD);
    let Some(want) = wanted.get(canonical).or_else(as_embedding) else {
        return Err(WeightFault::Unexpected { name: name.to_owned() });
    };
    if !is_float(stored.dtype) {
        return Err(WeightFault::Dtype { name: name.to_owned(), found: stored.dtype.to_string() });
    }
    if stored.shape != *want {
        let (found, want) = (stored.shape.clone(), want.clone());
        return Err(WeightFault::ShapeMismatch { name: name.to_owned(), found, want });
    }
    Ok(())
}

/// Whether `fault` already explains why the tensor `name` is missing.
fn is_about(fault: &WeightFault, name: &str) -> bool {
    match fault {
        WeightFault::ShapeMismatch { name: stored, .. }
        | WeightFault::Dtype { name: stored, .. } => canonical(stored).as_deref() == Some(name),
        _ => false,
    }
}

/// Whether a dtype is supported.
pub(crate) fn is_float(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F32 | Dtype::BF16 | Dtype::F16)
}

/// Reads a stored float tensor as f32.
pub(crate) fn tensor(file: &WeightFile, stored: &TensorInfo) -> candle_core::Result<Tensor> {
    let values = values(stored.dtype, file.bytes(stored));
    Tensor::from_vec(values, stored.shape.as_slice(), &Device::Cpu)
}

/// Elements as f32 from their bytes, which need not be aligned.
pub(super) fn values(dtype: Dtype, bytes: &[u8]) -> Vec<f32> {
    match dtype {
        Dtype::BF16 => {
            bytes.as_chunks().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32()).collect()
        }
        Dtype::F16 => {
            bytes.as_chunks().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect()
        }
        _ => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
    }
}
