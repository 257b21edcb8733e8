use std::fs::File;
use std::path::Path;

use polars::prelude::{ParquetReader, SerReader as _};

/// A column of token ids of a parquet file, such as a run's completions.
///
/// # Panics
/// The file is unreadable, or the column is missing or of another type.
pub fn id_lists(path: &Path, column: &str) -> Vec<Vec<u32>> {
    let file = File::open(path).expect("a parquet file");
    let frame = ParquetReader::new(file).finish().expect("a parquet table");
    let lists = frame.column(column).and_then(|ids| ids.list()).expect("a column of lists");
    let ids = |row| {
        let ids = lists.get_as_series(row).expect("a list");
        ids.u32().expect("32-bit ids").iter().map(|id| id.expect("an id")).collect()
    };
    (0..lists.len()).map(ids).collect()
}
