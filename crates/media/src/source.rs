//! Where the pixels of an image or a video come from.

use std::fmt;
use std::sync::Arc;

use embodied_r_vision::Frames;

use crate::sampled_video::FrameSelection;

/// What an image source returns if it cannot be read.
pub type ReadError = Box<dyn std::error::Error + Send + Sync>;

/// What is in the files of a source.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum FileContent {
    /// An image.
    Image,
    /// The frames of a video, an image each.
    Frames {
        /// Frames per second.
        fps: f64,
    },
    /// A video, of which these frames are seen as one.
    Video(FrameSelection),
    /// A video, of whose selected frames the one with this index is seen.
    VideoFrame(FrameSelection, usize),
}

/// A file with an image, or with the frames of a video.
pub trait ImageSource: Send + Sync + fmt::Debug {
    /// Decodes the file. It has the same pixels every time.
    ///
    /// # Errors
    /// The file is missing or broken.
    fn read(&self) -> Result<Frames, ReadError>;

    /// The paths of the image, of the video or of its frames, for batch files and reward commands.
    fn paths(&self) -> Vec<String>;

    /// What is in the files.
    fn content(&self) -> FileContent {
        FileContent::Image
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
