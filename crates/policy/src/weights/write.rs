//! Writes weight files.

use std::io::Write;
use std::path::Path;

use candle_core::Tensor;
use embodied_r_dist::ProcessGroup;
use embodied_r_files::{write_in_existing_folder_with, write_json_in_existing_folder};
use embodied_r_kernels::memory;
use half::{bf16, f16};
use indexmap::IndexMap;
use safetensors::tensor::Dtype;
use serde_json::{Map, json};

use super::file::{TensorInfo, WeightFile};
use super::{INDEX_FILE, SINGLE_FILE};
use crate::config::WeightDtype;
use crate::error::{Error, Result, TensorContext};

/// Options for saving weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SaveOptions {
    /// The stored dtype.
    pub dtype: WeightDtype,
    /// Maximum size of a shard; a larger tensor gets its own file.
    pub max_shard_bytes: usize,
}

impl Default for SaveOptions {
    /// f32 in shards of at most 5 GB, as on the hub.
    fn default() -> Self {
        Self { dtype: WeightDtype::F32, max_shard_bytes: 5_000_000_000 }
    }
}

/// The rank of a writer when several ranks save one model. Each writes some of the shards, of nearly equal total size;
/// rank 0 also writes the index and the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriterRank {
    /// This writer's rank, from 0.
    pub rank: usize,
    /// The number of writers.
    pub world_size: usize,
}

impl From<&ProcessGroup> for WriterRank {
    /// This rank's shard of a save by all ranks.
    fn from(process_group: &ProcessGroup) -> Self {
        Self { rank: process_group.rank(), world_size: process_group.world_size() }
    }
}

impl WriterRank {
    /// A single writer.
    pub const SINGLE: Self = Self { rank: 0, world_size: 1 };

    /// Whether this is rank 0.
    pub fn is_first(self) -> bool {
        self.rank == 0
    }

    /// The rank that writes the tensor with the bytes `start..start + size` of `total`, by its middle.
    fn writer_of(self, start: usize, size: usize, total: usize) -> usize {
        let middle = (start + size / 2) as u128;
        let rank = (middle * self.world_size as u128 / total.max(1) as u128) as usize;
        rank.min(self.world_size.saturating_sub(1))
    }
}

/// Writes named tensors into the folder `dir`: one `model.safetensors`, or shards and their index.
///
/// Each file is written atomically, the index last; then weight files of an earlier save are removed. The folder as a
/// whole is not replaced atomically: to overwrite the only copy of a model, save to a new folder and rename it.
///
/// # Errors
/// [`Error::Io`], or [`Error::Tensor`] if a tensor cannot be copied to the CPU.
pub fn save<'a>(
    dir: &Path,
    tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
    options: &SaveOptions,
) -> Result<()> {
    save_sharded(dir, tensors, options, WriterRank::SINGLE)
}

/// As [`save`], but only this rank's shards; the index is complete. The checkpoint is complete once all ranks are done.
///
/// # Errors
/// As [`save`].
pub fn save_sharded<'a>(
    dir: &Path,
    tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
    options: &SaveOptions,
    writer: WriterRank,
) -> Result<()> {
    let items = tensors.into_iter().map(|(name, tensor)| (name, TensorSource::Tensor(tensor)));
    save_items(dir, items, options, writer)
}

/// Atomically writes named tensors to the single file `path`, in order, one at a time and without copies.
///
/// # Errors
/// [`Error::Io`], or [`Error::Tensor`] if a tensor cannot be copied to the CPU.
pub fn save_file<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
    dtype: WeightDtype,
) -> Result<()> {
    save_file_with_metadata(path, tensors, dtype, &[])
}

/// As [`save_file`], with entries in the file's metadata.
pub(crate) fn save_file_with_metadata<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
    dtype: WeightDtype,
    metadata: &[(&str, &str)],
) -> Result<()> {
    let items = tensors.into_iter().map(|(name, tensor)| (name, TensorSource::Tensor(tensor)));
    write_file(path, &items.collect(), dtype, metadata)
}

/// A tensor to write.
#[derive(Clone, Copy)]
pub(super) enum TensorSource<'a> {
    /// An in-memory tensor, converted to the requested dtype.
    Tensor(&'a Tensor),
    /// A tensor of another file, copied unchanged.
    Bytes(&'a WeightFile, &'a TensorInfo),
    /// A tensor that is generated while it is written, in the requested dtype.
    Generated(&'a dyn GeneratedTensor),
}

/// A tensor that is generated while it is written.
pub(super) trait GeneratedTensor {
    /// Its shape.
    fn dims(&self) -> &[usize];

    /// Writes its elements in row-major order.
    fn write(&self, dtype: WeightDtype, out: &mut dyn Write) -> std::io::Result<()>;
}

impl TensorSource<'_> {
    fn dtype(self, asked: WeightDtype) -> Dtype {
        match self {
            Self::Tensor(_) | Self::Generated(_) => stored(asked),
            Self::Bytes(_, stored) => stored.dtype,
        }
    }

    fn shape(self) -> Vec<usize> {
        match self {
            Self::Tensor(tensor) => tensor.dims().to_vec(),
            Self::Bytes(_, stored) => stored.shape.clone(),
            Self::Generated(source) => source.dims().to_vec(),
        }
    }

    fn byte_len(self, asked: WeightDtype) -> usize {
        match self {
            Self::Tensor(tensor) => tensor.elem_count() * asked.size_bytes(),
            Self::Bytes(_, stored) => stored.byte_len(),
            Self::Generated(source) => source.dims().iter().product::<usize>() * asked.size_bytes(),
        }
    }
}

/// As [`save_sharded`], for tensors of any source.
pub(super) fn save_items<'a>(
    dir: &Path,
    items: impl IntoIterator<Item = (&'a str, TensorSource<'a>)>,
    options: &SaveOptions,
    writer: WriterRank,
) -> Result<()> {
    let (shards, writers) = split(items.into_iter().collect(), options, writer);
    let files: Vec<String> = match shards.len() {
        0 | 1 => vec![SINGLE_FILE.to_owned()],
        n => (1..=n).map(|i| format!("model-{i:05}-of-{n:05}.safetensors")).collect(),
    };
    for ((file, shard), rank) in files.iter().zip(&shards).zip(writers) {
        if rank == writer.rank {
            write_file(&dir.join(file), shard, options.dtype, &[])?;
        }
    }
    if !writer.is_first() {
        return Ok(());
    }
    if shards.len() > 1 {
        write_index(&dir.join(INDEX_FILE), &files, &shards, options.dtype)?;
    }
    remove_replaced(dir, &files)
}

type Shard<'a> = Vec<(&'a str, TensorSource<'a>)>;

/// Assigns tensors to shards in order, and returns the shards with the rank that writes each.
fn split<'a>(
    items: Vec<(&'a str, TensorSource<'a>)>,
    options: &SaveOptions,
    writer: WriterRank,
) -> (Vec<Shard<'a>>, Vec<usize>) {
    let total = items.iter().map(|(_, item)| item.byte_len(options.dtype)).sum();
    let (mut shards, mut writers): (Vec<Shard<'a>>, Vec<usize>) = (Vec::new(), Vec::new());
    let (mut start, mut filled) = (0, 0);
    for (name, item) in items {
        let size = item.byte_len(options.dtype);
        let rank = writer.writer_of(start, size, total);
        start += size;
        match shards.last_mut() {
            Some(shard)
                if filled + size <= options.max_shard_bytes && writers.last() == Some(&rank) =>
            {
                shard.push((name, item));
                filled += size;
            }
            _ => {
                shards.push(vec![(name, item)]);
                writers.push(rank);
                filled = size;
            }
        }
    }
    (shards, writers)
}

/// Writes one safetensors file: the header length, the header, then one tensor at a time.
fn write_file(
    path: &Path,
    shard: &Shard<'_>,
    dtype: WeightDtype,
    metadata: &[(&str, &str)],
) -> Result<()> {
    let header = header(path, shard, dtype, metadata)?;
    write_in_existing_folder_with(path, |out| {
        let failed = Error::io("write", path);
        let start = out
            .write_all(&(header.len() as u64).to_le_bytes())
            .and_then(|()| out.write_all(&header));
        start.map_err(failed)?;
        for (name, item) in shard {
            let written = match item {
                TensorSource::Bytes(file, stored) => out.write_all(file.bytes(stored)),
                TensorSource::Generated(source) => source.write(dtype, &mut *out),
                TensorSource::Tensor(tensor) => {
                    let plain = memory::to_host(tensor)?.contiguous();
                    let plain = plain.context(format!("write `{name}`"))?;
                    write_values(&memory::floats(&plain, "save")?, dtype, &mut *out)
                }
            };
            written.map_err(Error::io("write", path))?;
        }
        Ok(())
    })
}

/// The header: each tensor's dtype, shape and offsets, the metadata, and the framework, without which `transformers`
/// rejects the file.
fn header(
    path: &Path,
    shard: &Shard<'_>,
    dtype: WeightDtype,
    metadata: &[(&str, &str)],
) -> Result<Vec<u8>> {
    let mut header = Map::new();
    let metadata = std::iter::once(&("format", "pt")).chain(metadata);
    let metadata: Map<_, _> =
        metadata.map(|(name, text)| ((*name).to_owned(), json!(text))).collect();
    header.insert("__metadata__".to_owned(), metadata.into());
    let mut start = 0;
    for (name, item) in shard {
        let end = start + item.byte_len(dtype);
        let dtype = item.dtype(dtype);
        let entry = json!({ "dtype": dtype, "shape": item.shape(), "data_offsets": [start, end] });
        header.insert((*name).to_owned(), entry);
        start = end;
    }
    let mut header = serde_json::to_vec(&header).map_err(Error::json(path))?;
    // The format aligns tensor data to 8 bytes.
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

/// Elements converted per write.
const CHUNK: usize = 1 << 16;

fn write_values(values: &[f32], dtype: WeightDtype, out: &mut dyn Write) -> std::io::Result<()> {
    let mut bytes = Vec::with_capacity(CHUNK.min(values.len()) * dtype.size_bytes());
    for chunk in values.chunks(CHUNK) {
        bytes.clear();
        match dtype {
            WeightDtype::F32 => bytes.extend(chunk.iter().flat_map(|x| x.to_le_bytes())),
            WeightDtype::Bf16 => {
                bytes.extend(chunk.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()));
            }
            WeightDtype::F16 => {
                bytes.extend(chunk.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()));
            }
        }
        out.write_all(&bytes)?;
    }
    Ok(())
}

fn write_index(
    path: &Path,
    files: &[String],
    shards: &[Shard<'_>],
    dtype: WeightDtype,
) -> Result<()> {
    let mut weight_map = IndexMap::new();
    let (mut parameters, mut bytes) = (0, 0);
    for (file, shard) in files.iter().zip(shards) {
        for (name, item) in shard {
            weight_map.insert(*name, file);
            parameters += item.shape().iter().product::<usize>();
            bytes += item.byte_len(dtype);
        }
    }
    let metadata = json!({ "total_parameters": parameters, "total_size": bytes });
    let index = json!({ "metadata": metadata, "weight_map": weight_map });
    Ok(write_json_in_existing_folder(path, &index)?)
}

/// Removes weight files of an earlier save, which readers would mistake for part of the new one.
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

/// Whether this is a file name that [`save`] writes.
fn is_weight_file(name: &str) -> bool {
    let shard = name.strip_prefix("model-").and_then(|rest| rest.strip_suffix(".safetensors"));
    let indices = shard.and_then(|shard| shard.split_once("-of-"));
    let all_digits = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
    name == SINGLE_FILE || indices.is_some_and(|(i, n)| all_digits(i) && all_digits(n))
}
