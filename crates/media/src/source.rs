//! Where the pixels of an image or a video come from.

use std::fmt;
use std::sync::Arc;

use embodied_r_vision::Frames;

/// What an image source returns if it cannot be read.
pub type ReadError = Box<dyn std::error::Error + Send + Sync>;

/// A file with an image, or with the frames of a video.
pub trait ImageSource: Send + Sync + fmt::Debug {
    /// Decodes the file. It has the same pixels every time.
    ///
    /// # Errors
    /// The file is missing or broken.
    fn read(&self) -> Result<Frames, ReadError>;

    /// The paths of the image or of the frames, for batch files and reward commands.
    fn paths(&self) -> Vec<String>;

    /// Frames per second of a video; `None` for an image.
    fn fps(&self) -> Option<f64> {
        None
    }

    /// Checks that the file exists, without decoding it.
    ///
    /// # Errors
    /// It does not.
    fn find(&self) -> Result<(), ReadError> {
        Ok(())
    }
}

/// The sources of an image or a video: several if its frames are separate images.
pub type Sources = Vec<Arc<dyn ImageSource>>;
