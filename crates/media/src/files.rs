//! Images, and frames of videos, in files or as the bytes of files.

use std::path::Path;

use embodied_r_data::multimodal::MediaFile;
use embodied_r_vision::{Frames, image_file};
use image::RgbImage;

use crate::sampled_video::from_frames;
use crate::source::{FileContent, ImageSource, ReadError};

/// Checks that a file exists.
fn find(path: &Path) -> Result<(), ReadError> {
    let missing = |error| format!("`{}`: {error}", path.display());
    Ok(path.metadata().map(drop).map_err(missing)?)
}

/// Checks that `file` exists, without decoding it.
pub(crate) fn find_file(file: &MediaFile) -> Result<(), ReadError> {
    match file {
        MediaFile::Path(path) => find(path),
        MediaFile::Bytes { .. } => Ok(()),
    }
}

fn image(file: &MediaFile) -> Result<RgbImage, ReadError> {
    match file {
        MediaFile::Path(path) => Ok(image_file::read(path)?),
        MediaFile::Bytes { bytes, name } => {
            image_file::from_bytes(bytes).map_err(|error| format!("`{name}`: {error}").into())
        }
    }
}

/// An image.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageFile(pub MediaFile);

impl ImageSource for ImageFile {
    fn read(&self) -> Result<Frames, ReadError> {
        Ok(Frames::Image(image(&self.0)?))
    }

    fn paths(&self) -> Vec<String> {
        vec![self.0.name()]
    }

    fn find(&self) -> Result<(), ReadError> {
        find_file(&self.0)
    }
}

/// A video given by its frames.
#[derive(Debug, Clone, PartialEq)]
pub struct FrameFiles {
    /// The frames in order.
    pub frames: Vec<MediaFile>,
    /// Frames per second.
    pub fps: f64,
}

impl ImageSource for FrameFiles {
    fn read(&self) -> Result<Frames, ReadError> {
        let frames = self.frames.iter().map(image).collect::<Result<Vec<_>, _>>()?;
        Ok(Frames::Video(from_frames(frames, self.fps)?))
    }

    fn paths(&self) -> Vec<String> {
        self.frames.iter().map(MediaFile::name).collect()
    }

    fn content(&self) -> FileContent {
        FileContent::Frames { fps: self.fps }
    }

    fn find(&self) -> Result<(), ReadError> {
        self.frames.iter().try_for_each(find_file)
    }
}
