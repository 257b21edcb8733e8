//! A video file as several sources: each selected frame as an image of its own.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, Weak};

use embodied_r_vision::Frames;
use image::RgbImage;

use crate::lock::locked;
use crate::sampled_video::FrameUse;
use crate::source::{FileContent, ImageSource, ReadError};
use crate::video_file::VideoFile;

/// A video file whose selected frames are images of their own.
#[derive(Debug)]
pub(crate) struct SeparateFrames {
    video: VideoFile,
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
    /// The selected frames of `video`, which is not decoded yet.
    pub(crate) fn new(video: VideoFile, recent: &Arc<RecentFrames>) -> Self {
        Self { video, decoded: Mutex::default(), recent: recent.clone() }
    }

    /// The frame `index`. All frames are decoded with the first one that is read, and each is kept until it is read. Once
    /// all were read, one that is read again is decoded again, with the others.
    fn frame(&self, index: usize) -> Result<RgbImage, ReadError> {
        let decoded = &mut *locked(&self.decoded);
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
pub(crate) struct RecentFrames {
    bytes: usize,
    least: usize,
    videos: Mutex<VecDeque<Arc<Vec<RgbImage>>>>,
}

impl RecentFrames {
    /// Up to `bytes`, but always `least` videos: as many as are read at once.
    pub(crate) fn new(bytes: usize, least: usize) -> Self {
        Self { bytes, least, videos: Mutex::default() }
    }

    fn push(&self, frames: Arc<Vec<RgbImage>>) {
        let bytes = |frames: &Arc<Vec<RgbImage>>| {
            frames.iter().map(|frame| frame.as_raw().len()).sum::<usize>()
        };
        let videos = &mut *locked(&self.videos);
        videos.push_back(frames);
        let mut all: usize = videos.iter().map(bytes).sum();
        while all > self.bytes && videos.len() > self.least {
            all -= videos.pop_front().as_ref().map_or(0, bytes);
        }
    }
}

/// A frame of a video that is an image of its own.
#[derive(Debug)]
pub(crate) struct SeparateFrame {
    /// The video.
    pub(crate) video: Arc<SeparateFrames>,
    /// Its index among the selected frames.
    pub(crate) index: usize,
}

impl ImageSource for SeparateFrame {
    fn read(&self) -> Result<Frames, ReadError> {
        Ok(Frames::Image(self.video.frame(self.index)?))
    }

    fn paths(&self) -> Vec<String> {
        self.video.video.paths()
    }

    fn content(&self) -> FileContent {
        FileContent::VideoFrame(self.video.video.selection, self.index)
    }

    fn find(&self) -> Result<(), ReadError> {
        self.video.video.find()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use embodied_r_data::multimodal::MediaFile;
    use embodied_r_vision::VisionProcessor;

    use super::*;
    use crate::sampled_video::FrameSelection;

    /// A video of four frames with three selected ones.
    fn video(dir: &Path, name: &str) -> VideoFile {
        let path = dir.join(name);
        let source = "-v error -f lavfi -i testsrc2=s=84x56:r=2 -frames:v 4 -pix_fmt yuv420p";
        let status = Command::new("ffmpeg").args(source.split(' ')).arg(&path).status();
        assert!(status.unwrap().success());
        VideoFile {
            file: MediaFile::Path(path),
            selection: FrameSelection::Uniform(3),
            processor: VisionProcessor::published("Qwen2.5-VL-3B").unwrap().processor().clone(),
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
