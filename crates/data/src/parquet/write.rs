//! Writing tables.
//!
//! polars describes its own types in the Arrow schema of a file's metadata: strings as `string_view`, which pandas refuses in
//! lists. So files are written without it, and readers take the types from the parquet schema.

use std::path::Path;

use embodied_r_files::{create_parents, write_atomic, write_in_existing_folder};
use polars::prelude::{
    Column as Series, DataFrame, DataType, Float32Type, Int64Type, ListPrimitiveChunkedBuilder,
    ListStringChunkedBuilder, ParquetWriter, PlSmallStr, PolarsError, PolarsResult,
    Series as Values, UInt32Type,
};
use polars::prelude::{IntoColumn as _, ListBuilderTrait as _, NamedFrom as _};

use super::footer;
use crate::error::{Error, Result};

/// The values of a column to write, one per row.
#[derive(Debug, Clone, PartialEq)]
pub enum Column {
    /// Strings.
    Strings(Vec<String>),
    /// Nullable strings.
    OptionalStrings(Vec<Option<String>>),
    /// Integers.
    Integers(Vec<i64>),
    /// Floats.
    Floats(Vec<f64>),
    /// Nullable floats.
    OptionalFloats(Vec<Option<f64>>),
    /// Lists of token ids.
    IdLists(Vec<Vec<u32>>),
    /// Nullable lists of strings.
    OptionalStringLists(Vec<Option<Vec<String>>>),
    /// Floats of 32 bits.
    Floats32(Vec<f32>),
    /// Lists of `width` floats of 32 bits, one after the other.
    Floats32Lists {
        /// Rows × `width` values.
        values: Vec<f32>,
        /// The length of each list, not 0.
        width: usize,
    },
    /// Lists of integers.
    IntegerLists(Vec<Vec<i64>>),
    /// Lists of floats.
    FloatLists(Vec<Vec<f64>>),
    /// Lists of floats, of which each is in `depth` lists of its own, as arrays of the shape (n, 1, 1) at depth 2.
    NestedFloatLists {
        /// The floats of each row.
        rows: Vec<Vec<f64>>,
        /// The number of lists around each float within its row's.
        depth: usize,
    },
}

impl Column {
    fn into_series(self, name: &str) -> Series {
        let name = PlSmallStr::from_str(name);
        match self {
            Self::Strings(values) => Series::new(name, values),
            Self::OptionalStrings(values) => Series::new(name, values),
            Self::Integers(values) => Series::new(name, values),
            Self::Floats(values) => Series::new(name, values),
            Self::OptionalFloats(values) => Series::new(name, values),
            Self::IdLists(values) => {
                let total = values.iter().map(Vec::len).sum();
                let mut lists = ListPrimitiveChunkedBuilder::<UInt32Type>::new(
                    name,
                    values.len(),
                    total,
                    DataType::UInt32,
                );
                values.iter().for_each(|ids| lists.append_slice(ids));
                lists.finish().into_column()
            }
            Self::OptionalStringLists(values) => {
                let mut lists = ListStringChunkedBuilder::new(name, values.len(), values.len());
                for texts in &values {
                    match texts {
                        Some(texts) => lists.append_values_iter(texts.iter().map(String::as_str)),
                        None => lists.append_null(),
                    }
                }
                lists.finish().into_column()
            }
            Self::Floats32(values) => Series::new(name, values),
            Self::Floats32Lists { values, width } => {
                let rows = values.len() / width.max(1);
                let mut lists = ListPrimitiveChunkedBuilder::<Float32Type>::new(
                    name,
                    rows,
                    values.len(),
                    DataType::Float32,
                );
                values.chunks(width.max(1)).for_each(|row| lists.append_slice(row));
                lists.finish().into_column()
            }
            Self::IntegerLists(rows) => {
                let total = rows.iter().map(Vec::len).sum();
                let mut lists = ListPrimitiveChunkedBuilder::<Int64Type>::new(
                    name,
                    rows.len(),
                    total,
                    DataType::Int64,
                );
                rows.iter().for_each(|row| lists.append_slice(row));
                lists.finish().into_column()
            }
            Self::FloatLists(rows) => nested_floats(&rows, 0).with_name(name).into_column(),
            Self::NestedFloatLists { rows, depth } => {
                nested_floats(&rows, depth).with_name(name).into_column()
            }
        }
    }
}

/// A list per row, whose floats are in `depth` lists of their own.
fn nested_floats(rows: &[Vec<f64>], depth: usize) -> Values {
    let nested = |row: &Vec<f64>| {
        let floats = Values::new(PlSmallStr::EMPTY, row);
        (0..depth).fold(floats, |inner, _| {
            let single: Vec<Values> =
                (0..inner.len()).map(|at| inner.slice(at as i64, 1)).collect();
            Values::new(PlSmallStr::EMPTY, single)
        })
    };
    let lists: Vec<Values> = rows.iter().map(nested).collect();
    Values::new(PlSmallStr::EMPTY, lists)
}

/// Writes a parquet file of the given columns atomically. Creates missing parent folders.
///
/// # Errors
/// The columns differ in length or share a name, or the file cannot be written.
pub fn write_table(path: &Path, columns: Vec<(&str, Column)>) -> Result<()> {
    create_parents(path)?;
    write_table_in_existing_folder(path, columns)
}

/// Like [`write_table`], but never creates parent folders, as [`write_in_existing_folder`].
///
/// # Errors
/// As [`write_table`], also if the folder does not exist.
pub fn write_table_in_existing_folder(path: &Path, columns: Vec<(&str, Column)>) -> Result<()> {
    Ok(write_in_existing_folder(path, &encoded(path, columns, None)?)?)
}

/// Like [`write_table`], with an entry in the file's key-value metadata, such as pandas' description of an index.
///
/// # Errors
/// As [`write_table`].
pub fn write_table_with_metadata(
    path: &Path,
    columns: Vec<(&str, Column)>,
    entry: (&str, &str),
) -> Result<()> {
    Ok(write_atomic(path, &encoded(path, columns, Some(entry))?)?)
}

/// The bytes of the file at `path`, with an entry of key-value metadata.
fn encoded(
    path: &Path,
    columns: Vec<(&str, Column)>,
    entry: Option<(&str, &str)>,
) -> Result<Vec<u8>> {
    let write_error = |source| Error::ParquetWrite { path: path.into(), source };
    let mut bytes = Vec::new();
    let mut frame = data_frame(columns).map_err(write_error)?;
    ParquetWriter::new(&mut bytes).finish(&mut frame).map_err(write_error)?;
    let unreadable = || PolarsError::ComputeError("its footer cannot be written".into());
    footer::with_metadata(bytes, entry).ok_or_else(unreadable).map_err(write_error)
}

fn data_frame(columns: Vec<(&str, Column)>) -> PolarsResult<DataFrame> {
    let columns = columns.into_iter().map(|(name, column)| column.into_series(name)).collect();
    DataFrame::new_infer_height(columns)
}

#[cfg(test)]
mod tests {
    use polars_parquet_format::{ConvertedType, Type};

    use super::*;
    use crate::parquet::Table;

    /// A column of each kind, with one row.
    fn every_kind() -> Vec<(&'static str, Column)> {
        let text = || "a".to_owned();
        vec![
            ("text", Column::Strings(vec![text()])),
            ("optional text", Column::OptionalStrings(vec![None])),
            ("integers", Column::Integers(vec![1])),
            ("floats", Column::Floats(vec![0.5])),
            ("optional floats", Column::OptionalFloats(vec![None])),
            ("ids", Column::IdLists(vec![vec![7]])),
            ("texts", Column::OptionalStringLists(vec![Some(vec![text()])])),
            ("floats of 32 bits", Column::Floats32(vec![0.5])),
            ("lists of 32 bits", Column::Floats32Lists { values: vec![0.5, 1.0], width: 2 }),
            ("integer lists", Column::IntegerLists(vec![vec![1]])),
            ("float lists", Column::FloatLists(vec![vec![0.5]])),
            ("nested", Column::NestedFloatLists { rows: vec![vec![0.5]], depth: 2 }),
        ]
    }

    #[test]
    fn no_written_schema_has_view_types_not_even_nested() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table.parquet");
        for write in [
            write_table,
            write_table_in_existing_folder,
            |path: &Path, columns: Vec<(&str, Column)>| {
                write_table_with_metadata(path, columns, ("key", "value"))
            },
        ] {
            write(&path, every_kind()).unwrap();
            let footer = footer::read(&mut std::fs::File::open(&path).unwrap()).unwrap();
            // Views are types of Arrow. The parquet schema has none, and an Arrow schema would have precedence over it.
            let entries = footer.key_value_metadata.unwrap_or_default();
            assert!(entries.iter().all(|entry| entry.key != "ARROW:schema"), "{entries:?}");
            let texts = footer.schema.iter().filter(|leaf| leaf.type_ == Some(Type::BYTE_ARRAY));
            let texts: Vec<_> = texts.map(|leaf| leaf.converted_type).collect();
            assert_eq!(texts, [Some(ConvertedType::UTF8); 3]);
        }
    }

    #[test]
    fn an_entry_of_metadata_is_the_only_one_and_the_table_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tasks.parquet");
        let columns = vec![
            ("task_index", Column::Integers(vec![0, 1])),
            ("task", Column::Strings(vec!["push".into(), "lift".into()])),
        ];
        write_table_with_metadata(&path, columns, ("pandas", r#"{"index_columns": ["task"]}"#))
            .unwrap();
        let table = Table::read(&path).unwrap();
        assert_eq!(table.strings("task").unwrap(), ["push", "lift"]);
        assert_eq!(table.integers("task_index").unwrap(), [0, 1]);
        let bytes = std::fs::read(&path).unwrap();
        let has = |text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
        assert!(has("pandas") && has(r#""index_columns": ["task"]"#) && !has("ARROW:schema"));
    }
}
