//! A video file as a source: the selected frames as one video.

use std::path::Path;

use embodied_r_data::multimodal::MediaFile;
use embodied_r_video::Limits;
use embodied_r_vision::{Frames, Processor, SampledVideo};

use crate::files::find_file;
use crate::sampled_video::{FramePlan, FrameSelection, FrameUse};
use crate::source::{FileContent, ImageSource, ReadError};

/// The selected frames of a video file.
#[derive(Debug)]
pub(crate) struct VideoFile {
    /// The file.
    pub(crate) file: MediaFile,
    /// Which frames.
    pub(crate) selection: FrameSelection,
    /// What samples and shrinks them.
    pub(crate) processor: Processor,
}

impl VideoFile {
    /// The selected frames, of which none is decoded.
    ///
    /// # Errors
    /// As [`FramePlan::of_file`].
    pub(crate) fn plan(&self) -> Result<FramePlan, ReadError> {
        Ok(self.on_disk(|path| self.plan_at(path, &Limits::default()))??)
    }

    fn plan_at(&self, path: &Path, limits: &Limits) -> crate::Result<FramePlan> {
        FramePlan::of_file(path, &self.selection, &self.processor, limits)
    }

    /// Calls `read` with the path of the video; bytes are in a temporary file meanwhile.
    fn on_disk<T>(&self, read: impl FnOnce(&Path) -> T) -> Result<T, ReadError> {
        match &self.file {
            MediaFile::Path(path) => Ok(read(path)),
            MediaFile::Bytes { bytes, .. } => {
                let file = tempfile::NamedTempFile::new()?;
                std::fs::write(file.path(), bytes)?;
                Ok(read(file.path()))
            }
        }
    }

    /// Decodes the selected frames.
    ///
    /// # Errors
    /// As [`FramePlan::of_file`] and [`FramePlan::decode`].
    pub(crate) fn decode(&self, frame_use: FrameUse) -> Result<SampledVideo, ReadError> {
        let limits = Limits::default();
        self.on_disk(|path| -> Result<SampledVideo, ReadError> {
            let plan = self.plan_at(path, &limits)?;
            Ok(plan.decode(frame_use, &self.processor, &limits)?)
        })?
    }
}

impl ImageSource for VideoFile {
    fn read(&self) -> Result<Frames, ReadError> {
        Ok(Frames::Video(self.decode(FrameUse::Video)?))
    }

    fn paths(&self) -> Vec<String> {
        vec![self.file.name()]
    }

    fn content(&self) -> FileContent {
        FileContent::Video(self.selection)
    }

    fn find(&self) -> Result<(), ReadError> {
        find_file(&self.file)
    }
}
