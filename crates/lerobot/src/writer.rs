//! Writing a data set.

mod encoder;
mod metadata;
mod options;
mod stats;
mod table;
mod videos;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use image::RgbImage;

use crate::episode::Column;
use crate::error::{Error, Result};
use crate::version::Version;
use encoder::Encoder;
use metadata::EpisodeRecord;
pub use options::{Camera, VectorFeature, VideoCodec, WriterOptions};
use stats::ImageStats;
use table::DataWriter;
use videos::VideoWriter;

/// Writes a data set, one episode after the other.
///
/// Everything is written to a hidden folder beside it, which [`finish`](Self::finish) renames; without it, nothing is left.
/// The same input gives the same bytes with the same FFmpeg.
#[derive(Debug)]
pub struct Writer {
    dir: PathBuf,
    building: Building,
    options: WriterOptions,
    data: DataWriter,
    videos: VideoWriter,
    /// The instructions; the position of each is its index.
    tasks: Vec<String>,
    episodes: Vec<EpisodeRecord>,
    frames: usize,
    /// Whether an episode is written in part.
    is_broken: bool,
}

/// The hidden folder, removed on drop unless renamed.
#[derive(Debug)]
struct Building {
    path: PathBuf,
}

impl Drop for Building {
    fn drop(&mut self) {
        // After a rename there is nothing to remove, so errors are expected.
        let _ = fs::remove_dir_all(&self.path);
    }
}

impl Writer {
    /// Starts a data set in the folder `dir`, which is created, and must be empty if it exists.
    ///
    /// # Errors
    /// The options are wrong, the folder is not empty or cannot be created, or FFmpeg or its encoder is missing.
    pub fn create(dir: &Path, options: WriterOptions) -> Result<Self> {
        options.check()?;
        if dir.exists()
            && fs::read_dir(dir).map_err(embodied_r_files::Error::io("read", dir))?.next().is_some()
        {
            return Err(Error::NotEmpty { path: dir.into() });
        }
        let encoder = Encoder::find(&options)?;
        embodied_r_files::create_parents(dir)?;
        // `.` has no name beside which the hidden folder could be.
        let dir = &fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
        let path = embodied_r_files::TempFile::next_to(dir).path().to_owned();
        fs::create_dir(&path).map_err(embodied_r_files::Error::io("create", &path))?;
        let building = Building { path };
        Ok(Self {
            dir: dir.into(),
            data: DataWriter::new(&building.path, &options),
            videos: VideoWriter::new(&building.path, &options, encoder),
            building,
            options,
            tasks: Vec::new(),
            episodes: Vec::new(),
            frames: 0,
            is_broken: false,
        })
    }

    /// Writes an episode: its instruction, its columns, one per feature, and its frames, as many as the columns have rows.
    ///
    /// Frames are taken one by one, while the encoder runs. After an error about frames or files the data set cannot be
    /// finished.
    ///
    /// # Errors
    /// Columns or frames are missing, superfluous, or of another size, a value is not finite, or a file cannot be
    /// written.
    pub fn episode(
        &mut self,
        task: &str,
        columns: &BTreeMap<String, Column>,
        frames: impl Iterator<Item = RgbImage>,
    ) -> Result<()> {
        let index = self.episodes.len();
        let length = self.check(index, task, columns)?;
        self.is_broken = true;
        let task_index = match self.tasks.iter().position(|known| known == task) {
            Some(known) => known,
            None => {
                self.tasks.push(task.to_owned());
                self.tasks.len() - 1
            }
        };
        let mut images =
            ImageStats::new(length, (self.options.camera.width, self.options.camera.height));
        let video = self.videos.episode(index, length, frames, |frame| images.add(frame))?;
        let place = table::Episode { index, length, first_row: self.frames, task: task_index };
        let data = self.data.episode(&place, columns)?;
        let stats = stats::of_episode(&self.options, &place, columns, &images);
        let task = task.to_owned();
        self.episodes.push(EpisodeRecord { place, task, data, video, stats });
        self.frames += length;
        self.is_broken = false;
        Ok(())
    }

    /// Writes the rest and the metadata, and gives the folder its name.
    ///
    /// # Errors
    /// There are no episodes, one could not be written, or a file cannot be written.
    pub fn finish(mut self) -> Result<()> {
        let wrong = |reason: &str| {
            let (option, reason) = ("episodes".to_owned(), reason.to_owned());
            Err(Error::WriterOption { option, reason })
        };
        if self.is_broken {
            return wrong("ends with one that could not be written: start anew");
        }
        if self.episodes.is_empty() {
            return wrong("is empty: write at least one");
        }
        self.data.finish()?;
        self.videos.finish()?;
        let folder = &self.building.path;
        match self.options.version {
            Version::V21 => metadata::write_v21(folder, &self.episodes, &self.tasks)?,
            Version::V30 => {
                metadata::write_v30(folder, &self.options, &self.episodes, &self.tasks)?
            }
        }
        metadata::write_info(folder, &self.options, &self.episodes, &self.tasks)?;
        Ok(fs::rename(folder, &self.dir)
            .map_err(embodied_r_files::Error::io("write", &self.dir))?)
    }

    /// The number of frames of an episode, whose columns are those of the options.
    fn check(
        &self,
        episode: usize,
        task: &str,
        columns: &BTreeMap<String, Column>,
    ) -> Result<usize> {
        let wrong = |field: &str, reason: String| {
            Err(Error::NewEpisode { episode, field: field.to_owned(), reason })
        };
        if task.trim().is_empty() {
            return wrong("task", "is empty".to_owned());
        }
        let features = &self.options.features;
        if let Some(key) = columns.keys().find(|key| features.iter().all(|it| it.key != **key)) {
            return wrong(key, "is none of the features of the data set".to_owned());
        }
        let mut length = None;
        for feature in features {
            let (key, width) = (&feature.key, feature.names.len());
            let Some(column) = columns.get(key) else {
                return wrong(key, "is missing".to_owned());
            };
            if column.width != width {
                return wrong(key, format!("has {} values per frame, not {width}", column.width));
            }
            let rows = column.values.len() / width;
            if rows == 0 || column.values.len() % width != 0 {
                let count = column.values.len();
                return wrong(key, format!("has {count} values, which are no frames of {width}"));
            }
            let expected = *length.get_or_insert(rows);
            if rows != expected {
                return wrong(key, format!("has {rows} frames, but the first feature {expected}"));
            }
            if let Some(at) = column.values.iter().position(|value| !(*value as f32).is_finite()) {
                let (value, frame) = (column.values[at], at / width);
                return wrong(key, format!("is {value} at frame {frame}"));
            }
        }
        // The options have at least one feature.
        Ok(length.unwrap_or(0))
    }
}

#[cfg(test)]
mod tests;
