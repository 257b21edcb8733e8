//! Rows of tables with nested columns, as JSON.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use polars::prelude::{
    AnyValue, ArrowDataType, ParquetReader, PolarsError, PolarsResult, SerReader as _,
};
use serde_json::{Map, Number, Value};

use super::footer::{self, MAX_BYTES};
use crate::error::{Error, Result};

/// Binary values of a row by field, such as `images[0].bytes`.
pub(crate) type Bytes = HashMap<String, Arc<[u8]>>;

/// A parquet file with nested columns, read one row group at a time.
pub(crate) struct NestedTable {
    path: PathBuf,
    file: File,
    columns: Vec<String>,
    /// The columns of types that are not read, with their types: dates, times, decimals, and numbers of 8 or 16 bits.
    pub(crate) left_out: Vec<(String, String)>,
    /// The numbers of rows of the row groups.
    groups: Vec<usize>,
}

impl NestedTable {
    /// Opens a parquet file.
    ///
    /// # Errors
    /// As [`Table::read`](super::Table::read).
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let mut file = File::open(path).map_err(Error::io("read", path))?;
        let groups = footer::check(path, &mut file)?;
        let (mut columns, mut left_out) = (Vec::new(), Vec::new());
        caught(path, "its footer is corrupt", || {
            for field in ParquetReader::new(file.try_clone()?).schema()?.iter_values() {
                match is_read(field.dtype()) {
                    true => columns.push(field.name.to_string()),
                    false => {
                        left_out.push((field.name.to_string(), format!("{:?}", field.dtype())))
                    }
                }
            }
            Ok(())
        })?;
        Ok(Self { path: path.into(), file, columns, left_out, groups })
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
        let (mut shared, mut first) = (Shared::default(), 0);
        for &rows in &self.groups {
            let frame = caught(&self.path, "it cannot be decoded", || {
                let reader =
                    ParquetReader::new(self.file.try_clone()?).with_slice(Some((first, rows)));
                reader.with_columns(Some(self.columns.clone())).finish()
            })?;
            for row in 0..frame.height() {
                let (fields, bytes) = caught(&self.path, "its values are corrupt", || {
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
            first += rows;
        }
        Ok(())
    }
}

/// Whether polars is built with the type; others are errors or panics.
fn is_read(dtype: &ArrowDataType) -> bool {
    use ArrowDataType as Type;
    match dtype {
        Type::Null | Type::Boolean => true,
        Type::Int32 | Type::Int64 | Type::UInt32 | Type::UInt64 => true,
        Type::Float32 | Type::Float64 => true,
        Type::Utf8 | Type::LargeUtf8 | Type::Utf8View => true,
        Type::Binary | Type::LargeBinary | Type::BinaryView | Type::FixedSizeBinary(_) => true,
        Type::List(field) | Type::LargeList(field) | Type::Map(field, _) => is_read(field.dtype()),
        Type::Struct(fields) => fields.iter().all(|field| is_read(field.dtype())),
        Type::Dictionary(_, values, _) => is_read(values),
        _ => false,
    }
}

/// The result of `work`, in which polars may panic on corrupt files.
pub(super) fn caught<T>(
    path: &Path,
    what: &'static str,
    work: impl FnOnce() -> PolarsResult<T>,
) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(PolarsError::ComputeError(what.into())))
        .map_err(|source| Error::Parquet { path: path.into(), source })
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
        // Dictionaries of texts; no other types are read.
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
