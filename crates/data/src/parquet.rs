//! Parquet tables, the format of the benchmarks' annotations and of logged completions.
//!
//! A thin layer over polars with typed columns and errors that name the file, column and row.

mod cast;
mod columns;
mod file;
mod footer;
mod rows;
mod write;

use std::path::{Path, PathBuf};

use polars::prelude::{Column as Series, DataFrame, DataType};

use crate::error::{Error, Result};
pub use columns::ColumnFile;
use file::ParquetFile;
pub(crate) use rows::{Bytes, NestedTable};
pub use write::{Column, write_table, write_table_in_existing_folder, write_table_with_metadata};

/// A parquet file in memory. Row indices are 0-based.
#[derive(Debug, Clone)]
pub struct Table {
    path: PathBuf,
    frame: DataFrame,
}

impl Table {
    /// Reads a parquet file into memory.
    ///
    /// # Errors
    /// The file cannot be opened, is not a readable parquet file, has more than 20 million rows or 32 GiB, or columns
    /// that are nested more than 48 deep.
    pub fn read(path: &Path) -> Result<Self> {
        let file = ParquetFile::open(path)?;
        let frame = file.read(&file.columns, 0..file.len())?;
        Ok(Self { path: path.into(), frame })
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.frame.height()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The column names, in file order.
    pub fn column_names(&self) -> Vec<String> {
        self.frame.get_column_names().into_iter().map(ToString::to_string).collect()
    }

    /// A string column.
    ///
    /// # Errors
    /// The column is missing, has the wrong type or contains nulls.
    pub fn strings(&self, name: &str) -> Result<Vec<String>> {
        self.all_present(name, self.optional_strings(name)?)
    }

    /// A nullable string column.
    ///
    /// # Errors
    /// The column is missing or has the wrong type.
    pub fn optional_strings(&self, name: &str) -> Result<Vec<Option<String>>> {
        let expected = "strings";
        let column = self.column(name)?;
        if *column.dtype() == DataType::Null {
            return Ok(vec![None; self.len()]);
        }
        let texts = column.str().map_err(|_| self.wrong_type(name, column, expected))?;
        Ok(texts.iter().map(|text| text.map(str::to_owned)).collect())
    }

    /// A column of integers, or of floats without a fraction, that fit into 64 bits.
    ///
    /// # Errors
    /// The column is missing, has the wrong type or contains nulls.
    pub fn integers(&self, name: &str) -> Result<Vec<i64>> {
        let expected = "integers";
        let column = self.column(name)?;
        if !column.dtype().is_primitive_numeric() {
            return Err(self.wrong_type(name, column, expected));
        }
        // pandas makes floats of integers beside a null.
        let fits = |number: f64| number.fract() == 0.0 && number.abs() < (1_u64 << 53) as f64;
        if column.dtype().is_float() && !self.floats(name)?.into_iter().all(fits) {
            return Err(self.wrong_type(name, column, expected));
        }
        let numbers = column
            .strict_cast(&DataType::Int64)
            .map_err(|_| self.wrong_type(name, column, "64-bit integers"))?;
        let numbers = numbers.i64().map_err(|_| self.wrong_type(name, column, expected))?;
        self.all_present(name, numbers.iter().collect())
    }

    /// A float column.
    ///
    /// # Errors
    /// The column is missing, has the wrong type or contains nulls.
    pub fn floats(&self, name: &str) -> Result<Vec<f64>> {
        self.all_present(name, self.optional_floats(name)?)
    }

    /// A nullable float column.
    ///
    /// # Errors
    /// The column is missing or has the wrong type.
    pub fn optional_floats(&self, name: &str) -> Result<Vec<Option<f64>>> {
        let expected = "numbers";
        let column = self.column(name)?;
        if *column.dtype() == DataType::Null {
            return Ok(vec![None; self.len()]);
        }
        if !column.dtype().is_primitive_numeric() {
            return Err(self.wrong_type(name, column, expected));
        }
        let wrong = |_| self.wrong_type(name, column, expected);
        let numbers = column.cast(&DataType::Float64).map_err(wrong)?;
        Ok(numbers.f64().map_err(wrong)?.iter().collect())
    }

    /// A nullable column of string lists.
    ///
    /// # Errors
    /// The column is missing, has the wrong type, or a list contains nulls.
    pub fn optional_string_lists(&self, name: &str) -> Result<Vec<Option<Vec<String>>>> {
        let column = self.column(name)?;
        if *column.dtype() == DataType::Null {
            return Ok(vec![None; self.len()]);
        }
        let lists = match column.list() {
            Ok(lists) if matches!(lists.inner_dtype(), DataType::String | DataType::Null) => lists,
            _ => return Err(self.wrong_type(name, column, "lists of strings")),
        };
        (0..lists.len())
            .map(|row| {
                let Some(texts) = lists.get_as_series(row) else { return Ok(None) };
                if texts.is_empty() {
                    return Ok(Some(Vec::new()));
                }
                let texts = texts.str().map_err(|_| self.absent(name, row))?;
                texts
                    .iter()
                    .map(|text| text.map(str::to_owned).ok_or_else(|| self.absent(name, row)))
                    .collect::<Result<_>>()
                    .map(Some)
            })
            .collect()
    }

    fn column(&self, name: &str) -> Result<&Series> {
        self.frame.column(name).map_err(|_| Error::MissingColumn {
            path: self.path.clone(),
            column: name.to_owned(),
            found: self.column_names().join(", "),
        })
    }

    fn all_present<T>(&self, name: &str, values: Vec<Option<T>>) -> Result<Vec<T>> {
        values
            .into_iter()
            .enumerate()
            .map(|(row, value)| value.ok_or_else(|| self.absent(name, row)))
            .collect()
    }

    fn absent(&self, name: &str, row: usize) -> Error {
        Error::NullValue { path: self.path.clone(), column: name.to_owned(), row }
    }

    fn wrong_type(&self, name: &str, column: &Series, expected: &'static str) -> Error {
        Error::ColumnType {
            path: self.path.clone(),
            column: name.to_owned(),
            expected,
            found: column.dtype().to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(columns: Vec<(&str, Column)>) -> (tempfile::TempDir, Table) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table.parquet");
        write_table(&path, columns).unwrap();
        let table = Table::read(&path).unwrap();
        (folder, table)
    }

    fn id_lists(table: &Table, name: &str) -> Vec<Vec<u32>> {
        let lists = table.frame.column(name).unwrap().list().unwrap();
        let ids = |row| lists.get_as_series(row).unwrap().u32().unwrap().to_vec();
        (0..lists.len()).map(|row| ids(row).into_iter().map(Option::unwrap).collect()).collect()
    }

    fn text(values: &[&str]) -> Column {
        Column::Strings(values.iter().map(|&value| value.to_owned()).collect())
    }

    #[test]
    fn every_kind_of_column_round_trips() {
        let (_folder, table) = written(vec![
            ("text", text(&["a", ""])),
            ("optional text", Column::OptionalStrings(vec![None, Some("ü".into())])),
            ("integers", Column::Integers(vec![i64::MIN, i64::MAX])),
            ("floats", Column::Floats(vec![0.1, f64::INFINITY])),
            ("optional floats", Column::OptionalFloats(vec![Some(1.5), None])),
            ("ids", Column::IdLists(vec![vec![], vec![0, u32::MAX]])),
            (
                "optional lists",
                Column::OptionalStringLists(vec![Some(vec!["A. x".into(), "B. y".into()]), None]),
            ),
        ]);
        assert_eq!(table.len(), 2);
        assert_eq!(table.strings("text").unwrap(), ["a", ""]);
        assert_eq!(table.optional_strings("optional text").unwrap(), [None, Some("ü".into())]);
        assert_eq!(table.integers("integers").unwrap(), [i64::MIN, i64::MAX]);
        assert_eq!(table.floats("floats").unwrap(), [0.1, f64::INFINITY]);
        assert_eq!(table.optional_floats("optional floats").unwrap(), [Some(1.5), None]);
        assert_eq!(id_lists(&table, "ids"), [vec![], vec![0, u32::MAX]]);
        assert_eq!(
            table.optional_string_lists("optional lists").unwrap(),
            [Some(vec!["A. x".to_owned(), "B. y".to_owned()]), None]
        );
    }

    #[test]
    fn a_table_without_rows_keeps_its_columns() {
        let (_folder, table) = written(vec![("ids", Column::IdLists(vec![]))]);
        assert!(table.is_empty());
        assert_eq!(id_lists(&table, "ids"), Vec::<Vec<u32>>::new());
    }

    #[test]
    fn floats_without_a_fraction_are_integers() {
        let (_folder, table) = written(vec![
            ("whole", Column::Floats(vec![1.0, -2.0])),
            ("parts", Column::Floats(vec![1.0, 0.5])),
            ("large", Column::Floats(vec![1.0, 1e300])),
        ]);
        assert_eq!(table.integers("whole").unwrap(), [1, -2]);
        for name in ["parts", "large"] {
            assert!(matches!(table.integers(name), Err(Error::ColumnType { .. })), "{name}");
        }
    }

    /// A file by pyarrow: `scripts/parity/make_question_fixtures.py`.
    #[test]
    fn dictionaries_and_small_types_are_texts_and_numbers() {
        let table = |name: &str| {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/multimodal");
            Table::read(&folder.join(name)).unwrap()
        };
        let types = table("types.parquet");
        assert_eq!(types.strings("dictionary").unwrap(), ["a"]);
        assert_eq!(types.strings("large_string").unwrap(), ["ü"]);
        for (name, value) in [("int8", 1), ("int16", -2), ("uint8", 4), ("uint16", 5)] {
            assert_eq!(types.integers(name).unwrap(), [value], "{name}");
            assert_eq!(types.floats(name).unwrap(), [value as f64], "{name}");
        }
        assert_eq!(types.floats("float16").unwrap(), [1.5]);
        assert_eq!(types.floats("decimal").unwrap(), [1.25]);
        assert_eq!(types.optional_strings("null").unwrap(), [None]);
        let texts = |items: &[&str]| Some(items.iter().map(|&item| item.to_owned()).collect());
        assert_eq!(types.optional_string_lists("large_list").unwrap(), [texts(&["a"])]);
        let variants = table("variants.parquet");
        assert_eq!(variants.optional_string_lists("tags").unwrap(), [texts(&["a", "b", "a"])]);
        assert_eq!(variants.optional_string_lists("empty").unwrap(), [texts(&[])]);
    }

    #[test]
    fn a_missing_column_is_reported_with_the_available_ones() {
        let (_folder, table) = written(vec![("a", text(&["x"])), ("b", text(&["y"]))]);
        let error = table.strings("question").unwrap_err().to_string();
        assert!(error.contains("`question`") && error.contains("a, b"), "{error}");
    }

    #[test]
    fn a_column_of_the_wrong_type_is_reported_with_both_types() {
        let (_folder, table) = written(vec![("id", text(&["x"]))]);
        let error = table.integers("id").unwrap_err().to_string();
        assert!(error.contains("`id`") && error.contains("integers"), "{error}");
        assert!(error.contains("str"), "{error}");
        assert!(matches!(table.optional_string_lists("id"), Err(Error::ColumnType { .. })));
        assert!(matches!(table.floats("id"), Err(Error::ColumnType { .. })));
    }

    #[test]
    fn a_null_is_reported_with_its_row() {
        let (_folder, table) =
            written(vec![("name", Column::OptionalStrings(vec![Some("x".into()), None]))]);
        let error = table.strings("name").unwrap_err().to_string();
        assert!(error.contains("row 1") && error.contains("`name`"), "{error}");
    }

    #[test]
    fn columns_of_different_lengths_are_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table.parquet");
        let columns = vec![("a", text(&["x"])), ("b", text(&["x", "y"]))];
        assert!(matches!(write_table(&path, columns), Err(Error::ParquetWrite { .. })));
        assert!(!path.exists());
    }

    #[test]
    fn a_few_bytes_with_too_many_rows_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table.parquet");
        write_table(&path, vec![("n", Column::Integers(vec![7; footer::MAX_ROWS + 1]))]).unwrap();
        assert!(path.metadata().unwrap().len() < 1 << 20);
        let error = Table::read(&path).unwrap_err().to_string();
        assert!(error.contains("it has 20000001 rows"), "{error}");
    }

    #[test]
    fn a_corrupt_file_is_reported_by_name() {
        let (folder, table) = written(vec![("a", text(&["x", "y", "z"]))]);
        let whole = std::fs::read(table.path()).unwrap();
        let path = folder.path().join("damaged.parquet");
        for damaged in [&whole[..0], &whole[..whole.len() / 2], &whole[8..], b"id,question\n"] {
            std::fs::write(&path, damaged).unwrap();
            let error = Table::read(&path).unwrap_err();
            assert!(matches!(error, Error::Parquet { .. }), "{error}");
            assert!(error.to_string().contains("damaged.parquet"), "{error}");
        }
    }
}
