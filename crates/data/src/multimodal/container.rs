//! The records of a file: a JSON list, JSON lines, or a parquet table, by its content.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use embodied_r_files::read_text;
use serde::Deserializer;
use serde::de::{DeserializeSeed, Error as _, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::parquet::{Bytes, NestedTable};

/// The first bytes of a parquet file.
const PARQUET: &[u8] = b"PAR1";

/// A record before it is known to be one.
pub(super) enum Raw {
    /// A JSON value.
    Json(Value),
    /// A row of a parquet table, with its binary values by field.
    Row(Map<String, Value>, Bytes),
    /// A line that is not JSON.
    Damaged(serde_json::Error),
}

/// Calls `read` with each record and its 0-based index; in JSON lines, that of its line. Columns of types that are not
/// read are left out, unless they are `needed`.
///
/// # Errors
/// The file cannot be read, or is neither of the three, or a needed column has a type that is not read; or those of
/// `read`.
pub(super) fn for_each(
    path: &Path,
    needed: impl Fn(&str) -> bool,
    mut read: impl FnMut(usize, Raw) -> Result<()>,
) -> Result<()> {
    if is_parquet(path)? {
        let table = NestedTable::open(path)?;
        if let Some((column, found)) = table.left_out.iter().find(|(name, _)| needed(name)).cloned()
        {
            let expected =
                "text, numbers of 32 or 64 bits, booleans, bytes, or lists or structs of them";
            return Err(Error::ColumnType { path: path.into(), column, expected, found });
        }
        return table.for_each_row(|index, fields, bytes| read(index, Raw::Row(fields, bytes)));
    }
    let text = read_text(path)?;
    if text.trim_start().starts_with('[') {
        return list(path, &text, &mut |index, value| read(index, Raw::Json(value)));
    }
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        read(index, serde_json::from_str(line).map_or_else(Raw::Damaged, Raw::Json))?;
    }
    Ok(())
}

fn is_parquet(path: &Path) -> Result<bool> {
    let mut start = Vec::new();
    let mut file = File::open(path).map_err(Error::io("read", path))?;
    let length = file.by_ref().take(PARQUET.len() as u64).read_to_end(&mut start);
    length.map_err(Error::io("read", path))?;
    Ok(start == PARQUET)
}

/// Reads a JSON list one record at a time, so that only one is in memory besides the text.
fn list(path: &Path, text: &str, read: &mut dyn FnMut(usize, Value) -> Result<()>) -> Result<()> {
    let mut failure = None;
    let mut parser = serde_json::Deserializer::from_str(text);
    let parsed = Records { read, failure: &mut failure }
        .deserialize(&mut parser)
        .and_then(|()| parser.end());
    match (failure, parsed) {
        (Some(error), _) => Err(error),
        (None, Err(source)) => Err(Error::Json { path: path.into(), source }),
        (None, Ok(())) => Ok(()),
    }
}

struct Records<'a> {
    read: &'a mut dyn FnMut(usize, Value) -> Result<()>,
    failure: &'a mut Option<Error>,
}

impl<'de> DeserializeSeed<'de> for Records<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Records<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of records")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<(), A::Error> {
        let mut index = 0;
        while let Some(value) = values.next_element::<Value>()? {
            if let Err(error) = (self.read)(index, value) {
                *self.failure = Some(error);
                return Err(A::Error::custom("stopped"));
            }
            index += 1;
        }
        Ok(())
    }
}
