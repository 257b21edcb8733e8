//! Images, and frames of videos, in files.

use std::path::{Path, PathBuf};

use embodied_r_vision::{Frames, image_file};

use crate::source::{ImageSource, ReadError};

/// Checks that a file exists.
///
/// # Errors
/// It does not, or cannot be accessed.
pub fn find(path: &Path) -> Result<(), ReadError> {
    let missing = |error| format!("`{}`: {error}", path.display());
    Ok(path.metadata().map(drop).map_err(missing)?)
}

/// An image file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFile(pub PathBuf);

impl ImageSource for ImageFile {
    fn read(&self) -> Result<Frames, ReadError> {
        Ok(Frames::Image(image_file::read(&self.0)?))
    }

    fn paths(&self) -> Vec<String> {
        vec![self.0.display().to_string()]
    }

    fn find(&self) -> Result<(), ReadError> {
        find(&self.0)
    }
}

/// A video given by files of its frames.
#[derive(Debug, Clone, PartialEq)]
pub struct FrameFiles {
    /// The frames in order.
    pub paths: Vec<PathBuf>,
    /// Frames per second.
    pub fps: f64,
}

impl ImageSource for FrameFiles {
    fn read(&self) -> Result<Frames, ReadError> {
        let frames: Result<_, _> = self.paths.iter().map(|path| image_file::read(path)).collect();
        Ok(Frames::Video { frames: frames?, seconds: self.fps.recip() })
    }

    fn paths(&self) -> Vec<String> {
        self.paths.iter().map(|path| path.display().to_string()).collect()
    }

    fn fps(&self) -> Option<f64> {
        Some(self.fps)
    }

    fn find(&self) -> Result<(), ReadError> {
        self.paths.iter().try_for_each(|path| find(path))
    }
}
