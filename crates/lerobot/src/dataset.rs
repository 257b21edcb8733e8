//! Reading a data set.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::episode::EpisodeInfo;
use crate::error::{Error, Result};
use crate::info::{Feature, Info};
use crate::json;
use crate::metadata::{self, Entry, Metadata};
use crate::root::{INFO, Root};
use crate::template::FileIndex;
use crate::version::Version;

/// How far a video's frame may be from its row in time: LeRobot's `tolerance_s`.
const TOLERANCE_S: f64 = 1e-4;

/// A data set in a local folder, of which the metadata was read and checked.
#[derive(Debug)]
pub struct Dataset {
    root: Root,
    info: Info,
    pub(crate) metadata: Metadata,
    infos: Vec<EpisodeInfo>,
    pub(crate) tolerance_s: f64,
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

    /// The episodes and where they are.
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.metadata.entries
    }

    /// The feature of numbers `key`.
    pub(crate) fn numeric(&self, key: &str) -> Result<&Feature> {
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
