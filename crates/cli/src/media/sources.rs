//! The files of images and videos, as a vision-language model sees them.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use embodied_r_data::multimodal::MediaFile;
use embodied_r_grpo::images::files::find;
use embodied_r_grpo::images::table::{ImageSource, ReadError};
use embodied_r_perception::sampled_video::{self, FramePlan, FrameSelection, SampledVideo};
use embodied_r_perception::video::Limits;
use embodied_r_vision::{Frames, Processor, image_file};
use image::RgbImage;

/// An image of a question.
#[derive(Debug)]
pub(super) struct ImageOf(pub(super) MediaFile);

fn image(file: &MediaFile) -> Result<RgbImage, ReadError> {
    match file {
        MediaFile::Path(path) => Ok(image_file::read(path)?),
        MediaFile::Bytes { bytes, name } => {
            image_file::from_bytes(bytes).map_err(|error| format!("`{name}`: {error}").into())
        }
    }
}

fn find_file(file: &MediaFile) -> Result<(), ReadError> {
    match file {
        MediaFile::Path(path) => find(path),
        MediaFile::Bytes { .. } => Ok(()),
    }
}

impl ImageSource for ImageOf {
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
#[derive(Debug)]
pub(super) struct FramesOf {
    pub(super) frames: Vec<MediaFile>,
    pub(super) fps: f64,
}

impl ImageSource for FramesOf {
    fn read(&self) -> Result<Frames, ReadError> {
        let frames = self.frames.iter().map(image).collect::<Result<Vec<_>, _>>()?;
        let SampledVideo { frames, seconds } = SampledVideo::from_frames(frames, self.fps)?;
        Ok(Frames::Video { frames, seconds })
    }

    fn paths(&self) -> Vec<String> {
        self.frames.iter().map(MediaFile::name).collect()
    }

    fn fps(&self) -> Option<f64> {
        Some(self.fps)
    }

    fn find(&self) -> Result<(), ReadError> {
        self.frames.iter().try_for_each(find_file)
    }
}

/// The selected frames of a video file.
#[derive(Debug)]
pub(super) struct VideoOf {
    pub(super) file: MediaFile,
    pub(super) selection: FrameSelection,
    pub(super) processor: Processor,
}

impl VideoOf {
    pub(super) fn plan(&self) -> Result<FramePlan, ReadError> {
        Ok(self.on_disk(|path| FramePlan::of_file(path, &self.selection, &Limits::default()))??)
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
}

impl VideoOf {
    fn decode(&self, frame_use: sampled_video::FrameUse) -> Result<SampledVideo, ReadError> {
        let limits = Limits::default();
        self.on_disk(|path| -> Result<SampledVideo, ReadError> {
            let plan = FramePlan::of_file(path, &self.selection, &limits)?;
            Ok(plan.decode(frame_use, &self.processor, &limits)?)
        })?
    }
}

impl ImageSource for VideoOf {
    fn read(&self) -> Result<Frames, ReadError> {
        let SampledVideo { frames, seconds } = self.decode(sampled_video::FrameUse::Video)?;
        Ok(Frames::Video { frames, seconds })
    }

    fn paths(&self) -> Vec<String> {
        vec![self.file.name()]
    }

    fn find(&self) -> Result<(), ReadError> {
        find_file(&self.file)
    }
}

/// A video file whose selected frames are images of their own.
#[derive(Debug)]
pub(super) struct SeparateFrames {
    video: VideoOf,
    decoded: Mutex<Decoded>,
}

/// The frames of a video that is decoded once for all of its images.
#[derive(Debug, Default)]
enum Decoded {
    #[default]
    Not,
    /// Frames that were not read yet.
    Frames(Vec<Option<RgbImage>>),
    /// All were read once.
    Read,
}

impl SeparateFrames {
    pub(super) fn new(video: VideoOf) -> Self {
        Self { video, decoded: Mutex::default() }
    }

    /// The frame `index`. All frames are decoded with the first one that is read, and each is kept until it is read; one
    /// that is read again is decoded again.
    fn frame(&self, index: usize) -> Result<RgbImage, ReadError> {
        let mut decoded = self.decoded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Decoded::Not = *decoded {
            *decoded = Decoded::Frames(self.decode()?.into_iter().map(Some).collect());
        }
        if let Decoded::Frames(frames) = &mut *decoded {
            let frame = frames.get_mut(index).and_then(Option::take);
            if frames.iter().all(Option::is_none) {
                *decoded = Decoded::Read;
            }
            if let Some(frame) = frame {
                return Ok(frame);
            }
        }
        drop(decoded);
        let frame = self.decode()?.into_iter().nth(index);
        frame.ok_or_else(|| "the video has fewer frames than before".into())
    }

    fn decode(&self) -> Result<Vec<RgbImage>, ReadError> {
        Ok(self.video.decode(sampled_video::FrameUse::Images)?.frames)
    }
}

/// A frame of a video that is an image of its own.
#[derive(Debug)]
pub(super) struct FrameOf {
    pub(super) video: Arc<SeparateFrames>,
    pub(super) index: usize,
}

impl ImageSource for FrameOf {
    fn read(&self) -> Result<Frames, ReadError> {
        Ok(Frames::Image(self.video.frame(self.index)?))
    }

    fn paths(&self) -> Vec<String> {
        self.video.video.paths()
    }

    fn find(&self) -> Result<(), ReadError> {
        self.video.video.find()
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn frames_that_are_separate_images_are_decoded_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("clip.mp4");
        let source = "-v error -f lavfi -i testsrc2=s=84x56:r=2 -frames:v 4 -pix_fmt yuv420p";
        let status = Command::new("ffmpeg").args(source.split(' ')).arg(&path).status();
        assert!(status.unwrap().success());
        let video = VideoOf {
            file: MediaFile::Path(path.clone()),
            selection: FrameSelection::Uniform(3),
            processor: Processor::published().unwrap(),
        };
        let expected = video.decode(sampled_video::FrameUse::Images).unwrap().frames;
        let frames = SeparateFrames::new(video);
        assert_eq!(frames.frame(1).unwrap(), expected[1]);
        assert_eq!(frames.frame(1).unwrap(), expected[1], "decoded again");
        std::fs::rename(&path, dir.path().join("moved.mp4")).unwrap();
        assert_eq!(
            [frames.frame(2).unwrap(), frames.frame(0).unwrap()],
            [2, 0].map(|i| expected[i].clone())
        );
        assert!(frames.frame(0).is_err(), "the frames are kept");
    }
}
