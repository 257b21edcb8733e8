//! The header of a GGUF file: parses and validates its tensor infos.

use std::ops::Range;

use embodied_r_kernels::quantized::{BlockFormat, SharedBytes};
use indexmap::IndexMap;
use indexmap::map::Entry;

use super::cursor::Cursor;
use super::fault::{GgufFault, Result};
use super::metadata::Metadata;

const MAGIC: [u8; 4] = *b"GGUF";
const VERSIONS: [u32; 2] = [2, 3];

/// Default alignment of tensors.
const DEFAULT_ALIGNMENT: u64 = 32;

/// Maximum number of dimensions in ggml.
const MAX_DIMENSIONS: u32 = 4;

/// Minimum size of a tensor info: name length, number of dimensions, type and offset.
const MIN_TENSOR_BYTES: u64 = 24;

/// A validated tensor: its bytes lie inside the file and overlap no other tensor.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TensorInfo {
    pub(super) format: BlockFormat,
    /// Its shape in row-major order.
    pub(super) shape: Vec<usize>,
    /// Its byte range in the file.
    pub(super) range: Range<usize>,
}

/// The header, before the tensor data.
pub(super) struct Header {
    pub(super) metadata: Metadata,
    /// By their stored names.
    pub(super) tensors: IndexMap<String, TensorInfo>,
}

/// Reads the header of the file whose bytes are `shared`.
pub(super) fn read(shared: &SharedBytes) -> Result<Header> {
    let bytes = (**shared).as_ref();
    let mut cursor = Cursor::new(bytes);
    if !bytes.starts_with(&MAGIC) {
        let found = bytes[..bytes.len().min(MAGIC.len())].escape_ascii().to_string();
        return Err(GgufFault::Magic { found });
    }
    cursor.skip(MAGIC.len() as u64, &"the magic number")?;
    let version = cursor.u32(&"the version")?;
    if !VERSIONS.contains(&version) {
        return Err(GgufFault::Version { found: version });
    }
    let tensors = cursor.count(MIN_TENSOR_BYTES, &"tensors")?;
    let values = Metadata::read_count(&mut cursor)?;
    let metadata = Metadata::read(shared, &mut cursor, values)?;
    let headers = (0..tensors)
        .map(|index| TensorHeader::read(&mut cursor, index))
        .collect::<Result<Vec<_>>>()?;
    let alignment = alignment(&metadata)?;
    let start = (cursor.position() as u64).next_multiple_of(alignment);
    let tensors = validated(headers, start, alignment, bytes.len())?;
    Ok(Header { metadata, tensors })
}

fn alignment(metadata: &Metadata) -> Result<u64> {
    const KEY: &str = "general.alignment";
    let Some(found) = metadata.count(KEY)? else { return Ok(DEFAULT_ALIGNMENT) };
    // The upper bound keeps sums with it in range.
    if found.is_power_of_two() && found <= 1 << 30 {
        return Ok(found);
    }
    let want = "a power of two of at most 2^30".to_owned();
    Err(GgufFault::Value { key: KEY.to_owned(), found: found.to_string(), want })
}

/// A tensor info as stored in the header, not yet validated.
struct TensorHeader {
    name: String,
    format: BlockFormat,
    /// In the file's order: the contiguous dimension first.
    sizes: Vec<u64>,
    offset: u64,
}

impl TensorHeader {
    fn read(cursor: &mut Cursor<'_>, index: u64) -> Result<Self> {
        let name = cursor.text(&format_args!("the name of tensor {index}"))?.to_owned();
        let what = format_args!("the tensor info of `{name}`");
        let dimensions = cursor.u32(&what)?;
        if !(1..=MAX_DIMENSIONS).contains(&dimensions) {
            let (key, found) = (format!("dimensions of {name}"), dimensions.to_string());
            return Err(GgufFault::Value { key, found, want: "from 1 to 4".to_owned() });
        }
        let sizes = (0..dimensions).map(|_| cursor.u64(&what)).collect::<Result<Vec<_>>>()?;
        let kind = cursor.u32(&what)?;
        let offset = cursor.u64(&what)?;
        let Some(format) = format(kind) else {
            let why = "use F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K or Q6_K";
            let (key, found) = (format!("type of {name}"), type_name(kind));
            return Err(GgufFault::Unsupported { key, found, why });
        };
        Ok(Self { name, format, sizes, offset })
    }

    /// Its length in bytes.
    fn bytes(&self) -> Result<u64> {
        let wrong = |want: String| GgufFault::Shape {
            name: self.name.clone(),
            found: self.sizes.clone(),
            want,
        };
        let (block, size) = (self.format.block_len() as u64, self.format.block_bytes() as u64);
        if self.sizes.contains(&0) {
            return Err(wrong("positive sizes".to_owned()));
        }
        if !self.sizes[0].is_multiple_of(block) {
            let name = self.format.name();
            return Err(wrong(format!("a first size that is a multiple of {block} for {name}")));
        }
        let count = self.sizes.iter().try_fold(1_u64, |all, size| all.checked_mul(*size));
        let bytes = count.and_then(|count| (count / block).checked_mul(size));
        bytes.ok_or_else(|| wrong("a number of elements that fits 64 bits".to_owned()))
    }
}

/// Validates the tensor infos against the file of `length` bytes, whose tensor data begins at `start`.
fn validated(
    headers: Vec<TensorHeader>,
    start: u64,
    alignment: u64,
    length: usize,
) -> Result<IndexMap<String, TensorInfo>> {
    let have = (length as u64).saturating_sub(start);
    let mut tensors = IndexMap::new();
    for tensor in headers {
        let bytes = tensor.bytes()?;
        let TensorHeader { name, format, sizes, offset } = tensor;
        if !offset.is_multiple_of(alignment) {
            return Err(GgufFault::Alignment { name, found: offset, alignment });
        }
        if offset.checked_add(bytes).is_none_or(|end| end > have) {
            return Err(GgufFault::OutOfBounds { name, at: offset, want: bytes, have });
        }
        // It lies inside the file, so offset and sizes fit `usize`.
        let from = (start + offset) as usize;
        let range = from..from + bytes as usize;
        let shape = sizes.iter().rev().map(|size| *size as usize).collect();
        match tensors.entry(name) {
            Entry::Occupied(entry) => {
                return Err(GgufFault::Duplicate { what: "tensor", name: entry.key().clone() });
            }
            Entry::Vacant(entry) => entry.insert(TensorInfo { format, shape, range }),
        };
    }
    reject_overlaps(&tensors)?;
    Ok(tensors)
}

fn reject_overlaps(tensors: &IndexMap<String, TensorInfo>) -> Result<()> {
    let mut order: Vec<(&String, &TensorInfo)> = tensors.iter().collect();
    order.sort_by_key(|(_, tensor)| tensor.range.start);
    for pair in order.windows(2) {
        let [(first, one), (second, other)] = pair else { continue };
        if other.range.start < one.range.end {
            let (first, second) = ((*first).clone(), (*second).clone());
            return Err(GgufFault::Overlap { first, second, at: other.range.start });
        }
    }
    Ok(())
}

/// The format of a ggml type id.
fn format(kind: u32) -> Option<BlockFormat> {
    Some(match kind {
        0 => BlockFormat::F32,
        1 => BlockFormat::F16,
        2 => BlockFormat::Q4_0,
        3 => BlockFormat::Q4_1,
        6 => BlockFormat::Q5_0,
        7 => BlockFormat::Q5_1,
        8 => BlockFormat::Q8_0,
        12 => BlockFormat::Q4K,
        13 => BlockFormat::Q5K,
        14 => BlockFormat::Q6K,
        30 => BlockFormat::Bf16,
        _ => return None,
    })
}

/// The name of an unsupported ggml type.
fn type_name(kind: u32) -> String {
    let name = match kind {
        9 => "Q8_1",
        10 => "Q2_K",
        11 => "Q3_K",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        20 => "IQ4_NL",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        _ => return format!("type {kind}"),
    };
    name.to_owned()
}
