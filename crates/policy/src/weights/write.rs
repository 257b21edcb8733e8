//! Writes weight files.

use std::io::Write;
use std::path::Path;

use candle_core::Tensor;
use embodied_r_kernels::memory;
use half::{bf16, f16};
use indexmap::IndexMap;
use safetensors::tensor::Dtype;
use serde_json::{Map, json};

use super::file::{Stored, WeightFile};
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

/// Which of several writers of one model this is. Each writes some of the files, as many bytes as any other but for the
/// tensor at the border; the first also writes what is there once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// This one, from 0.
    pub index: usize,
    /// How many there are.
    pub of: usize,
}

impl Share {
    /// The only writer.
    pub const ALL: Self = Self { index: 0, of: 1 };

    /// Whether this one writes what is there once.
    pub fn is_first(self) -> bool {
        self.index == 0
    }

    /// The writer of the tensor whose bytes are `start..start + size` of `total`, by its middle.
    fn of_tensor(self, start: usize, size: usize, total: usize) -> usize {
        let middle = (start + size / 2) as u128;
        let writer = (middle * self.of as u128 / total.max(1) as u128) as usize;
        writer.min(self.of.saturating_sub(1))
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
    save_share(dir, tensors, options, Share::ALL)
}

/// As [`save`], but this writer's share of the files only; the index is complete. The folder is whole once all writers are
/// done.
///
/// # Errors
/// As [`save`].
pub fn save_share<'a>(
    dir: &Path,
    tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
    options: &SaveOptions,
    share: Share,
) -> Result<()> {
    let items = tensors.into_iter().map(|(name, tensor)| (name, Item::Numbers(tensor)));
    save_items(dir, items, options, share)
}

/// Writes named tensors to the one file `path`, in their order, a tensor at a time and without a copy of any: beside
/// its place, flushed to disk, then renamed.
///
/// # Errors
/// [`Error::Io`], or [`Error::Tensor`] if a tensor cannot be brought to the CPU.
pub fn save_file<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
    dtype: WeightDtype,
) -> Result<()> {
    let items = tensors.into_iter().map(|(name, tensor)| (name, Item::Numbers(tensor)));
    write_file(path, &items.collect(), dtype)
}

/// A tensor to write.
#[derive(Clone, Copy)]
pub(super) enum Item<'a> {
    /// Numbers, in the format that is asked for.
    Numbers(&'a Tensor),
    /// A tensor of another file, byte for byte.
    Bytes(&'a WeightFile, &'a Stored),
    /// A tensor that is made while it is written, in the format that is asked for.
    Made(&'a dyn Source),
}

/// A tensor that is made while it is written.
pub(super) trait Source {
    /// Its shape.
    fn dims(&self) -> &[usize];

    /// Writes its numbers, row after row.
    fn write(&self, dtype: WeightDtype, out: &mut dyn Write) -> std::io::Result<()>;
}

impl Item<'_> {
    fn dtype(self, asked: WeightDtype) -> Dtype {
        match self {
            Self::Numbers(_) | Self::Made(_) => stored(asked),
            Self::Bytes(_, stored) => stored.dtype,
        }
    }

    fn shape(self) -> Vec<usize> {
        match self {
            Self::Numbers(tensor) => tensor.dims().to_vec(),
            Self::Bytes(_, stored) => stored.shape.clone(),
            Self::Made(source) => source.dims().to_vec(),
        }
    }

    fn byte_len(self, asked: WeightDtype) -> usize {
        match self {
            Self::Numbers(tensor) => tensor.elem_count() * asked.size_bytes(),
            Self::Bytes(_, stored) => stored.byte_len(),
            Self::Made(source) => source.dims().iter().product::<usize>() * asked.size_bytes(),
        }
    }
}

/// As [`save_share`], for tensors of any kind.
pub(super) fn save_items<'a>(
    dir: &Path,
    items: impl IntoIterator<Item = (&'a str, Item<'a>)>,
    options: &SaveOptions,
    share: Share,
) -> Result<()> {
    let (shards, writers) = split(items.into_iter().collect(), options, share);
    let files: Vec<String> = match shards.len() {
        0 | 1 => vec![SINGLE_FILE.to_owned()],
        n => (1..=n).map(|i| format!("model-{i:05}-of-{n:05}.safetensors")).collect(),
    };
    for ((file, shard), writer) in files.iter().zip(&shards).zip(writers) {
        if writer == share.index {
            write_file(&dir.join(file), shard, options.dtype)?;
        }
    }
    if !share.is_first() {
        return Ok(());
    }
    if shards.len() > 1 {
        write_index(&dir.join(INDEX_FILE), &files, &shards, options.dtype)?;
    }
    remove_replaced(dir, &files)
}

type Shard<'a> = Vec<(&'a str, Item<'a>)>;

/// Fills shards in the given order, and gives the writer of each.
fn split<'a>(
    items: Vec<(&'a str, Item<'a>)>,
    options: &SaveOptions,
    share: Share,
) -> (Vec<Shard<'a>>, Vec<usize>) {
    let total = items.iter().map(|(_, item)| item.byte_len(options.dtype)).sum();
    let (mut shards, mut writers): (Vec<Shard<'a>>, Vec<usize>) = (Vec::new(), Vec::new());
    let (mut start, mut filled) = (0, 0);
    for (name, item) in items {
        let size = item.byte_len(options.dtype);
        let writer = share.of_tensor(start, size, total);
        start += size;
        match shards.last_mut() {
            Some(shard)
                if filled + size <= options.max_shard_bytes && writers.last() == Some(&writer) =>
            {
                shard.push((name, item));
                filled += size;
            }
            _ => {
                shards.push(vec![(name, item)]);
                writers.push(writer);
                filled = size;
            }
        }
    }
    (shards, writers)
}

/// One safetensors file: the header's length, the header, then the numbers, a tensor at a time.
fn write_file(path: &Path, shard: &Shard<'_>, dtype: WeightDtype) -> Result<()> {
    let header = header(path, shard, dtype)?;
    atomic::write_with(path, |out| {
        let failed = Error::io("write", path);
        let start = out
            .write_all(&(header.len() as u64).to_le_bytes())
            .and_then(|()| out.write_all(&header));
        start.map_err(failed)?;
        for (name, item) in shard {
            let written = match item {
                Item::Bytes(file, stored) => out.write_all(file.bytes(stored)),
                Item::Made(source) => source.write(dtype, &mut *out),
                Item::Numbers(tensor) => {
                    let plain = memory::fetched(tensor)?.contiguous();
                    let plain = plain.during(format!("write `{name}`"))?;
                    write_numbers(&memory::floats(&plain, "save")?, dtype, &mut *out)
                }
            };
            written.map_err(Error::io("write", path))?;
        }
        Ok(())
    })
}

/// The header: each tensor's type, shape and place, and which framework wrote the file, without which `transformers`
/// refuses it.
fn header(path: &Path, shard: &Shard<'_>, dtype: WeightDtype) -> Result<Vec<u8>> {
    let mut header = Map::new();
    header.insert("__metadata__".to_owned(), json!({ "format": "pt" }));
    let mut start = 0;
    for (name, item) in shard {
        let end = start + item.byte_len(dtype);
        let dtype = item.dtype(dtype);
        let entry = json!({ "dtype": dtype, "shape": item.shape(), "data_offsets": [start, end] });
        header.insert((*name).to_owned(), entry);
        start = end;
    }
    let mut header = serde_json::to_vec(&header).map_err(Error::json(path))?;
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

/// Numbers that are turned into bytes before these are written.
const PIECE: usize = 1 << 16;

fn write_numbers(numbers: &[f32], dtype: WeightDtype, out: &mut dyn Write) -> std::io::Result<()> {
    let mut bytes = Vec::with_capacity(PIECE.min(numbers.len()) * dtype.size_bytes());
    for piece in numbers.chunks(PIECE) {
        bytes.clear();
        match dtype {
            WeightDtype::F32 => bytes.extend(piece.iter().flat_map(|x| x.to_le_bytes())),
            WeightDtype::Bf16 => {
                bytes.extend(piece.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()));
            }
            WeightDtype::F16 => {
                bytes.extend(piece.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()));
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
