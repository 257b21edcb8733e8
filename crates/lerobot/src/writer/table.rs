//! The data files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use embodied_r_data::parquet::{Column as Values, write_table};

use super::options::WriterOptions;
use crate::episode::Column;
use crate::error::Result;
use crate::template::FileIndex;
use crate::version::Version;

/// Files in a folder: LeRobot's `chunks_size`.
pub(super) const CHUNKS_SIZE: u64 = 1000;

/// The size of a data file of v3.0, before compression: LeRobot's `data_files_size_in_mb`.
pub(super) const DATA_FILE_MB: u64 = 100;

/// Where an episode is in the data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Episode {
    pub(super) index: usize,
    pub(super) length: usize,
    /// `index` of its first frame: that many frames precede the episode.
    pub(super) first_row: usize,
    pub(super) task: usize,
}

/// The file after `last` in a data set of several files per folder.
pub(super) fn next(last: FileIndex) -> FileIndex {
    match last.file + 1 {
        CHUNKS_SIZE => FileIndex { chunk: last.chunk + 1, file: 0 },
        file => FileIndex { chunk: last.chunk, file },
    }
}

/// Collects the rows of a file.
#[derive(Debug)]
pub(super) struct DataWriter {
    folder: PathBuf,
    version: Version,
    fps: u32,
    max_bytes: u64,
    file: FileIndex,
    /// The features and their widths, in order.
    widths: Vec<(String, usize)>,
    columns: BTreeMap<String, Vec<f32>>,
    timestamps: Vec<f32>,
    indices: [Vec<i64>; 4],
}

impl DataWriter {
    pub(super) fn new(folder: &Path, options: &WriterOptions) -> Self {
        let features = options.features.iter();
        Self {
            folder: folder.into(),
            version: options.version,
            fps: options.fps,
            max_bytes: DATA_FILE_MB << 20,
            file: FileIndex { chunk: 0, file: 0 },
            widths: features.map(|it| (it.key.clone(), it.names.len())).collect(),
            columns: BTreeMap::new(),
            timestamps: Vec::new(),
            indices: Default::default(),
        }
    }

    /// Limits the size of a file to `max_bytes` before compression.
    #[cfg(test)]
    pub(super) fn set_max_bytes(&mut self, max_bytes: u64) {
        self.max_bytes = max_bytes;
    }

    /// Adds an episode, and says in which file it is.
    pub(super) fn episode(
        &mut self,
        episode: &Episode,
        columns: &BTreeMap<String, Column>,
    ) -> Result<FileIndex> {
        let values: usize = self.widths.iter().map(|(_, width)| width).sum();
        let row_bytes = 4 * (values + 1) + 8 * self.indices.len();
        let bytes = ((self.timestamps.len() + episode.length) * row_bytes) as u64;
        if self.version == Version::V30 && bytes > self.max_bytes && !self.timestamps.is_empty() {
            self.write()?;
            self.file = next(self.file);
        }
        for (key, _) in &self.widths {
            if let Some(column) = columns.get(key) {
                self.columns
                    .entry(key.clone())
                    .or_default()
                    .extend(column.values.iter().map(|value| *value as f32));
            }
        }
        let fps = f64::from(self.fps);
        self.timestamps.extend((0..episode.length).map(|frame| (frame as f64 / fps) as f32));
        let [frames, episodes, rows, tasks] = &mut self.indices;
        for frame in 0..episode.length {
            frames.push(frame as i64);
            episodes.push(episode.index as i64);
            rows.push((episode.first_row + frame) as i64);
            tasks.push(episode.task as i64);
        }
        match self.version {
            Version::V30 => Ok(self.file),
            Version::V21 => {
                let file = episode.index as u64;
                self.file = FileIndex { chunk: file / CHUNKS_SIZE, file };
                self.write()?;
                Ok(self.file)
            }
        }
    }

    /// Writes the last file.
    pub(super) fn finish(&mut self) -> Result<()> {
        if self.timestamps.is_empty() { Ok(()) } else { self.write() }
    }

    fn write(&mut self) -> Result<()> {
        let FileIndex { chunk, file } = self.file;
        let path = self.folder.join(match self.version {
            Version::V21 => format!("data/chunk-{chunk:03}/episode_{file:06}.parquet"),
            Version::V30 => format!("data/chunk-{chunk:03}/file-{file:03}.parquet"),
        });
        let mut columns: Vec<(&str, Values)> = Vec::new();
        for (key, width) in &self.widths {
            let values = self.columns.remove(key).unwrap_or_default();
            // LeRobot reads the shape (1,) as a scalar.
            let values = match width {
                1 => Values::Floats32(values),
                &width => Values::Floats32Lists { values, width },
            };
            columns.push((key, values));
        }
        columns.push(("timestamp", Values::Floats32(std::mem::take(&mut self.timestamps))));
        let names = ["frame_index", "episode_index", "index", "task_index"];
        for (name, values) in names.into_iter().zip(&mut self.indices) {
            columns.push((name, Values::Integers(std::mem::take(values))));
        }
        Ok(write_table(&path, columns)?)
    }
}
