//! The one reader of parquet files, behind all tables.

use std::fs::File;
use std::io::Cursor;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use polars::prelude::{
    Column, DataFrame, FileMetadataRef, IntoColumn as _, ParquetReader, PolarsError, PolarsResult,
    SerReader as _,
};

use super::cast::cast;
use super::footer::{self, Leaves};
use crate::error::{Error, Result};

/// An open parquet file. Its columns are read as numbers of 32 or 64 bits, booleans, texts, binary values, and lists and
/// structs of them; see [`cast`].
#[derive(Debug)]
pub(super) struct ParquetFile {
    pub(super) path: PathBuf,
    file: File,
    metadata: FileMetadataRef,
    pub(super) columns: Vec<String>,
    leaves: Leaves,
}

impl ParquetFile {
    /// Opens a parquet file and reads its footer.
    ///
    /// # Errors
    /// As [`Table::read`](super::Table::read).
    pub(super) fn open(path: &Path) -> Result<Self> {
        let mut file = File::open(path).map_err(Error::io("read", path))?;
        footer::check(path, &mut file)?;
        let stored = footer::as_stored(&mut file);
        let (metadata, columns, leaves) = caught(path, "its footer is corrupt", || {
            let (metadata, leaves) = match stored {
                Some((footer, leaves)) => {
                    let mut reader = ParquetReader::new(Cursor::new(footer));
                    (Arc::clone(reader.get_metadata()?), leaves)
                }
                None => {
                    let mut reader = ParquetReader::new(file.try_clone()?);
                    (Arc::clone(reader.get_metadata()?), Leaves::new())
                }
            };
            let mut reader = ParquetReader::new(file.try_clone()?);
            reader.set_metadata(Arc::clone(&metadata));
            let names = reader.schema()?.iter_names().map(ToString::to_string).collect();
            Ok((metadata, names, leaves))
        })?;
        Ok(Self { path: path.into(), file, metadata, columns, leaves })
    }

    /// The number of rows.
    pub(super) fn len(&self) -> usize {
        self.metadata.num_rows
    }

    /// The rows of each row group.
    pub(super) fn row_groups(&self) -> Vec<Range<usize>> {
        let starts = self.metadata.row_groups.iter().scan(0_usize, |next, group| {
            let start = *next;
            *next = next.saturating_add(group.num_rows());
            Some(start..*next)
        });
        starts.collect()
    }

    /// Checks how many values the footer announces for `columns`.
    ///
    /// # Errors
    /// They have more than `most`.
    pub(super) fn check_values(&self, columns: &[&str], most: i64) -> Result<()> {
        let mut file = self.file.try_clone().map_err(Error::io("read", &self.path))?;
        footer::check_values(&self.path, &mut file, columns, most)
    }

    /// Reads `rows` of `columns` into memory.
    ///
    /// # Errors
    /// A column is missing, or the file is corrupt.
    pub(super) fn read(&self, columns: &[String], rows: Range<usize>) -> Result<DataFrame> {
        caught(&self.path, "it cannot be decoded", || {
            let mut reader = ParquetReader::new(self.file.try_clone()?)
                .with_slice(Some((rows.start, rows.len())))
                .with_columns(Some(columns.to_vec()));
            reader.set_metadata(Arc::clone(&self.metadata));
            let frame = reader.finish()?;
            let height = frame.height();
            let cast = |column: Column| match self.leaves.get(column.name().as_str()) {
                Some(leaves) => Ok(cast(column.as_materialized_series(), leaves)?.into_column()),
                None => Ok(column),
            };
            let columns = frame.into_columns().into_iter().map(cast);
            DataFrame::new(height, columns.collect::<PolarsResult<_>>()?)
        })
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
