//! The frames of cameras: from videos, and from images in parquet files.

mod images;
mod parallel;
mod videos;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use image::RgbImage;

use crate::dataset::Dataset;
use crate::error::{Error, Result};

/// A frame of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameId {
    /// The episode's index.
    pub episode: usize,
    /// The frame's index in the episode.
    pub frame: usize,
}

/// A wanted frame, and its position among them.
type Wanted = (FrameId, usize);

/// Receives frames with their positions.
type Sink<'a, E> = &'a (dyn Fn(usize, RgbImage) -> Result<(), E> + Sync);

impl Dataset {
    /// The frames `frames` of an episode in the given order, from a video or from images in parquet files. Only these are
    /// decoded. For frames of several episodes, [`for_each_frame`](Self::for_each_frame) is faster.
    ///
    /// # Errors
    /// As [`for_each_frame`](Self::for_each_frame).
    pub fn frames(&self, camera: &str, episode: usize, frames: &[usize]) -> Result<Vec<RgbImage>> {
        let wanted: Vec<FrameId> = frames.iter().map(|&frame| FrameId { episode, frame }).collect();
        let images = Mutex::new(BTreeMap::new());
        self.for_each_frame(camera, &wanted, |position, image| {
            let mut images = images.lock().unwrap_or_else(PoisonError::into_inner);
            images.insert(position, image);
            Ok::<_, Error>(())
        })?;
        let images = images.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(images.into_values().collect())
    }

    /// Calls `each` once with each of the frames `wanted` of a camera and its position in `wanted`: a file's frames in
    /// the order in which they are decoded, files in parallel. Each file is decoded once, and only what the frames
    /// depend on.
    ///
    /// # Errors
    /// Those of `each`; there is no such camera, episode or frame; a file is missing or cannot be decoded, has another
    /// frame rate than the data set, or no frame at a frame's time, or ends before its episodes; or FFmpeg is
    /// missing or lacks the decoder.
    pub fn for_each_frame<E: From<Error> + Send>(
        &self,
        camera: &str,
        wanted: &[FrameId],
        each: impl Fn(usize, RgbImage) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        let is_video = self.camera(camera)?.is_video();
        let episodes = self.episodes();
        for &FrameId { episode, frame } in wanted {
            let fault = |reason| Err(Error::NoFrame { episode, frame, reason }.into());
            match episodes.get(episode) {
                None => return fault(format!("the data set has {} episodes", episodes.len())),
                Some(info) if frame >= info.length => {
                    return fault(format!("it has {} frames", info.length));
                }
                Some(_) => {}
            }
        }
        let mut wanted: Vec<Wanted> = wanted.iter().copied().zip(0..).collect();
        wanted.sort_unstable();
        match is_video {
            true => videos::for_each(self, camera, &wanted, self.tolerance_s, &each),
            false => images::for_each(self, camera, &wanted, &each),
        }
    }
}
