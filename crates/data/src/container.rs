//! The records of a file: a JSON list, JSON lines, or a parquet table, by its content.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use embodied_r_files::read_text;
use serde::Deserializer;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::parquet::{Bytes, NestedTable};
use crate::record::json_type;

/// The first bytes of a parquet file.
const PARQUET: &[u8] = b"PAR1";

/// A record before it is known to be one.
pub(crate) enum Raw {
    /// A JSON value.
    Json(Value),
    /// A row of a parquet table, with its binary values by field.
    Row(Map<String, Value>, Bytes),
    /// A line that is not JSON.
    Damaged(serde_json::Error),
}

impl Raw {
    /// The fields of the record with this 0-based index, and its binary values.
    ///
    /// # Errors
    /// It is not an object.
    pub(crate) fn into_fields(
        self,
        path: &Path,
        index: usize,
    ) -> Result<(Map<String, Value>, Bytes)> {
        let fault = |reason| Error::Record { path: path.into(), record: index + 1, reason };
        match self {
            Self::Row(fields, bytes) => Ok((fields, bytes)),
            Self::Json(Value::Object(fields)) => Ok((fields, Bytes::new())),
            Self::Json(value) => {
                Err(fault(format!("must be an object, not {}", json_type(&value))))
            }
            Self::Damaged(error) => Err(fault(format!("is not JSON: {error}"))),
        }
    }
}

/// Calls `read` with each record and its 0-based index; in JSON lines, that of its line.
///
/// # Errors
/// The file cannot be read, is a folder or empty, or is neither of the three; or those of `read`.
pub(crate) fn for_each(path: &Path, mut read: impl FnMut(usize, Raw) -> Result<()>) -> Result<()> {
    if is_parquet(path)? {
        let table = NestedTable::open(path)?;
        return table.for_each_row(|index, fields, bytes| read(index, Raw::Row(fields, bytes)));
    }
    let text = read_text(path)?;
    let start = text.trim_start();
    if start.starts_with('[') {
        return list(path, &text, &mut |index, value| read(index, Raw::Json(value)));
    }
    if !start.starts_with('{') {
        let start = start.lines().next().map(excerpt);
        return Err(match start {
            Some(start) => Error::NotRecords { path: path.into(), start },
            None => Error::EmptyQuestionFile { path: path.into() },
        });
    }
    let lines = || text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    // One object over several lines.
    let is_damaged = |line: &str| serde_json::from_str::<IgnoredAny>(line).is_err();
    if lines().next().is_some_and(|(_, line)| is_damaged(line))
        && let Ok(value) = serde_json::from_str(&text)
    {
        return read(0, Raw::Json(value));
    }
    for (index, line) in lines() {
        read(index, serde_json::from_str(line).map_or_else(Raw::Damaged, Raw::Json))?;
    }
    Ok(())
}

/// The columns of a parquet table with binary values; none of another file.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn binary_columns(path: &Path) -> Result<Vec<String>> {
    match is_parquet(path)? {
        true => NestedTable::open(path)?.binary_columns(),
        false => Ok(Vec::new()),
    }
}

/// The columns of a parquet table, or of the first record of another file.
///
/// # Errors
/// The file cannot be read, or has no records.
pub(crate) fn columns(path: &Path) -> Result<Vec<String>> {
    if is_parquet(path)? {
        return NestedTable::open(path).map(|table| table.columns());
    }
    let mut found = None;
    for_each(path, |index, raw| {
        if found.is_none() {
            found = Some(raw.into_fields(path, index)?.0);
        }
        Ok(())
    })?;
    let fields = found.ok_or_else(|| Error::EmptyQuestionFile { path: path.into() })?;
    Ok(fields.into_iter().map(|(name, _)| name).collect())
}

fn is_parquet(path: &Path) -> Result<bool> {
    if path.is_dir() {
        return Err(Error::QuestionFolder { path: path.into() });
    }
    let mut start = Vec::new();
    let mut file = File::open(path).map_err(Error::io("read", path))?;
    let length = file.by_ref().take(PARQUET.len() as u64).read_to_end(&mut start);
    length.map_err(Error::io("read", path))?;
    Ok(start == PARQUET)
}

/// The start of a long text, for messages.
pub(crate) fn excerpt(text: &str) -> String {
    const MAX_CHARS: usize = 200;
    match text.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
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
