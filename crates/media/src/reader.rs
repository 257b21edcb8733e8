//! From the images and videos of questions to sources.

use std::sync::Arc;

use embodied_r_data::multimodal::{MediaFile, Video};
use embodied_r_vision::Processor;

use crate::files::{FrameFiles, ImageFile};
use crate::sampled_video::{FrameSelection, FrameUse};
use crate::separate_frames::{RecentFrames, SeparateFrame, SeparateFrames};
use crate::source::{ImageSource, ReadError, Sources};
use crate::video_file::VideoFile;

/// Bytes of the frames of videos that are decoded again for one of their images, and kept for the others; beyond, one video
/// for each thread.
const RECENT_FRAMES: usize = 1 << 27;

/// How a model sees a video.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FrameOptions {
    /// The frames of a video file.
    pub selection: FrameSelection,
    /// What the model sees in the frames of a file or of a list.
    pub frame_use: FrameUse,
}

/// How media become images. Frames that are separate images are decoded once if each is read once.
#[derive(Debug, Clone)]
pub struct MediaReader {
    options: FrameOptions,
    processor: Processor,
    recent: Arc<RecentFrames>,
}

impl MediaReader {
    /// Reads media as `options` say, for a model with this processor.
    #[must_use]
    pub fn new(options: FrameOptions, processor: &Processor) -> Self {
        let recent = Arc::new(RecentFrames::new(RECENT_FRAMES, rayon::current_num_threads()));
        Self { options, processor: processor.clone(), recent }
    }

    /// The source of an image.
    #[must_use]
    pub fn image(&self, file: &MediaFile) -> Sources {
        vec![Arc::new(ImageFile(file.clone()))]
    }

    /// The sources of a video.
    ///
    /// # Errors
    /// Its frames are to be separate images, but the file is missing or broken; or it is a list of frames without a rate.
    pub fn video(&self, video: &Video) -> Result<Sources, ReadError> {
        Ok(match (video, self.options.frame_use) {
            (Video::Frames { frames, .. }, FrameUse::Images) => {
                frames.iter().flat_map(|frame| self.image(frame)).collect()
            }
            (Video::Frames { frames, fps }, FrameUse::Video) => {
                let fps = fps.ok_or("a video of frames needs `fps`, the frames per second")?;
                vec![Arc::new(FrameFiles { frames: frames.clone(), fps })]
            }
            (Video::File(file), FrameUse::Video) => vec![Arc::new(self.file(file.clone()))],
            (Video::File(file), FrameUse::Images) => {
                let video = self.file(file.clone());
                let frames = video.plan()?.indices().len();
                let video = Arc::new(SeparateFrames::new(video, &self.recent));
                let frame = |index| -> Arc<dyn ImageSource> {
                    Arc::new(SeparateFrame { video: video.clone(), index })
                };
                (0..frames).map(frame).collect()
            }
        })
    }

    fn file(&self, file: MediaFile) -> VideoFile {
        let FrameOptions { selection, .. } = self.options;
        VideoFile { file, selection, processor: self.processor.clone() }
    }
}
