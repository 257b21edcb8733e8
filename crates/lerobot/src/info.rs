//! `meta/info.json`: version, frame rate, features, and where the files are.

mod feature;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

pub use feature::Feature;
pub(crate) use feature::check_key;

use crate::error::{Error, Result};
use crate::json;
use crate::template::{FileIndex, Template};
use crate::version::Version;

/// The highest frame rate; every camera has less.
const MAX_FPS: f64 = 100_000.0;

/// The content of `meta/info.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct Info {
    version: Version,
    fps: f64,
    robot_type: Option<String>,
    features: BTreeMap<String, Feature>,
    pub(crate) total_episodes: usize,
    pub(crate) total_frames: usize,
    pub(crate) total_tasks: usize,
    pub(crate) chunks_size: u64,
    data_path: Template,
    video_path: Option<Template>,
}

impl Info {
    /// Parses `text`, the content of the file at `path`. Unknown fields are ignored.
    ///
    /// # Errors
    /// It is no JSON object, a field is missing or wrong, or the version is not read; with the name of LeRobot's
    /// converter.
    pub fn parse(path: &Path, text: &str) -> Result<Self> {
        let fields: Map<String, Value> = serde_json::from_str(text)
            .map_err(|source| Error::Json { path: path.into(), source })?;
        let wrong = |field: &'static str| move |reason: String| Error::field(path, field, reason);
        let count = |field: &'static str| json::index(fields.get(field)).map_err(wrong(field));
        let version = Version::of(path, fields.get("codebase_version"))?;
        let fps = fields.get("fps").and_then(Value::as_f64);
        let fps =
            fps.filter(|fps| (f64::MIN_POSITIVE..=MAX_FPS).contains(fps)).ok_or_else(|| {
                let found = fields
                    .get("fps")
                    .map_or("is missing".to_owned(), |fps| format!("is {}", json::shortened(fps)));
                wrong("fps")(format!("{found}; it must be a number above 0"))
            })?;
        let features = match fields.get("features") {
            Some(Value::Object(features)) => feature::parse_all(path, features)?,
            Some(other) => {
                let reason = format!("is {}, not an object", json::shortened(other));
                return Err(wrong("features")(reason));
            }
            None => return Err(wrong("features")("is missing".to_owned())),
        };
        let template = |field: &'static str| match fields.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => {
                Template::parse(text, version).map(Some).map_err(wrong(field))
            }
            Some(other) => Err(wrong(field)(format!("is {}, not a text", json::shortened(other)))),
        };
        let data_path =
            template("data_path")?.ok_or_else(|| wrong("data_path")("is missing".to_owned()))?;
        let video_path = template("video_path")?;
        if let Some(key) = features.iter().find(|(_, it)| it.is_video()).map(|(key, _)| key)
            && video_path.is_none()
        {
            let reason = format!("is missing, but the feature `{key}` is a video");
            return Err(wrong("video_path")(reason));
        }
        let chunks_size = match fields.get("chunks_size") {
            None => 1000,
            Some(_) => count("chunks_size")? as u64,
        };
        if chunks_size == 0 {
            return Err(wrong("chunks_size")("is 0".to_owned()));
        }
        Ok(Self {
            version,
            fps,
            robot_type: fields.get("robot_type").and_then(Value::as_str).map(str::to_owned),
            features,
            total_episodes: count("total_episodes")?,
            total_frames: count("total_frames")?,
            total_tasks: count("total_tasks")?,
            chunks_size,
            data_path,
            video_path,
        })
    }

    /// The files of the data set that reading `cameras` and any columns needs, as paths relative to its folder with
    /// `*` for what differs within one component, such as `data/chunk-*/file-*.parquet`.
    ///
    /// # Example
    /// ```
    /// # use embodied_r_lerobot::Info;
    /// # let text = r#"{"codebase_version": "v2.1", "fps": 10, "total_episodes": 1, "total_frames": 1, "total_tasks": 1,
    /// # "data_path": "data/{episode_index:06d}.parquet", "video_path": null, "features": {}}"#;
    /// let info = Info::parse("meta/info.json".as_ref(), text)?;
    /// assert_eq!(
    ///     info.needed_files(&[]),
    ///     ["meta/info.json", "meta/episodes.jsonl", "meta/tasks.jsonl", "data/*.parquet"]
    /// );
    /// # Ok::<(), embodied_r_lerobot::Error>(())
    /// ```
    pub fn needed_files(&self, cameras: &[&str]) -> Vec<String> {
        let metadata: &[&str] = match self.version {
            Version::V21 => &["meta/info.json", "meta/episodes.jsonl", "meta/tasks.jsonl"],
            Version::V30 => &["meta/info.json", "meta/episodes/*/*.parquet", "meta/tasks.parquet"],
        };
        let mut files: Vec<String> = metadata.iter().map(|&path| path.to_owned()).collect();
        files.push(self.data_path.pattern(""));
        let is_video = |camera: &&&str| self.features.get(**camera).is_some_and(Feature::is_video);
        let videos = cameras.iter().filter(is_video);
        files.extend(
            videos.filter_map(|camera| self.video_path.as_ref().map(|path| path.pattern(camera))),
        );
        files
    }

    /// The path of a data file, relative to the folder.
    pub(crate) fn data_file(&self, index: FileIndex) -> String {
        self.data_path.path(index, "")
    }

    /// The path of a file of videos of `camera`, relative to the folder.
    pub(crate) fn video_file(&self, index: FileIndex, camera: &str) -> String {
        self.video_path.as_ref().map(|path| path.path(index, camera)).unwrap_or_default()
    }

    /// The version of the format.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Frames per second.
    pub fn fps(&self) -> f64 {
        self.fps
    }

    /// The robot's name.
    pub fn robot_type(&self) -> Option<&str> {
        self.robot_type.as_deref()
    }

    /// The features by key.
    pub fn features(&self) -> &BTreeMap<String, Feature> {
        &self.features
    }
}

#[cfg(test)]
mod tests;
