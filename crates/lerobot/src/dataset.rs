//! Reading a data set.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use image::RgbImage;

use crate::episode::{Episode, EpisodeInfo};
use crate::error::{Error, Result};
use crate::frames::{self, FrameId};
use crate::info::{Feature, Info};
use crate::json;
use crate::metadata::{self, Entry, Metadata};
use crate::root::{INFO, Root};
use crate::rows::{DataFile, Rows};
use crate::template::FileIndex;
use crate::version::Version;

/// How far a video's frame may be from its row in time: LeRobot's `tolerance_s`.
const TOLERANCE_S: f64 = 1e-4;

/// A data set in a local folder, of which the metadata was read and checked.
#[derive(Debug)]
pub struct Dataset {
    root: Root,
    info: Info,
    metadata: Metadata,
    infos: Vec<EpisodeInfo>,
    tolerance_s: f64,
}

impl Dataset {
    /// Opens the data set in the folder `dir`: reads all metadata, and checks that the data files that it names exist.
    /// Episodes may be in any order in the metadata; they are sorted by index.
    ///
    /// # Errors
    /// A file is missing or wrong, named with the field at fault; counts in `meta/info.json` are not those of the
    /// metadata; or the folder has data of another format, named with a converter.
    pub fn open(dir: &Path) -> Result<Self> {
        let root = Root::open(dir)?;
        let path = root.file(INFO, || "which every LeRobot data set has".to_owned())?;
        let info = Info::parse(&path, &json::read_small(&path)?)?;
        let metadata = metadata::read(&root, &info)?;
        let infos = metadata.entries.iter().map(|entry| entry.info.clone()).collect();
        let dataset = Self { root, info, metadata, infos, tolerance_s: TOLERANCE_S };
        let mut last = None;
        for entry in &dataset.metadata.entries {
            if last.replace(entry.data) != Some(entry.data) {
                dataset.data_path(entry.data)?;
            }
        }
        Ok(dataset)
    }

    /// The data set, of whose videos a frame may be this many seconds from its row in time instead of 0.0001, the value of
    /// LeRobot. Half a frame is the most that makes sense.
    #[must_use]
    pub fn with_tolerance(self, tolerance_s: f64) -> Self {
        Self { tolerance_s, ..self }
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
        &self.infos
    }

    /// Checks that the camera exists, and all of its videos.
    ///
    /// # Errors
    /// There is no such camera, or a file is missing.
    pub fn check_camera(&self, camera: &str) -> Result<()> {
        let mut last = None;
        if self.camera(camera)?.is_video() {
            for (episode, entry) in self.entries().iter().enumerate() {
                let file = entry.videos.get(camera).map(|span| span.file);
                if last.replace(file) != Some(file) {
                    self.video_path(camera, episode)?;
                }
            }
        }
        Ok(())
    }

    /// Calls `each` with the episodes in order of their indices, with the features `columns`, the only columns that are
    /// read besides timestamps and indices. Integers beyond 2^53 are rounded.
    ///
    /// # Errors
    /// Those of `each`; a feature does not exist or is not numeric, a column has another width than its feature, a value
    /// is not finite, or rows contradict the metadata.
    pub fn read_episodes<E: From<Error>>(
        &self,
        columns: &[&str],
        mut each: impl FnMut(Episode) -> Result<(), E>,
    ) -> Result<(), E> {
        let widths = columns.iter().map(|&key| Ok((key, self.numeric(key)?.width())));
        let widths: Vec<(&str, usize)> = widths.collect::<Result<_>>()?;
        let mut loaded: Option<(FileIndex, DataFile, Rows)> = None;
        for (episode, entry) in self.metadata.entries.iter().enumerate() {
            let (_, file, rows) = match loaded.take() {
                Some(same @ (index, ..)) if index == entry.data => loaded.insert(same),
                _ => {
                    let file = DataFile::open(self, entry.data)?;
                    let rows = file.read(&widths, self.fps())?;
                    loaded.insert((entry.data, file, rows))
                }
            };
            each(rows.episode(episode, &self.metadata.tasks, file.file().path())?)?;
        }
        Ok(())
    }

    /// The frames `frames` of an episode in the given order, from a video or from images in parquet files. Only these are
    /// decoded. For frames of several episodes, [`for_each_frame`](Self::for_each_frame) is faster.
    ///
    /// # Errors
    /// As [`for_each_frame`](Self::for_each_frame).
    pub fn frames(&self, camera: &str, episode: usize, frames: &[usize]) -> Result<Vec<RgbImage>> {
        let wanted: Vec<FrameId> = frames.iter().map(|&frame| FrameId { episode, frame }).collect();
        let images = std::sync::Mutex::new(BTreeMap::new());
        self.for_each_frame(camera, &wanted, |position, image| {
            let mut images = images.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            images.insert(position, image);
            Ok::<_, Error>(())
        })?;
        let images = images.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
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
        frames::for_each(self, camera, wanted, self.tolerance_s, &each)
    }

    /// The episodes and where they are.
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.metadata.entries
    }

    /// The feature of numbers `key`.
    fn numeric(&self, key: &str) -> Result<&Feature> {
        self.feature(key, "feature of numbers", Feature::is_numeric)
    }

    /// The camera `key`.
    pub(crate) fn camera(&self, key: &str) -> Result<&Feature> {
        self.feature(key, "camera", Feature::is_camera)
    }

    fn feature(
        &self,
        key: &str,
        kind: &'static str,
        is_kind: impl Fn(&Feature) -> bool,
    ) -> Result<&Feature> {
        if let Some(feature) = self.features().get(key).filter(|feature| is_kind(feature)) {
            return Ok(feature);
        }
        let keys = self.features().iter().filter(|(_, feature)| is_kind(feature));
        let keys: Vec<&str> = keys.map(|(key, _)| key.as_str()).collect();
        Err(Error::NoFeature {
            path: self.root.path(INFO),
            kind,
            key: key.to_owned(),
            available: keys.join(", "),
        })
    }

    /// The path of a data file, which exists.
    pub(crate) fn data_path(&self, index: FileIndex) -> Result<PathBuf> {
        self.root.file(&self.info.data_file(index), || self.needed_by("data_path"))
    }

    /// The path of the file with the video of an episode, which exists.
    pub(crate) fn video_path(&self, camera: &str, episode: usize) -> Result<PathBuf> {
        let span = self.entries().get(episode).and_then(|entry| entry.videos.get(camera));
        let Some(span) = span else {
            let reason = "has no video".to_owned();
            let path = self.metadata.episodes_path.clone();
            return Err(Error::Episode { path, episode, field: camera.to_owned(), reason });
        };
        self.root.file(&self.info.video_file(span.file, camera), || self.needed_by("video_path"))
    }

    fn needed_by(&self, field: &str) -> String {
        let path = self.metadata.episodes_path.display();
        format!("which `{field}` names for an episode of `{path}`: download the whole data set")
    }
}
