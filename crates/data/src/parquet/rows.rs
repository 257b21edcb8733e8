//! Rows of tables with nested columns, as JSON.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use polars::prelude::{AnyValue, DataType, PolarsError, PolarsResult};
use serde_json::{Map, Number, Value};

use super::file::{ParquetFile, caught};
use super::footer::MAX_BYTES;
use crate::error::Result;

/// Binary values of a row by field, such as `images[0].bytes`.
pub(crate) type Bytes = HashMap<String, Arc<[u8]>>;

/// A parquet file with nested columns, read one row group at a time.
pub(crate) struct NestedTable {
    file: ParquetFile,
}

impl NestedTable {
    /// Opens a parquet file.
    ///
    /// # Errors
    /// As [`Table::read`](super::Table::read).
    pub(crate) fn open(path: &Path) -> Result<Self> {
        Ok(Self { file: ParquetFile::open(path)? })
    }

    /// The columns.
    pub(crate) fn columns(&self) -> Vec<String> {
        self.file.columns.clone()
    }

    /// The columns with binary values, also nested.
    ///
    /// # Errors
    /// The file is corrupt.
    pub(crate) fn binary_columns(&self) -> Result<Vec<String>> {
        let frame = self.file.read(&self.file.columns, 0..0)?;
        let binary = frame.columns().iter().filter(|column| has_binary(column.dtype()));
        Ok(binary.map(|column| column.name().to_string()).collect())
    }

    /// Calls `each` with the index of each row, its columns, and its binary values, which are null in the columns.
    /// Equal binary values are shared.
    ///
    /// # Errors
    /// Those of `each`; or a row group cannot be read; or the values take more than 32 GiB.
    pub(crate) fn for_each_row(
        &self,
        mut each: impl FnMut(usize, Map<String, Value>, Bytes) -> Result<()>,
    ) -> Result<()> {
        let mut shared = Shared::default();
        for rows in self.file.row_groups() {
            let first = rows.start;
            let frame = self.file.read(&self.file.columns, rows)?;
            for row in 0..frame.height() {
                let (fields, bytes) = caught(&self.file.path, "its values are corrupt", || {
                    let (mut fields, mut bytes) = (Map::new(), Bytes::new());
                    for column in frame.columns() {
                        let name = column.name().as_str();
                        let value =
                            json(column.get(row)?, &mut name.to_owned(), &mut bytes, &mut shared)?;
                        fields.insert(name.to_owned(), value);
                    }
                    Ok((fields, bytes))
                })?;
                each(first + row, fields, bytes)?;
            }
        }
        Ok(())
    }
}

fn has_binary(dtype: &DataType) -> bool {
    match dtype {
        DataType::List(inner) => has_binary(inner),
        DataType::Struct(fields) => fields.iter().any(|field| has_binary(field.dtype())),
        other => *other == DataType::Binary,
    }
}

/// The binary values so far, and their size with that of all texts.
#[derive(Default)]
struct Shared {
    bytes: HashSet<Arc<[u8]>>,
    taken: u64,
}

impl Shared {
    fn take(&mut self, length: usize) -> PolarsResult<()> {
        self.taken += length as u64;
        match self.taken > MAX_BYTES {
            false => Ok(()),
            true => {
                let what = format!("its values take more than {} GiB", MAX_BYTES >> 30);
                Err(PolarsError::ComputeError(what.into()))
            }
        }
    }

    fn get(&mut self, bytes: &[u8]) -> PolarsResult<Arc<[u8]>> {
        if let Some(same) = self.bytes.get(bytes) {
            return Ok(same.clone());
        }
        self.take(bytes.len())?;
        let bytes: Arc<[u8]> = bytes.into();
        self.bytes.insert(bytes.clone());
        Ok(bytes)
    }
}

/// A value as JSON; binary ones are added to `bytes` under `field`, their place.
fn json(
    value: AnyValue<'_>,
    field: &mut String,
    bytes: &mut Bytes,
    shared: &mut Shared,
) -> PolarsResult<Value> {
    let length = field.len();
    let number = |value: f64| Number::from_f64(value).map_or(Value::Null, Value::Number);
    Ok(match value {
        AnyValue::Null => Value::Null,
        AnyValue::Boolean(value) => value.into(),
        AnyValue::String(text) => {
            shared.take(text.len())?;
            text.into()
        }
        AnyValue::StringOwned(text) => text.as_str().into(),
        AnyValue::UInt8(value) => value.into(),
        AnyValue::UInt16(value) => value.into(),
        AnyValue::UInt32(value) => value.into(),
        AnyValue::UInt64(value) => value.into(),
        AnyValue::Int8(value) => value.into(),
        AnyValue::Int16(value) => value.into(),
        AnyValue::Int32(value) => value.into(),
        AnyValue::Int64(value) => value.into(),
        AnyValue::Float32(value) => number(value.into()),
        AnyValue::Float64(value) => number(value),
        AnyValue::Binary(value) => {
            bytes.insert(field.clone(), shared.get(value)?);
            Value::Null
        }
        AnyValue::BinaryOwned(value) => {
            bytes.insert(field.clone(), shared.get(&value)?);
            Value::Null
        }
        AnyValue::List(values) => {
            let mut list = Vec::with_capacity(values.len());
            for index in 0..values.len() {
                field.push_str(&format!("[{index}]"));
                list.push(json(values.get(index)?, field, bytes, shared)?);
                field.truncate(length);
            }
            Value::Array(list)
        }
        AnyValue::Struct(_, _, fields) => {
            let names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
            object(names, value._iter_struct_av(), field, bytes, shared)?
        }
        AnyValue::StructOwned(parts) => {
            let (values, fields) = *parts;
            let names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
            object(names, values.into_iter(), field, bytes, shared)?
        }
        // No other types are read.
        other => other.get_str().map_or(Value::Null, Value::from),
    })
}

fn object<'a>(
    names: Vec<&str>,
    values: impl Iterator<Item = AnyValue<'a>>,
    field: &mut String,
    bytes: &mut Bytes,
    shared: &mut Shared,
) -> PolarsResult<Value> {
    let length = field.len();
    let mut object = Map::with_capacity(names.len());
    for (name, value) in names.into_iter().zip(values) {
        field.push('.');
        field.push_str(name);
        object.insert(name.to_owned(), json(value, field, bytes, shared)?);
        field.truncate(length);
    }
    Ok(Value::Object(object))
}
