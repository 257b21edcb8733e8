//! Writes weight files.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

use candle_core::{DType, Tensor};
use indexmap::IndexMap;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde_json::json;

use super::{INDEX_FILE, SINGLE_FILE};
use crate::atomic;
use crate::config::WeightDtype;
use crate::error::{During, Error, Result};

/// How weights are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SaveOptions {
    /// The numbers' format.
    pub dtype: WeightDtype,
    /// Largest size of one file's numbers; a tensor larger than that gets a file of its own.
    pub max_shard_bytes: usize,
}

impl Default for SaveOptions {
    /// f32 in files of at most 5 GB, the size the hub takes.
    fn default() -> Self {
        Self { dtype: WeightDtype::F32, max_shard_bytes: 5_000_000_000 }
    }
}

/// Writes named tensors into the folder `dir`: one `model.safetensors`, or shards and their index.
///
/// Each file is written beside its place and renamed, the index last; then the weight files of an earlier save that
/// the new ones replace are removed. The folder as a whole is not replaced at once: who overwrites the only copy of a
/// model should save to a new folder and rename that.
///
/// # Errors
/// [`Error::Io`], or [`Error::Tensor`] if a tensor cannot be brought to the CPU.
pub fn save<'a>(
    dir: &Path,
    tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
    options: &SaveOptions,
) -> Result<()> {
    save_sources(dir, tensors, options)
}

/// What can be written as a tensor.
pub(super) trait Source {
    /// Its shape.
    fn dims(&self) -> &[usize];

    /// Writes its numbers, row after row, to the file `path`.
    fn write(&self, name: &str, dtype: WeightDtype, path: &Path, out: &mut dyn Write)
    -> Result<()>;
}

impl Source for &Tensor {
    fn dims(&self) -> &[usize] {
        Tensor::dims(self)
    }

    fn write(
        &self,
        name: &str,
        dtype: WeightDtype,
        path: &Path,
        out: &mut dyn Write,
    ) -> Result<()> {
        let numbers = bytes(self, dtype).during(format!("write `{name}`"))?;
        out.write_all(&numbers).map_err(Error::io("write", path))
    }
}

/// As [`save`], for whatever can be written.
pub(super) fn save_sources<'a, T: Source>(
    dir: &Path,
    tensors: impl IntoIterator<Item = (&'a str, T)>,
    options: &SaveOptions,
) -> Result<()> {
    let shards = split(tensors, options);
    let files: Vec<String> = match shards.len() {
        0 | 1 => vec![SINGLE_FILE.to_owned()],
        n => (1..=n).map(|i| format!("model-{i:05}-of-{n:05}.safetensors")).collect(),
    };
    for (file, shard) in files.iter().zip(&shards) {
        write_file(&dir.join(file), shard, options.dtype)?;
    }
    if shards.len() > 1 {
        write_index(&dir.join(INDEX_FILE), &files, &shards, options.dtype)?;
    }
    remove_replaced(dir, &files)
}

type Shard<'a, T> = Vec<(&'a str, T)>;

fn count(tensor: &impl Source) -> usize {
    tensor.dims().iter().product()
}

/// Fills shards in the given order.
fn split<'a, T: Source>(
    tensors: impl IntoIterator<Item = (&'a str, T)>,
    options: &SaveOptions,
) -> Vec<Shard<'a, T>> {
    let mut shards: Vec<Shard<'a, T>> = Vec::new();
    let mut filled = 0;
    for (name, tensor) in tensors {
        let size = count(&tensor) * options.dtype.size_bytes();
        match shards.last_mut() {
            Some(shard) if filled + size <= options.max_shard_bytes => {
                shard.push((name, tensor));
                filled += size;
            }
            _ => {
                shards.push(vec![(name, tensor)]);
                filled = size;
            }
        }
    }
    shards
}

/// One safetensors file: the header's length, the header, then the numbers, a tensor at a time.
fn write_file<T: Source>(path: &Path, shard: &Shard<'_, T>, dtype: WeightDtype) -> Result<()> {
    let header = header(path, shard, dtype)?;
    atomic::write_with(path, |out| {
        let failed = Error::io("write", path);
        let start = out
            .write_all(&(header.len() as u64).to_le_bytes())
            .and_then(|()| out.write_all(&header));
        start.map_err(failed)?;
        shard.iter().try_for_each(|(name, tensor)| tensor.write(name, dtype, path, out))
    })
}

fn header<T: Source>(path: &Path, shard: &Shard<'_, T>, dtype: WeightDtype) -> Result<Vec<u8>> {
    let mut start = 0;
    let infos = shard.iter().map(|(name, tensor)| {
        let end = start + count(tensor) * dtype.size_bytes();
        let info = TensorInfo {
            dtype: stored(dtype),
            shape: tensor.dims().to_vec(),
            data_offsets: (start, end),
        };
        start = end;
        ((*name).to_owned(), info)
    });
    // `transformers` refuses files that do not say which framework wrote them.
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let metadata = Metadata::new(Some(format), infos.collect())
        .map_err(|source| Error::CorruptWeights { path: path.to_owned(), source })?;
    let mut header = serde_json::to_vec(&metadata).map_err(Error::json(path))?;
    // The numbers begin at a multiple of 8, as the format wants.
    header.resize(header.len().next_multiple_of(8), b' ');
    Ok(header)
}

fn stored(dtype: WeightDtype) -> Dtype {
    match dtype {
        WeightDtype::F32 => Dtype::F32,
        WeightDtype::Bf16 => Dtype::BF16,
        WeightDtype::F16 => Dtype::F16,
    }
}

fn bytes(tensor: &Tensor, dtype: WeightDtype) -> candle_core::Result<Vec<u8>> {
    let numbers = tensor.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
    Ok(match dtype {
        WeightDtype::F32 => numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
        WeightDtype::Bf16 => {
            numbers.iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()).collect()
        }
        WeightDtype::F16 => {
            numbers.iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes()).collect()
        }
    })
}

fn write_index<T: Source>(
    path: &Path,
    files: &[String],
    shards: &[Shard<'_, T>],
    dtype: WeightDtype,
) -> Result<()> {
    let mut weight_map = IndexMap::new();
    let mut parameters = 0;
    for (file, shard) in files.iter().zip(shards) {
        for (name, tensor) in shard {
            weight_map.insert(*name, file);
            parameters += count(tensor);
        }
    }
    let metadata =
        json!({ "total_parameters": parameters, "total_size": parameters * dtype.size_bytes() });
    atomic::write_json(path, &json!({ "metadata": metadata, "weight_map": weight_map }))
}

/// Removes weight files of an earlier save, which readers would take for part of the new one.
fn remove_replaced(dir: &Path, written: &[String]) -> Result<()> {
    for entry in std::fs::read_dir(dir).map_err(Error::io("read", dir))? {
        let entry = entry.map_err(Error::io("read", dir))?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let replaced = match name {
            INDEX_FILE => written.len() == 1,
            _ => is_weight_file(name) && !written.iter().any(|file| file == name),
        };
        if replaced {
            std::fs::remove_file(entry.path()).map_err(Error::io("remove", entry.path()))?;
        }
    }
    Ok(())
}

/// Whether [`save`] would give a file this name.
fn is_weight_file(name: &str) -> bool {
    let shard = name.strip_prefix("model-").and_then(|rest| rest.strip_suffix(".safetensors"));
    let numbers = shard.and_then(|shard| shard.split_once("-of-"));
    let all_digits = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
    name == SINGLE_FILE || numbers.is_some_and(|(i, n)| all_digits(i) && all_digits(n))
}
