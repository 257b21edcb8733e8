//! The files of images and videos, as a vision-language model sees them.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use embodied_r_data::multimodal::MediaFile;
use embodied_r_media::files::find;
use embodied_r_media::sampled_video::{FramePlan, FrameSelection, FrameUse, SampledVideo};
use embodied_r_media::source::{ImageSource, ReadError};
use embodied_r_video::Limits;
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
    fn decode(&self, frame_use: FrameUse) -> Result<SampledVideo, ReadError> {
        let limits = Limits::default();
        self.on_disk(|path| -> Result<SampledVideo, ReadError> {
            let plan = FramePlan::of_file(path, &self.selection, &limits)?;
            Ok(plan.decode(frame_use, &self.processor, &limits)?)
        })?
    }
}

impl ImageSource for VideoOf {
    fn read(&self) -> Result<Frames, ReadError> {
        let SampledVideo { frames, seconds } = self.decode(FrameUse::Video)?;
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
    recent: Arc<RecentFrames>,
}

/// The frames of a video that is decoded once for all of its images.
#[derive(Debug, Default)]
enum Decoded {
    #[default]
    Not,
    /// Frames that were not read yet.
    Unread(Vec<Option<RgbImage>>),
    /// All were read once. They are decoded again, as long as they are among the recent ones.
    Read(Weak<Vec<RgbImage>>),
}

impl SeparateFrames {
    pub(super) fn new(video: VideoOf, recent: &Arc<RecentFrames>) -> Self {
        Self { video, decoded: Mutex::default(), recent: recent.clone() }
    }

    /// The frame `index`. All frames are decoded with the first one that is read, and each is kept until it is read. Once
    /// all were read, one that is read again is decoded again, with the others.
    fn frame(&self, index: usize) -> Result<RgbImage, ReadError> {
        let decoded = &mut *self.decoded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Decoded::Not = decoded {
            *decoded = Decoded::Unread(self.decode()?.into_iter().map(Some).collect());
        }
        if let Decoded::Unread(frames) = decoded {
            let frame = frames.get_mut(index).and_then(Option::take);
            if frames.iter().all(Option::is_none) {
                *decoded = Decoded::Read(Weak::new());
            }
            if let Some(frame) = frame {
                return Ok(frame);
            }
        }
        let kept = match decoded {
            Decoded::Read(frames) => frames.upgrade(),
            Decoded::Not | Decoded::Unread(_) => None,
        };
        let frames = match kept {
            Some(frames) => frames,
            None => {
                let frames = Arc::new(self.decode()?);
                self.recent.push(frames.clone());
                *decoded = Decoded::Read(Arc::downgrade(&frames));
                frames
            }
        };
        frames.get(index).cloned().ok_or_else(|| "the video has fewer frames than before".into())
    }

    fn decode(&self) -> Result<Vec<RgbImage>, ReadError> {
        Ok(self.video.decode(FrameUse::Images)?.frames)
    }
}

/// The frames of the videos that were decoded again last, so that the frames of a video are decoded together.
#[derive(Debug)]
pub(super) struct RecentFrames {
    bytes: usize,
    least: usize,
    videos: Mutex<VecDeque<Arc<Vec<RgbImage>>>>,
}

impl RecentFrames {
    /// Up to `bytes`, but always `least` videos: as many as are read at once.
    pub(super) fn new(bytes: usize, least: usize) -> Self {
        Self { bytes, least, videos: Mutex::default() }
    }

    fn push(&self, frames: Arc<Vec<RgbImage>>) {
        let bytes = |frames: &Arc<Vec<RgbImage>>| {
            frames.iter().map(|frame| frame.as_raw().len()).sum::<usize>()
        };
        let videos = &mut *self.videos.lock().unwrap_or_else(PoisonError::into_inner);
        videos.push_back(frames);
        let mut all: usize = videos.iter().map(bytes).sum();
        while all > self.bytes && videos.len() > self.least {
            all -= videos.pop_front().as_ref().map_or(0, bytes);
        }
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

    /// A video of four frames with three selected ones.
    fn video(dir: &Path, name: &str) -> VideoOf {
        let path = dir.join(name);
        let source = "-v error -f lavfi -i testsrc2=s=84x56:r=2 -frames:v 4 -pix_fmt yuv420p";
        let status = Command::new("ffmpeg").args(source.split(' ')).arg(&path).status();
        assert!(status.unwrap().success());
        VideoOf {
            file: MediaFile::Path(path),
            selection: FrameSelection::Uniform(3),
            processor: Processor::published().unwrap(),
        }
    }

    /// The bytes of three frames.
    const VIDEO: usize = 3 * 84 * 56 * 3;

    /// `clip.mp4` in `dir` as separate images, and these images.
    fn clip(dir: &Path) -> (SeparateFrames, Vec<RgbImage>) {
        let video = video(dir, "clip.mp4");
        let images = video.decode(FrameUse::Images).unwrap().frames;
        (SeparateFrames::new(video, &Arc::new(RecentFrames::new(VIDEO, 1))), images)
    }

    #[test]
    fn frames_that_are_separate_images_are_decoded_once() {
        let dir = tempfile::tempdir().unwrap();
        let (frames, expected) = clip(dir.path());
        let path = dir.path().join("clip.mp4");
        let moved = dir.path().join("moved.mp4");
        let read = |indices: &[usize]| {
            for index in indices {
                assert_eq!(frames.frame(*index).unwrap(), expected[*index]);
            }
        };
        read(&[1]);
        std::fs::rename(&path, &moved).unwrap();
        read(&[2, 0]);
        assert!(frames.frame(0).is_err(), "the frames are kept");
        std::fs::rename(&moved, &path).unwrap();
        read(&[0]);
        std::fs::rename(&path, &moved).unwrap();
        read(&[2, 1, 0, 2]);
    }

    #[test]
    fn a_frame_that_is_read_twice_before_others_is_decoded_again() {
        let dir = tempfile::tempdir().unwrap();
        let (frames, expected) = clip(dir.path());
        for index in [1, 1, 0, 2, 0] {
            assert_eq!(frames.frame(index).unwrap(), expected[index]);
        }
    }

    #[test]
    fn recent_videos_take_bounded_memory() {
        let dir = tempfile::tempdir().unwrap();
        let recent = Arc::new(RecentFrames::new(2 * VIDEO, 1));
        let videos = ["a.mp4", "b.mp4", "c.mp4"]
            .map(|name| SeparateFrames::new(video(dir.path(), name), &recent));
        let read_all = |video: &SeparateFrames| (0..3).try_for_each(|i| video.frame(i).map(drop));
        for round in 0..2 {
            for (index, video) in videos.iter().enumerate() {
                assert!(read_all(video).is_ok(), "video {index} in round {round}");
            }
        }
        assert_eq!(recent.videos.lock().unwrap().len(), 2);
        let large = RecentFrames::new(0, 2);
        (0..3).for_each(|_| large.push(Arc::new(vec![RgbImage::new(2, 2)])));
        assert_eq!(large.videos.lock().unwrap().len(), 2);
        for name in ["a.mp4", "b.mp4", "c.mp4"] {
            std::fs::remove_file(dir.path().join(name)).unwrap();
        }
        assert_eq!(videos.each_ref().map(|video| read_all(video).is_ok()), [false, true, true]);
    }
}
