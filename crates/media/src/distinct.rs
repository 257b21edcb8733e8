//! The images and videos of all samples, each one once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use embodied_r_data::multimodal::{MediaFile, Sample, Video};

use crate::reader::MediaReader;
use crate::source::{ReadError, Sources};

/// The sources of images and videos. A benchmark has many questions about one video.
#[derive(Debug, Default)]
pub(crate) struct DistinctMedia {
    sources: Sources,
    places: HashMap<Key, Range<usize>>,
}

/// What an image or a video is, whatever question shows it.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Key {
    Image(File),
    Video(File),
    /// Frames, with the bits of the frames per second.
    Frames(Vec<File>, Option<u64>),
}

#[derive(Debug, PartialEq, Eq, Hash)]
enum File {
    Path(PathBuf),
    Bytes(Arc<[u8]>),
}

impl File {
    fn of(file: &MediaFile) -> Self {
        match file {
            MediaFile::Path(path) => Self::Path(path.clone()),
            MediaFile::Bytes { bytes, .. } => Self::Bytes(bytes.clone()),
        }
    }
}

impl Key {
    fn of(video: &Video) -> Self {
        match video {
            Video::File(file) => Self::Video(File::of(file)),
            Video::Frames { frames, fps } => {
                Self::Frames(frames.iter().map(File::of).collect(), fps.map(f64::to_bits))
            }
        }
    }
}

impl DistinctMedia {
    /// Adds the media of a sample. Returns the places in [`Self::sources`] of each of its images and then of each video.
    ///
    /// # Errors
    /// As [`MediaReader::video`]; nothing is added.
    pub(crate) fn add(
        &mut self,
        sample: &Sample,
        reader: &MediaReader,
    ) -> Result<Vec<Range<usize>>, ReadError> {
        let before = self.sources.len();
        let added = self.add_all(sample, reader);
        if added.is_err() {
            self.sources.truncate(before);
            self.places.retain(|_, place| place.start < before);
        }
        added
    }

    fn add_all(
        &mut self,
        sample: &Sample,
        reader: &MediaReader,
    ) -> Result<Vec<Range<usize>>, ReadError> {
        let media = &sample.media;
        let image = |file| self.place(Key::Image(File::of(file)), || Ok(reader.image(file)));
        let mut places: Vec<Range<usize>> =
            media.images.iter().map(image).collect::<Result<_, ReadError>>()?;
        for video in &media.videos {
            places.push(self.place(Key::of(video), || reader.video(video))?);
        }
        Ok(places)
    }

    /// The place of a medium, which is added if it is new.
    fn place(
        &mut self,
        key: Key,
        sources: impl FnOnce() -> Result<Sources, ReadError>,
    ) -> Result<Range<usize>, ReadError> {
        match self.places.entry(key) {
            Entry::Occupied(known) => Ok(known.get().clone()),
            Entry::Vacant(new) => {
                let first = self.sources.len();
                self.sources.extend(sources()?);
                Ok(new.insert(first..self.sources.len()).clone())
            }
        }
    }

    /// The sources of all media.
    pub(crate) fn sources(&self) -> &Sources {
        &self.sources
    }
}

#[cfg(test)]
mod tests {
    use embodied_r_data::Question;
    use embodied_r_data::multimodal::Media;
    use embodied_r_vision::VisionProcessor;

    use super::*;
    use crate::reader::FrameOptions;
    use crate::sampled_video::{FrameSelection, FrameUse};

    fn path(name: &str) -> MediaFile {
        MediaFile::Path(name.into())
    }

    fn bytes(name: &str, bytes: &[u8]) -> MediaFile {
        MediaFile::Bytes { bytes: bytes.into(), name: name.into() }
    }

    fn sample(images: Vec<MediaFile>, videos: Vec<Video>) -> Sample {
        Sample { media: Media { images, videos }, ..Sample::from_text(Question::default()) }
    }

    fn reader(frame_use: FrameUse) -> MediaReader {
        let options = FrameOptions { selection: FrameSelection::Uniform(16), frame_use };
        MediaReader::new(options, VisionProcessor::published("Qwen2.5-VL-3B").unwrap().processor())
    }

    #[test]
    fn equal_media_of_several_samples_have_one_place() {
        let reader = reader(FrameUse::Video);
        let mut media = DistinctMedia::default();
        let frames = |fps| Video::Frames { frames: vec![path("a"), path("b")], fps: Some(fps) };
        let first = sample(
            vec![path("a"), bytes("x", &[1]), path("a"), bytes("x", &[2])],
            vec![Video::File(path("a")), frames(1.0), frames(2.0)],
        );
        let places = media.add(&first, &reader).unwrap();
        assert_eq!(places, [0..1, 1..2, 0..1, 2..3, 3..4, 4..5, 5..6]);
        let second =
            sample(vec![bytes("y", &[1]), path("new")], vec![frames(1.0), Video::File(path("a"))]);
        assert_eq!(media.add(&second, &reader).unwrap(), [1..2, 6..7, 4..5, 3..4]);
        assert_eq!(media.sources().len(), 7);
    }

    #[test]
    fn a_sample_that_cannot_be_read_adds_nothing() {
        let reader = reader(FrameUse::Images);
        let mut media = DistinctMedia::default();
        let frames = || Video::Frames { frames: vec![path("a"), path("b")], fps: None };
        assert_eq!(
            media.add(&sample(vec![path("a")], vec![frames()]), &reader).unwrap(),
            [0..1, 1..3]
        );
        let missing = Video::File(path("missing.mp4"));
        media.add(&sample(vec![path("c"), path("a")], vec![missing]), &reader).unwrap_err();
        assert_eq!(media.sources().len(), 3);
        let last = sample(vec![path("d"), path("c")], vec![frames()]);
        assert_eq!(media.add(&last, &reader).unwrap(), [3..4, 4..5, 1..3]);
    }
}
