//! The videos: one per episode in v2.1; in v3.0 the streams of episodes, joined up to a size.

use std::fs;
use std::path::{Path, PathBuf};

use image::RgbImage;

use super::encoder::{Encoder, Encoding, Output};
use super::options::WriterOptions;
use super::table::{CHUNKS_SIZE, next};
use crate::error::{Error, Result};
use crate::template::FileIndex;
use crate::version::Version;

/// The size of a file of videos of v3.0: LeRobot's `video_files_size_in_mb`.
pub(super) const VIDEO_FILE_MB: u64 = 200;

/// Where the video of an episode is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Span {
    pub(super) file: FileIndex,
    pub(super) from_s: f64,
    pub(super) to_s: f64,
}

/// Writes the videos of a camera.
#[derive(Debug)]
pub(super) struct VideoWriter {
    folder: PathBuf,
    version: Version,
    camera: String,
    size: (u32, u32),
    fps: u32,
    encoder: Encoder,
    max_bytes: u64,
    file: FileIndex,
    /// The streams of the current file's episodes, their bytes and their frames.
    streams: Vec<PathBuf>,
    bytes: u64,
    frames: usize,
}

impl VideoWriter {
    pub(super) fn new(folder: &Path, options: &WriterOptions, encoder: Encoder) -> Self {
        Self {
            folder: folder.into(),
            version: options.version,
            camera: options.camera.key.clone(),
            size: (options.camera.width, options.camera.height),
            fps: options.fps,
            encoder,
            max_bytes: VIDEO_FILE_MB << 20,
            file: FileIndex { chunk: 0, file: 0 },
            streams: Vec::new(),
            bytes: 0,
            frames: 0,
        }
    }

    /// Limits the size of a file to `max_bytes`.
    #[cfg(test)]
    pub(super) fn set_max_bytes(&mut self, max_bytes: u64) {
        self.max_bytes = max_bytes;
    }

    /// Encodes the `length` frames of an episode, and calls `each` with every frame.
    pub(super) fn episode(
        &mut self,
        episode: usize,
        length: usize,
        frames: impl Iterator<Item = RgbImage>,
        each: impl FnMut(&RgbImage),
    ) -> Result<Span> {
        if self.version == Version::V21 {
            let file = FileIndex { chunk: episode as u64 / CHUNKS_SIZE, file: episode as u64 };
            let (chunk, camera) = (file.chunk, &self.camera);
            let path = format!("videos/chunk-{chunk:03}/{camera}/episode_{episode:06}.mp4");
            let encoding = self.encoder.start(&self.folder.join(path), Output::Mp4)?;
            self.encode(encoding, episode, length, frames, each)?;
            return Ok(Span { file, from_s: 0.0, to_s: self.seconds(length) });
        }
        let path = self.folder.join(format!("streams/{episode:06}"));
        let encoding = self.encoder.start(&path, Output::Stream)?;
        self.encode(encoding, episode, length, frames, each)?;
        let failed = |error| Error::Io(embodied_r_files::Error::io("read", &path)(error));
        let bytes = fs::metadata(&path).map_err(failed)?.len();
        if !self.streams.is_empty() && self.bytes + bytes > self.max_bytes {
            self.join()?;
            self.file = next(self.file);
        }
        let (from, to) = (self.frames, self.frames + length);
        self.streams.push(path);
        self.bytes += bytes;
        self.frames = to;
        Ok(Span { file: self.file, from_s: self.seconds(from), to_s: self.seconds(to) })
    }

    /// Writes the last file.
    pub(super) fn finish(&mut self) -> Result<()> {
        if self.streams.is_empty() {
            return Ok(());
        }
        self.join()?;
        let streams = self.folder.join("streams");
        let removed = fs::remove_dir(&streams);
        removed.map_err(|error| embodied_r_files::Error::io("remove", &streams)(error).into())
    }

    fn encode(
        &self,
        mut encoding: Encoding,
        episode: usize,
        length: usize,
        mut frames: impl Iterator<Item = RgbImage>,
        mut each: impl FnMut(&RgbImage),
    ) -> Result<()> {
        let wrong = |reason| Err(Error::NewEpisode { episode, field: self.camera.clone(), reason });
        for frame in 0..length {
            let Some(image) = frames.next() else {
                return wrong(format!("has {frame} frames, but the features have {length}"));
            };
            let (found, size) = (image.dimensions(), self.size);
            if found != size {
                let found = format!("{} × {}", found.0, found.1);
                return wrong(format!(
                    "is {found} pixels at frame {frame}, not {} × {}",
                    size.0, size.1
                ));
            }
            each(&image);
            if !encoding.frame(&image) {
                break;
            }
        }
        encoding.finish()?;
        match frames.next() {
            Some(_) => wrong(format!("has more frames than the {length} of the features")),
            None => Ok(()),
        }
    }

    /// Writes the streams to a file, and removes them.
    fn join(&mut self) -> Result<()> {
        let FileIndex { chunk, file } = self.file;
        let camera = &self.camera;
        let path = format!("videos/{camera}/chunk-{chunk:03}/file-{file:03}.mp4");
        self.encoder.join(&self.streams, &self.folder.join(path))?;
        for stream in self.streams.drain(..) {
            let removed = fs::remove_file(&stream);
            removed.map_err(embodied_r_files::Error::io("remove", &stream))?;
        }
        (self.bytes, self.frames) = (0, 0);
        Ok(())
    }

    fn seconds(&self, frames: usize) -> f64 {
        frames as f64 / f64::from(self.fps)
    }
}
