//! One safetensors file: mapped, and its header held against it before anything is read.
//!
//! The header is read here and not by the crate `safetensors`, whose errors say neither which tensor is at fault nor
//! what was found. Nothing is kept but what the header's text itself says.

#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use indexmap::IndexMap;
use indexmap::map::Entry;
use memmap2::Mmap;
use safetensors::tensor::Dtype;
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::map::map;
use crate::error::{Error, Result};

/// Longest header that the format allows.
const MOST_HEADER_BYTES: u64 = 100_000_000;

/// The header's entry that is no tensor.
const METADATA: &str = "__metadata__";

/// What is wrong with a safetensors file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileFault {
    /// The file cannot even say how long its header is.
    #[error("it has {found} bytes, want at least 8")]
    Short {
        /// Its length.
        found: usize,
    },
    /// The header is longer than the file, or than the format allows.
    #[error("its header claims {found} bytes, want at most {most}")]
    HeaderLength {
        /// The length given.
        found: u64,
        /// What there is room for.
        most: u64,
    },
    /// The header is not the JSON that it should be.
    #[error("its header is not the JSON expected: {0}")]
    Header(serde_json::Error),
    /// A tensor's type is not one of the format's.
    #[error("the tensor `{name}` is of the unknown type `{found}`")]
    Dtype {
        /// Its name.
        name: String,
        /// Its type.
        found: String,
    },
    /// A tensor's place is not inside the file.
    #[error("the tensor `{name}` lies at {found:?} of the {have} bytes behind the header")]
    Outside {
        /// Its name.
        name: String,
        /// Where it begins and ends.
        found: [u64; 2],
        /// Bytes behind the header.
        have: u64,
    },
    /// A tensor's length is not that of its shape.
    #[error("the tensor `{name}` takes {found} bytes, want {want} for {dtype} {shape:?}")]
    Size {
        /// Its name.
        name: String,
        /// Its length.
        found: u64,
        /// The length of its shape, as a text: it may be beyond all numbers.
        want: String,
        /// Its type.
        dtype: Dtype,
        /// Its shape.
        shape: Vec<u64>,
    },
    /// A tensor does not begin where the one before it ends.
    #[error("the tensor `{name}` begins at {found}, want {want}, where the one before it ends")]
    Start {
        /// Its name.
        name: String,
        /// Where it begins.
        found: u64,
        /// Where it should.
        want: u64,
    },
    /// The file goes on behind the last tensor.
    #[error("its tensors end at {want} of the {found} bytes behind the header")]
    Rest {
        /// Bytes behind the header.
        found: u64,
        /// The last tensor's end.
        want: u64,
    },
}

/// A tensor as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    /// Its bytes in the file.
    range: Range<usize>,
}

impl Stored {
    /// Its length in bytes.
    pub(crate) fn byte_len(&self) -> usize {
        self.range.len()
    }
}

/// An open file. A clone shares the map.
#[derive(Clone)]
pub(crate) struct WeightFile {
    map: Arc<Mmap>,
    /// In the order of their bytes.
    tensors: Arc<IndexMap<String, Stored>>,
    /// Bytes that were read.
    #[cfg(test)]
    pub(crate) taken: Arc<std::sync::atomic::AtomicUsize>,
}

impl WeightFile {
    /// Maps the file and checks its header.
    ///
    /// # Errors
    /// [`Error::CorruptWeights`], [`Error::LfsPointer`], or [`Error::Io`].
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let map = map(path)?;
        if map.starts_with(b"version https://git-lfs") {
            return Err(Error::LfsPointer { path: path.to_owned() });
        }
        let tensors = read(&map).map_err(Error::corrupt(path))?;
        Ok(Self {
            map: Arc::new(map),
            tensors: Arc::new(tensors),
            #[cfg(test)]
            taken: Arc::default(),
        })
    }

    /// The tensors in the order of their bytes.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Stored)> {
        self.tensors.iter().map(|(name, stored)| (name.as_str(), stored))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Stored> {
        self.tensors.get(name)
    }

    /// The bytes of a tensor of this file.
    pub(crate) fn bytes(&self, stored: &Stored) -> &[u8] {
        self.taken(stored.range.clone())
    }

    /// The bytes of some numbers of a tensor of this file, in the order of its rows.
    pub(crate) fn part(&self, stored: &Stored, numbers: Range<usize>) -> &[u8] {
        let (start, bits) = (stored.range.start, stored.dtype.bitsize());
        self.taken(start + numbers.start * bits / 8..start + numbers.end * bits / 8)
    }

    /// All that is read behind the header is read through this.
    fn taken(&self, range: Range<usize>) -> &[u8] {
        #[cfg(test)]
        self.taken.fetch_add(range.len(), std::sync::atomic::Ordering::Relaxed);
        self.map.get(range).unwrap_or_default()
    }
}

/// Reads the header of `bytes` and holds it against them.
fn read(bytes: &[u8]) -> Result<IndexMap<String, Stored>, FileFault> {
    let Some((length, rest)) = bytes.split_first_chunk() else {
        return Err(FileFault::Short { found: bytes.len() });
    };
    let length = u64::from_le_bytes(*length);
    let most = MOST_HEADER_BYTES.min(rest.len() as u64);
    if length > most {
        return Err(FileFault::HeaderLength { found: length, most });
    }
    let (header, data) = rest.split_at(length as usize);
    let Header(mut entries) = serde_json::from_slice(header).map_err(FileFault::Header)?;
    entries.sort_by_key(|(_, entry)| entry.data_offsets);
    let (start, have) = (bytes.len() - data.len(), data.len() as u64);
    let mut tensors = IndexMap::with_capacity(entries.len());
    let mut end = 0;
    for (name, entry) in entries {
        let (name, dtype) = checked(name, &entry, end, have)?;
        let [from, to] = entry.data_offsets;
        end = to;
        // Both lie inside the file. A size of a tensor that is not empty is no larger than its bytes are many; one of
        // an empty tensor may be anything.
        let shape = entry.shape.iter().map(|size| usize::try_from(*size).unwrap_or(usize::MAX));
        let range = start + from as usize..start + to as usize;
        tensors.insert(name, Stored { dtype, shape: shape.collect(), range });
    }
    if end != have {
        return Err(FileFault::Rest { found: have, want: end });
    }
    Ok(tensors)
}

/// Holds one entry against its type, the end of the one before it, and the `have` bytes behind the header.
fn checked(
    name: String,
    entry: &HeaderEntry,
    end: u64,
    have: u64,
) -> Result<(String, Dtype), FileFault> {
    let [from, to] = entry.data_offsets;
    if from > to || to > have {
        return Err(FileFault::Outside { name, found: entry.data_offsets, have });
    }
    let Ok(dtype) = serde_json::from_value::<Dtype>(entry.dtype.as_str().into()) else {
        return Err(FileFault::Dtype { name, found: entry.dtype.clone() });
    };
    let count = entry.shape.iter().try_fold(1_u64, |all, size| all.checked_mul(*size));
    let bits = count.and_then(|count| count.checked_mul(dtype.bitsize() as u64));
    let want = bits.filter(|bits| bits.is_multiple_of(8)).map(|bits| bits / 8);
    if want != Some(to - from) {
        let want = want.map_or("another number of whole bytes".to_owned(), |n| n.to_string());
        let (found, shape) = (to - from, entry.shape.clone());
        return Err(FileFault::Size { name, found, want, dtype, shape });
    }
    if from != end {
        return Err(FileFault::Start { name, found: from, want: end });
    }
    Ok((name, dtype))
}

/// The header's tensors. A name that stands twice is an error: readers differ in which they take.
struct Header(Vec<(String, HeaderEntry)>);

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
        f.write_str("an object of tensors by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let mut entries = IndexMap::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == METADATA {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            match entries.entry(name) {
                Entry::Occupied(entry) => {
                    let told = format!("the tensor `{}` is there twice", entry.key());
                    return Err(A::Error::custom(told));
                }
                Entry::Vacant(entry) => entry.insert(map.next_value::<HeaderEntry>()?),
            };
        }
        Ok(Header(entries.into_iter().collect()))
    }
}
