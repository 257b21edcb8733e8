//! Some columns of a file, some rows at a time.

use std::ops::Range;
use std::path::Path;

use polars::prelude::{DataType, PolarsResult, Series as Values};

use super::Table;
use super::file::ParquetFile;
use crate::error::{Error, Result};

/// Values of the columns that are read at once: 1 GiB as floats. Run-length encoding puts billions into a few bytes.
const MAX_VALUES: i64 = 1 << 27;

/// A parquet file of which some columns are read.
#[derive(Debug)]
pub struct ColumnFile {
    file: ParquetFile,
}

impl ColumnFile {
    /// Opens a parquet file and reads its footer.
    ///
    /// # Errors
    /// As [`Table::read`].
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self { file: ParquetFile::open(path)? })
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.file.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rows of each row group.
    pub fn row_groups(&self) -> Vec<Range<usize>> {
        self.file.row_groups()
    }

    /// Whether the file has the column.
    pub fn has(&self, column: &str) -> bool {
        self.file.columns.iter().any(|name| name == column)
    }

    /// Reads `rows` of `columns` into memory.
    ///
    /// # Errors
    /// A column is missing or has more than 134 million values, or the file is corrupt.
    pub fn read(&self, columns: &[&str], rows: Range<usize>) -> Result<Table> {
        let path = &self.file.path;
        if let Some(missing) = columns.iter().find(|column| !self.has(column)) {
            return Err(Error::MissingColumn {
                path: path.clone(),
                column: (*missing).to_owned(),
                found: self.file.columns.join(", "),
            });
        }
        self.file.check_values(columns, MAX_VALUES)?;
        let columns: Vec<String> = columns.iter().map(|&column| column.to_owned()).collect();
        Ok(Table { path: path.clone(), frame: self.file.read(&columns, rows)? })
    }
}

impl Table {
    /// A column of numbers, booleans, or (nested) lists of them with `width` values per row: rows × `width`, row by row.
    ///
    /// # Errors
    /// The column is missing, has the wrong type or contains nulls, or a row has another number of values.
    pub fn number_rows(&self, name: &str, width: usize) -> Result<Vec<f64>> {
        let column = self.column(name)?;
        let wrong_type = || self.wrong_type(name, column, "numbers or lists of numbers");
        let (mut values, mut per_row) = (column.as_materialized_series().clone(), 1);
        while matches!(values.dtype(), DataType::List(_)) {
            let row = |item: usize| item / per_row.max(1);
            let (inner, length) = match flattened(&values).map_err(|_| wrong_type())? {
                Lists::Of(inner, length) => (inner, length),
                Lists::Null(item) => return Err(self.absent(name, row(item))),
                Lists::Uneven { item, length } => {
                    return Err(self.row_width(
                        name,
                        row(item),
                        length.saturating_mul(per_row),
                        width,
                    ));
                }
            };
            per_row = length.saturating_mul(per_row);
            values = inner;
        }
        if !(values.dtype().is_primitive_numeric() || *values.dtype() == DataType::Boolean) {
            return Err(wrong_type());
        }
        if per_row != width && !self.is_empty() {
            return Err(self.row_width(name, 0, per_row, width));
        }
        let numbers = values.cast(&DataType::Float64).map_err(|_| wrong_type())?;
        let numbers = numbers.f64().map_err(|_| wrong_type())?.iter().enumerate();
        numbers
            .map(|(at, number)| number.ok_or_else(|| self.absent(name, at / width.max(1))))
            .collect()
    }

    /// The binary field `field` of a column of structs, such as `bytes` of images.
    ///
    /// # Errors
    /// The column is missing or has the wrong type, or a row has no such value.
    pub fn struct_bytes(&self, name: &str, field: &str) -> Result<Vec<Vec<u8>>> {
        let column = self.column(name)?;
        let wrong_type =
            || self.wrong_type(name, column, "structs with a binary field for an image");
        let structs = column.struct_().map_err(|_| wrong_type())?;
        let values = structs.field_by_name(field).map_err(|_| wrong_type())?;
        let values = values.binary().map_err(|_| wrong_type())?;
        self.all_present(name, values.iter().map(|value| value.map(<[u8]>::to_vec)).collect())
    }

    fn row_width(&self, name: &str, row: usize, found: usize, expected: usize) -> Error {
        let (path, column) = (self.path.clone(), name.to_owned());
        Error::RowWidth { path, column, row, found, expected }
    }
}

/// The lists of a series.
enum Lists {
    /// All their values, and how many each has.
    Of(Values, usize),
    /// This one is null.
    Null(usize),
    /// This one has another length than the first.
    Uneven { item: usize, length: usize },
}

fn flattened(lists: &Values) -> PolarsResult<Lists> {
    let lists = lists.list()?;
    if let Some(item) = (lists.null_count() > 0)
        .then(|| lists.is_null().iter().position(|null| null == Some(true)))
        .flatten()
    {
        return Ok(Lists::Null(item));
    }
    let (mut first, mut item) = (None, 0);
    for chunk in lists.downcast_iter() {
        for ends in chunk.offsets().as_slice().windows(2) {
            let length = usize::try_from(ends[1] - ends[0]).unwrap_or(0);
            if *first.get_or_insert(length) != length {
                return Ok(Lists::Uneven { item, length });
            }
            item += 1;
        }
    }
    Ok(Lists::Of(lists.get_inner(), first.unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parquet::{Column, write_table};

    fn written(columns: Vec<(&str, Column)>) -> (tempfile::TempDir, ColumnFile) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table.parquet");
        write_table(&path, columns).unwrap();
        let file = ColumnFile::open(&path).unwrap();
        (folder, file)
    }

    fn numbers(file: &ColumnFile, name: &str, width: usize) -> Result<Vec<f64>> {
        file.read(&[name], 0..file.len())?.number_rows(name, width)
    }

    #[test]
    fn numbers_and_lists_of_them_are_rows_of_values() {
        let (_folder, file) = written(vec![
            ("scalar", Column::Floats32(vec![0.5, 1.5])),
            ("list", Column::Floats32Lists { values: vec![1.0, 2.0, 3.0, 4.0], width: 2 }),
            ("integers", Column::IntegerLists(vec![vec![7, -8], vec![9, 10]])),
            (
                "nested",
                Column::NestedFloatLists { rows: vec![vec![1.0, 2.0], vec![3.0, 4.0]], depth: 2 },
            ),
        ]);
        assert_eq!(numbers(&file, "scalar", 1).unwrap(), [0.5, 1.5]);
        assert_eq!(numbers(&file, "list", 2).unwrap(), [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(numbers(&file, "integers", 2).unwrap(), [7.0, -8.0, 9.0, 10.0]);
        assert_eq!(numbers(&file, "nested", 2).unwrap(), [1.0, 2.0, 3.0, 4.0]);
        let second = file.read(&["list"], 1..2).unwrap();
        assert_eq!(second.number_rows("list", 2).unwrap(), [3.0, 4.0]);
        assert_eq!(second.column_names(), ["list"]);
    }

    /// A file by pyarrow: `scripts/parity/make_column_fixtures.py`.
    #[test]
    fn float16_columns_are_read_as_the_same_numbers() {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/columns/float16.parquet");
        let file = ColumnFile::open(&path).unwrap();
        assert_eq!(numbers(&file, "scalar", 1).unwrap(), [0.5, -2.0]);
        let tenth = f64::from(half::f16::from_f64(0.1));
        assert_eq!(numbers(&file, "list", 2).unwrap(), [tenth, 1.0, 2.0, 65504.0]);
        let error = numbers(&file, "bytes", 1).unwrap_err().to_string();
        assert!(error.contains("numbers or lists of numbers"), "{error}");
    }

    #[test]
    fn a_row_of_another_width_is_named() {
        let (_folder, file) = written(vec![
            ("even", Column::FloatLists(vec![vec![1.0, 2.0], vec![3.0, 4.0]])),
            ("uneven", Column::FloatLists(vec![vec![1.0, 2.0], vec![3.0]])),
        ]);
        let error = |name, width| numbers(&file, name, width).unwrap_err().to_string();
        assert!(
            error("even", 3).contains("`even`")
                && error("even", 3).contains("2 values in row 0, not 3")
        );
        assert!(error("uneven", 2).contains("1 values in row 1, not 2"), "{}", error("uneven", 2));
    }

    #[test]
    fn nulls_texts_and_missing_columns_are_named() {
        let (_folder, file) = written(vec![
            ("null", Column::OptionalFloats(vec![Some(1.0), None])),
            ("text", Column::Strings(vec!["a".into(), "b".into()])),
        ]);
        let error = |name| numbers(&file, name, 1).unwrap_err().to_string();
        assert!(error("null").contains("null in row 1"), "{}", error("null"));
        assert!(error("text").contains("numbers or lists of numbers"), "{}", error("text"));
        assert!(error("absent").contains("null, text"), "{}", error("absent"));
        let table = file.read(&["text"], 0..2).unwrap();
        assert!(matches!(table.struct_bytes("text", "bytes"), Err(Error::ColumnType { .. })));
    }

    #[test]
    fn too_many_values_are_refused_by_the_footer() {
        let values = vec![0.0; 3000];
        let (_folder, file) = written(vec![("list", Column::Floats32Lists { values, width: 3 })]);
        let check = |most| file.file.check_values(&["list"], most);
        assert!(check(3000).is_ok());
        let error = check(2999).unwrap_err().to_string();
        assert!(error.contains("3000 values, more than 2999"), "{error}");
    }
}
