//! Limits on what a file's footer announces, checked before polars reads it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use polars::prelude::PolarsError;
use polars_parquet_format::thrift::protocol::{TCompactInputProtocol, TCompactOutputProtocol};
use polars_parquet_format::{FileMetaData, KeyValue, Type};

use super::cast::Leaf;
use crate::error::{Error, Result};

/// Rows of a file that is read: thousands of times those of the benchmarks. Run-length encoding puts billions into
/// a few bytes.
pub(super) const MAX_ROWS: usize = 20_000_000;

/// Nested columns: polars reads their schema recursively, and a deep one would overflow the stack.
const MAX_DEPTH: usize = 48;

/// Bytes that the columns of a file may take in memory. A page of zeros is compressed a thousand times.
pub(super) const MAX_BYTES: u64 = 32 << 30;

/// The first and the last bytes of a file.
const MAGIC: &[u8] = b"PAR1";

/// The length of the footer's length and of the last four bytes.
const TAIL: usize = 8;

/// Checks the footer of `file`. One that cannot be read is left for polars to report.
///
/// # Errors
/// It has too many rows, takes too much memory, or nests its columns too deeply.
pub(super) fn check(path: &Path, file: &mut File) -> Result<()> {
    let Some(footer) = read(file) else { return Ok(()) };
    let fault = |what: String| {
        Err(Error::Parquet { path: path.into(), source: PolarsError::ComputeError(what.into()) })
    };
    if footer.num_rows > MAX_ROWS as i64 {
        return fault(format!("it has {} rows, more than {MAX_ROWS}", footer.num_rows));
    }
    let sizes = footer.row_groups.iter().map(|group| group.total_byte_size.max(0) as u64);
    let size = sizes.fold(0, u64::saturating_add);
    if size > MAX_BYTES {
        return fault(format!(
            "its columns take {} GiB, more than {}",
            size >> 30,
            MAX_BYTES >> 30
        ));
    }
    let depth = depth(footer.schema.iter().map(|element| element.num_children.unwrap_or(0)));
    if depth > MAX_DEPTH {
        return fault(format!("its columns are nested {depth} deep, more than {MAX_DEPTH}"));
    }
    Ok(())
}

/// Checks how many values the footer of `file` announces for `columns`.
///
/// # Errors
/// They have more than `most`.
pub(super) fn check_values(
    path: &Path,
    file: &mut File,
    columns: &[&str],
    most: i64,
) -> Result<()> {
    let Some(footer) = read(file) else { return Ok(()) };
    let chunks = footer.row_groups.iter().flat_map(|group| &group.columns);
    let chunks = chunks.filter_map(|chunk| chunk.meta_data.as_ref());
    let is_read = |name: &String| columns.contains(&name.as_str());
    let chunks = chunks.filter(|chunk| chunk.path_in_schema.first().is_some_and(is_read));
    let values = chunks.fold(0_i64, |sum, chunk| sum.saturating_add(chunk.num_values.max(0)));
    match values > most {
        false => Ok(()),
        true => {
            let what = format!("its columns have {values} values, more than {most}");
            let source = PolarsError::ComputeError(what.into());
            Err(Error::Parquet { path: path.into(), source })
        }
    }
}

/// The footer of `file`; `None` if it cannot be read.
pub(super) fn read(file: &mut File) -> Option<FileMetaData> {
    let length = file.seek(SeekFrom::End(0)).ok()?;
    file.seek(SeekFrom::Start(length.checked_sub(TAIL as u64)?)).ok()?;
    let mut tail = [0; TAIL];
    file.read_exact(&mut tail).ok()?;
    let footer_length = u64::from(u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]));
    file.seek(SeekFrom::Start(length.checked_sub(TAIL as u64 + footer_length)?)).ok()?;
    let mut footer = Vec::new();
    file.take(footer_length).read_to_end(&mut footer).ok()?;
    file.rewind().ok()?;
    parse(&footer)
}

/// The meanings of the leaves of columns, by the columns' names; without those that polars reads as they are.
pub(super) type Leaves = BTreeMap<String, Vec<Leaf>>;

/// A file with the footer of `file` alone, in which columns have the types that they are stored as, and what their values
/// mean. `None` if the footer cannot be read.
pub(super) fn as_stored(file: &mut File) -> Option<(Vec<u8>, Leaves)> {
    let mut footer = read(file)?;
    let (mut leaves, mut column, mut left) = (Leaves::new(), String::new(), 0);
    // Elements are in depth-first order after the root; a column ends when no children are left.
    for element in footer.schema.iter_mut().skip(1) {
        if left == 0 {
            column.clone_from(&element.name);
            left = 1;
        }
        left += i64::from(element.num_children.unwrap_or(0)) - 1;
        if element.type_.is_some() {
            leaves.entry(column.clone()).or_default().push(Leaf::take(element));
        }
    }
    leaves.retain(|_, leaves| leaves.iter().any(|leaf| *leaf != Leaf::Plain));
    for chunk in footer.row_groups.iter_mut().flat_map(|group| &mut group.columns) {
        if let Some(data) = &mut chunk.meta_data {
            data.statistics = None;
            if data.type_ == Type::INT96 {
                data.type_ = Type::FIXED_LEN_BYTE_ARRAY;
            }
        }
    }
    (footer.column_orders, footer.key_value_metadata) = (None, None);
    let mut bytes = MAGIC.to_vec();
    append(&mut bytes, &footer)?;
    Some((bytes, leaves))
}

fn parse(footer: &[u8]) -> Option<FileMetaData> {
    // A string takes more memory than its bytes in the file.
    let max_bytes = footer.len().saturating_mul(32).saturating_add(1024);
    let mut protocol = TCompactInputProtocol::new(footer, max_bytes);
    FileMetaData::read_from_in_protocol(&mut protocol).ok()
}

/// The parquet file `bytes` with `entry` as its only key-value metadata; `None` if it is none.
///
/// Without the Arrow schema among them, pyarrow takes the schema and the entries from the footer itself.
pub(super) fn with_metadata(mut bytes: Vec<u8>, entry: Option<(&str, &str)>) -> Option<Vec<u8>> {
    let end = bytes.len().checked_sub(TAIL)?;
    let length = u32::from_le_bytes(bytes.get(end..end + 4)?.try_into().ok()?) as usize;
    let start = end.checked_sub(length)?;
    let mut footer = parse(bytes.get(start..end)?)?;
    footer.key_value_metadata =
        entry.map(|(key, value)| vec![KeyValue { key: key.into(), value: Some(value.into()) }]);
    bytes.truncate(start);
    append(&mut bytes, &footer)?;
    Some(bytes)
}

/// Ends a file with its footer.
fn append(bytes: &mut Vec<u8>, footer: &FileMetaData) -> Option<()> {
    let start = bytes.len();
    let mut protocol = TCompactOutputProtocol::new(&mut *bytes);
    footer.write_to_out_protocol(&mut protocol).ok()?;
    let length = u32::try_from(bytes.len() - start).ok()?;
    bytes.extend(length.to_le_bytes());
    bytes.extend(MAGIC);
    Some(())
}

/// The depth of a tree by the numbers of its nodes' children, in depth-first order.
fn depth(children: impl Iterator<Item = i32>) -> usize {
    let (mut left, mut deepest) = (Vec::new(), 0);
    for count in children {
        while left.last() == Some(&0) {
            left.pop();
        }
        if let Some(left) = left.last_mut() {
            *left -= 1;
        }
        if count > 0 {
            left.push(count);
            deepest = deepest.max(left.len());
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_depth_is_that_of_the_deepest_node() {
        // A root of a leaf, a list (of a struct of two leaves) and a leaf.
        assert_eq!(depth([3, 0, 1, 2, 0, 0, 0].into_iter()), 3);
        assert_eq!(depth([2, 0, 0].into_iter()), 1);
        assert_eq!(depth(std::iter::repeat_n(1, 500)), 500);
        assert_eq!(depth([].into_iter()), 0);
        assert_eq!(depth([i32::MIN, i32::MAX, -1].into_iter()), 1);
    }
}
