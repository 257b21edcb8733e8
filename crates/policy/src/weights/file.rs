//! A safetensors file, memory-mapped, with a validated header.
//!
//! The header is parsed here and not by the crate `safetensors`, whose errors do not name the tensor or the invalid
//! value. Memory use is bounded by the header's size.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use indexmap::IndexMap;
use indexmap::map::Entry;
use memmap2::Mmap;
use safetensors::tensor::Dtype;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::fault::SafetensorsFault;
use super::map::{map, release};
use crate::error::{Error, Result};

/// Maximum header size of the format.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// The header's metadata entry.
const METADATA: &str = "__metadata__";

/// A stored tensor's dtype, shape and location.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TensorInfo {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    /// Its byte range in the file.
    range: Range<usize>,
}

impl TensorInfo {
    /// Its length in bytes.
    pub(crate) fn byte_len(&self) -> usize {
        self.range.len()
    }
}

/// The texts of the header's metadata entry, by name.
type Metadata = BTreeMap<String, String>;

/// An open file. Clones share the mapping.
#[derive(Clone)]
pub(crate) struct WeightFile {
    map: Arc<Mmap>,
    /// In file order.
    tensors: Arc<IndexMap<String, TensorInfo>>,
    metadata: Arc<Metadata>,
    /// Number of bytes read.
    #[cfg(test)]
    pub(crate) taken: Arc<std::sync::atomic::AtomicUsize>,
}

impl WeightFile {
    /// Maps the file and validates its header.
    ///
    /// # Errors
    /// [`Error::CorruptWeights`], [`Error::LfsPointer`], or [`Error::Io`].
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let map = map(path)?;
        if map.starts_with(b"version https://git-lfs") {
            return Err(Error::LfsPointer { path: path.to_owned() });
        }
        let (tensors, metadata) = read(&map).map_err(Error::corrupt(path))?;
        Ok(Self {
            map: Arc::new(map),
            tensors: Arc::new(tensors),
            metadata: Arc::new(metadata),
            #[cfg(test)]
            taken: Arc::default(),
        })
    }

    /// Drops what was read of the file from memory; it is read again when needed.
    pub(crate) fn release(&self) {
        release(&self.map);
    }

    /// The tensors in file order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &TensorInfo)> {
        self.tensors.iter().map(|(name, stored)| (name.as_str(), stored))
    }

    /// Length of the file in bytes.
    pub(crate) fn byte_len(&self) -> usize {
        self.map.len()
    }

    /// An entry of the file's metadata.
    pub(crate) fn metadata(&self, name: &str) -> Option<&str> {
        self.metadata.get(name).map(String::as_str)
    }

    /// Forgets the tensors for which `keep` is false.
    pub(super) fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        Arc::make_mut(&mut self.tensors).retain(|name, _| keep(name));
    }

    pub(crate) fn get(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name)
    }

    /// The bytes of a tensor of this file.
    pub(crate) fn bytes(&self, stored: &TensorInfo) -> &[u8] {
        self.read_bytes(stored.range.clone())
    }

    /// The bytes of a range of a tensor's elements, in row-major order.
    pub(crate) fn part(&self, stored: &TensorInfo, numbers: Range<usize>) -> &[u8] {
        let (start, bits) = (stored.range.start, stored.dtype.bitsize());
        self.read_bytes(start + numbers.start * bits / 8..start + numbers.end * bits / 8)
    }

    /// Every read of tensor data goes through here.
    fn read_bytes(&self, range: Range<usize>) -> &[u8] {
        #[cfg(test)]
        self.taken.fetch_add(range.len(), std::sync::atomic::Ordering::Relaxed);
        self.map.get(range).unwrap_or_default()
    }
}

/// Parses the header and validates it against the file.
fn read(bytes: &[u8]) -> Result<(IndexMap<String, TensorInfo>, Metadata), SafetensorsFault> {
    let Some((length, rest)) = bytes.split_first_chunk() else {
        return Err(SafetensorsFault::TooShort { found: bytes.len() });
    };
    let length = u64::from_le_bytes(*length);
    let max = MAX_HEADER_BYTES.min(rest.len() as u64);
    if length > max {
        return Err(SafetensorsFault::HeaderLength { found: length, max });
    }
    let (header, data) = rest.split_at(length as usize);
    let Header { mut entries, metadata } =
        serde_json::from_slice(header).map_err(SafetensorsFault::Header)?;
    entries.sort_by_key(|(_, entry)| entry.data_offsets);
    let (start, have) = (bytes.len() - data.len(), data.len() as u64);
    let mut tensors = IndexMap::with_capacity(entries.len());
    let mut end = 0;
    for (name, entry) in entries {
        let (name, dtype) = checked(name, &entry, end, have)?;
        let [from, to] = entry.data_offsets;
        end = to;
        // Both offsets lie inside the file. A non-empty tensor has at least as many bytes as each of its sizes; an
        // empty tensor may have any sizes.
        let shape = entry.shape.iter().map(|size| usize::try_from(*size).unwrap_or(usize::MAX));
        let range = start + from as usize..start + to as usize;
        tensors.insert(name, TensorInfo { dtype, shape: shape.collect(), range });
    }
    if end != have {
        return Err(SafetensorsFault::TrailingBytes { found: have, want: end });
    }
    Ok((tensors, metadata))
}

/// Validates one entry against its dtype, the end of the previous entry, and the `have` bytes after the header.
fn checked(
    name: String,
    entry: &HeaderEntry,
    end: u64,
    have: u64,
) -> Result<(String, Dtype), SafetensorsFault> {
    let [from, to] = entry.data_offsets;
    if from > to || to > have {
        return Err(SafetensorsFault::OutOfBounds { name, found: entry.data_offsets, have });
    }
    let Ok(dtype) = serde_json::from_value::<Dtype>(entry.dtype.as_str().into()) else {
        return Err(SafetensorsFault::Dtype { name, found: entry.dtype.clone() });
    };
    let count = entry.shape.iter().try_fold(1_u64, |all, size| all.checked_mul(*size));
    let bits = count.and_then(|count| count.checked_mul(dtype.bitsize() as u64));
    let want = bits.filter(|bits| bits.is_multiple_of(8)).map(|bits| bits / 8);
    if want != Some(to - from) {
        let want = want.map_or("another number".to_owned(), |n| n.to_string());
        let (found, shape) = (to - from, entry.shape.clone());
        return Err(SafetensorsFault::LengthMismatch { name, found, want, dtype, shape });
    }
    if from != end {
        return Err(SafetensorsFault::NotContiguous { name, found: from, want: end });
    }
    Ok((name, dtype))
}

/// The header's tensors and metadata. Duplicate names are rejected: readers differ in which one they use.
struct Header {
    entries: Vec<(String, HeaderEntry)>,
    metadata: Metadata,
}

#[derive(Debug, Deserialize)]
struct HeaderEntry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object that maps names to tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let (mut entries, mut metadata) = (IndexMap::new(), BTreeMap::new());
        while let Some(name) = map.next_key::<String>()? {
            if name == METADATA {
                // Its values should be strings; others are ignored.
                if let Value::Object(found) = map.next_value()? {
                    let texts = found.into_iter().filter_map(|(name, value)| match value {
                        Value::String(text) => Some((name, text)),
                        _ => None,
                    });
                    metadata = texts.collect();
                }
                continue;
            }
            match entries.entry(name) {
                Entry::Occupied(entry) => {
                    let message = format!("duplicate tensor `{}`", entry.key());
                    return Err(A::Error::custom(message));
                }
                Entry::Vacant(entry) => entry.insert(map.next_value::<HeaderEntry>()?),
            };
        }
        Ok(Header { entries: entries.into_iter().collect(), metadata })
    }
}
