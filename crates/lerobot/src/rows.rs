//! The rows of a data file: which episodes it has, and their columns.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use embodied_r_data::parquet::{ColumnFile, Table};

use crate::dataset::Dataset;
use crate::episode::{Column, Episode, TaskSpan};
use crate::error::{Error, Result};
use crate::template::FileIndex;

/// A data file, with the rows of its episodes.
pub(crate) struct DataFile {
    file: ColumnFile,
    episodes: BTreeMap<usize, Range<usize>>,
}

/// Columns of a data file in memory.
pub(crate) struct Rows {
    episodes: BTreeMap<usize, Range<usize>>,
    timestamps: Vec<f64>,
    tasks: Vec<i64>,
    columns: BTreeMap<String, Column>,
}

impl DataFile {
    /// Opens the data file `index`, and checks that its episodes are those that the metadata names, in one piece each.
    pub(crate) fn open(dataset: &Dataset, index: FileIndex) -> Result<Self> {
        let path = dataset.data_path(index)?;
        let file = ColumnFile::open(&path)?;
        let table = file.read(&["episode_index"], 0..file.len())?;
        let mut episodes: BTreeMap<usize, Range<usize>> = BTreeMap::new();
        let indices = table.integers("episode_index")?;
        let mut start = 0;
        for run in indices.chunk_by(|a, b| a == b) {
            let rows = start..start + run.len();
            start = rows.end;
            let Some(episode) = run.first().and_then(|episode| usize::try_from(*episode).ok())
            else {
                let reason = format!("is {} in row {}", run[0], rows.start);
                return Err(Error::field(&path, "episode_index", reason));
            };
            let wrong = |field: &str, reason| Err(Error::episode(&path, episode, field, reason));
            let entry = dataset.entries().get(episode).filter(|entry| entry.data == index);
            let Some(entry) = entry else {
                return wrong("episode_index", "is not where the metadata places it".to_owned());
            };
            let (found, stated) = (rows.len(), entry.info.length);
            if episodes.insert(episode, rows).is_some() {
                return wrong("episode_index", "has rows in two places".to_owned());
            }
            if found != stated {
                return wrong(
                    "length",
                    format!("is {stated} in the metadata, but it has {found} rows"),
                );
            }
        }
        Ok(Self { file, episodes })
    }

    /// The file with its columns.
    pub(crate) fn file(&self) -> &ColumnFile {
        &self.file
    }

    /// The rows of an episode.
    ///
    /// # Errors
    /// It has none.
    pub(crate) fn rows_of(&self, episode: usize) -> Result<Range<usize>> {
        let rows = self.episodes.get(&episode).cloned();
        rows.ok_or_else(|| {
            Error::episode(self.file.path(), episode, "episode_index", "has no rows")
        })
    }

    /// Reads the timestamps and the columns of features, given with their widths.
    pub(crate) fn read(&self, columns: &[(&str, usize)], fps: f64) -> Result<Rows> {
        let mut names = vec!["timestamp", "frame_index", "task_index"];
        names.extend(columns.iter().map(|(name, _)| *name).filter(|name| !is_index(name)));
        names.sort_unstable();
        names.dedup();
        let table = self.file.read(&names, 0..self.file.len())?;
        let timestamps = table.number_rows("timestamp", 1)?;
        let frames = table.number_rows("frame_index", 1)?;
        for (&episode, rows) in &self.episodes {
            let (times, frames) = (&timestamps[rows.clone()], &frames[rows.clone()]);
            check_times(self.file.path(), episode, times, frames, fps)?;
        }
        let tasks = table.number_rows("task_index", 1)?.into_iter().map(|task| task as i64);
        let columns = columns.iter().map(|&(name, width)| {
            let column = match is_index(name) {
                true => self.file.read(&[name], 0..self.file.len())?,
                false => table.clone(),
            };
            Ok((name.to_owned(), Column { width, values: self.values(&column, name, width)? }))
        });
        Ok(Rows {
            columns: columns.collect::<Result<_>>()?,
            tasks: tasks.collect(),
            episodes: self.episodes.clone(),
            timestamps,
        })
    }

    /// The values of a column, which must be finite, also as `f32`: what is computed from them does not overflow.
    fn values(&self, table: &Table, name: &str, width: usize) -> Result<Vec<f64>> {
        let values = table.number_rows(name, width)?;
        if let Some(at) = values.iter().position(|value| !(*value as f32).is_finite()) {
            let row = at / width.max(1);
            let place = self.episodes.iter().find(|(_, rows)| rows.contains(&row));
            let (episode, frame) = place.map_or((0, row), |(it, rows)| (*it, row - rows.start));
            let (value, index) = (values[at], at % width.max(1));
            let reason = format!(
                "is {value} at index {index} of frame {frame}: repair or remove the episode"
            );
            return Err(Error::episode(self.file.path(), episode, name, reason));
        }
        Ok(values)
    }
}

/// Whether the column is read with the indices already.
fn is_index(name: &str) -> bool {
    name == "episode_index"
}

impl Rows {
    /// The times of the frames of an episode, in seconds.
    pub(crate) fn timestamps(&self, episode: usize) -> &[f64] {
        self.episodes.get(&episode).map_or(&[], |rows| &self.timestamps[rows.clone()])
    }

    /// An episode, of which the file is at `path`.
    pub(crate) fn episode(
        &self,
        index: usize,
        tasks: &BTreeMap<i64, String>,
        path: &Path,
    ) -> Result<Episode> {
        let Some(rows) = self.episodes.get(&index) else {
            return Err(Error::episode(path, index, "episode_index", "has no rows"));
        };
        let mut start = 0;
        let spans = self.tasks[rows.clone()].chunk_by(|a, b| a == b).map(|same| {
            let first = start;
            start += same.len();
            let task = tasks.get(&same[0]).ok_or_else(|| {
                let reason = format!("is {}, which is none of the tasks of the metadata", same[0]);
                Error::episode(path, index, "task_index", reason)
            })?;
            Ok(TaskSpan { start: first, task: task.clone() })
        });
        let spans: Vec<TaskSpan> = spans.collect::<Result<_>>()?;
        let part = |column: &Column| Column {
            width: column.width,
            values: column.values[rows.start * column.width..rows.end * column.width].to_vec(),
        };
        Ok(Episode {
            index,
            tasks: spans,
            timestamps: self.timestamps[rows.clone()].to_vec(),
            columns: self.columns.iter().map(|(key, column)| (key.clone(), part(column))).collect(),
        })
    }
}

impl Dataset {
    /// Calls `each` with the episodes in order of their indices, with the features `columns`, the only columns that are
    /// read besides timestamps and indices. Integers beyond 2^53 are rounded.
    ///
    /// # Errors
    /// Those of `each`; a feature does not exist or is not numeric, a column has another width than its feature, a value
    /// is not finite, or rows contradict the metadata.
    pub fn read_episodes<E: From<Error>>(
        &self,
        columns: &[&str],
        mut each: impl FnMut(Episode) -> Result<(), E>,
    ) -> Result<(), E> {
        let widths = columns.iter().map(|&key| Ok((key, self.numeric(key)?.width())));
        let widths: Vec<(&str, usize)> = widths.collect::<Result<_>>()?;
        let mut loaded: Option<(FileIndex, DataFile, Rows)> = None;
        for (episode, entry) in self.metadata.entries.iter().enumerate() {
            let (_, file, rows) = match loaded.take() {
                Some(same @ (index, ..)) if index == entry.data => loaded.insert(same),
                _ => {
                    let file = DataFile::open(self, entry.data)?;
                    let rows = file.read(&widths, self.fps())?;
                    loaded.insert((entry.data, file, rows))
                }
            };
            each(rows.episode(episode, &self.metadata.tasks, file.file().path())?)?;
        }
        Ok(())
    }
}

/// Checks that frames are numbered from 0, and that their times ascend at the frame rate.
fn check_times(path: &Path, episode: usize, times: &[f64], frames: &[f64], fps: f64) -> Result<()> {
    let wrong = |field, reason| Err(Error::episode(path, episode, field, reason));
    for (frame, (time, index)) in times.iter().zip(frames).enumerate() {
        if *index != frame as f64 {
            return wrong("frame_index", format!("is {index} in row {frame} of the episode"));
        }
        if !time.is_finite() || *time < 0.0 {
            return wrong("timestamp", format!("is {time} at frame {frame}"));
        }
        if frame > 0 && times[frame - 1] >= *time {
            let reason =
                format!("does not ascend at frame {frame}: {time} after {}", times[frame - 1]);
            return wrong("timestamp", reason);
        }
    }
    if let [first, .., last] = times {
        let expected = (times.len() - 1) as f64 / fps;
        if (last - first - expected).abs() > 0.5 / fps {
            let reason = format!(
                "spans {:.3} s over {} frames, but {expected:.3} s at the {fps} fps of `meta/info.json`",
                last - first,
                times.len()
            );
            return wrong("timestamp", reason);
        }
    }
    Ok(())
}
