//! The frames of cameras: from videos, and from images in parquet files.

mod images;
mod parallel;
mod videos;

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

/// As [`Dataset::for_each_frame`].
pub(crate) fn for_each<E: From<Error> + Send>(
    dataset: &Dataset,
    camera: &str,
    wanted: &[FrameId],
    tolerance_s: f64,
    each: Sink<'_, E>,
) -> Result<(), E> {
    let is_video = dataset.camera(camera)?.is_video();
    let episodes = dataset.episodes();
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
        true => videos::for_each(dataset, camera, &wanted, tolerance_s, each),
        false => images::for_each(dataset, camera, &wanted, each),
    }
}
