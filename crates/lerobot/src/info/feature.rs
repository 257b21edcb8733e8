//! The features of the frames.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::json;

/// The most values of a feature in one frame.
const MAX_WIDTH: usize = 1 << 24;

/// The most features.
const MAX_FEATURES: usize = 10_000;

/// A feature of the frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feature {
    /// The type of its values: `float32`, `int64`, `video`, `image` …
    pub dtype: String,
    /// Its shape in one frame; height, width and channels of images.
    pub shape: Vec<usize>,
    /// The names of its values, one per value, or of the axes of images; `None` if there are none, or another number of
    /// them, as in some public data sets. Of `{"motors": ["x", "y"]}` and the like, the inner names.
    pub names: Option<Vec<String>>,
}

impl Feature {
    /// The number of values per frame.
    pub fn width(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it is images or a video.
    pub fn is_camera(&self) -> bool {
        matches!(self.dtype.as_str(), "image" | "video")
    }

    /// Whether it is a video.
    pub(crate) fn is_video(&self) -> bool {
        self.dtype == "video"
    }

    /// Whether it has numbers.
    pub(crate) fn is_numeric(&self) -> bool {
        ["float", "int", "uint", "bool"].iter().any(|kind| self.dtype.starts_with(kind))
    }

    /// Width and height of the images by the shape, whose axes are in the order of the names, if it has such names; `None`
    /// if it is not a camera or the shape says nothing. Some public data sets have images of another size.
    pub fn image_size(&self) -> Option<(u32, u32)> {
        let [a, b, c] = self.shape[..] else { return None };
        let named = |axis: &str| {
            let names = self.names.as_ref()?;
            let at = names.iter().position(|name| name.to_ascii_lowercase().starts_with(axis))?;
            self.shape.get(at).copied()
        };
        let (height, width) = match (named("height"), named("width")) {
            (Some(height), Some(width)) => (height, width),
            _ if matches!(a, 1 | 3) && !matches!(c, 1 | 3) => (b, c),
            _ => (a, b),
        };
        let size = (u32::try_from(width).ok()?, u32::try_from(height).ok()?);
        self.is_camera().then_some(size)
    }
}

/// The features of the file at `path`.
pub(super) fn parse_all(
    path: &Path,
    features: &Map<String, Value>,
) -> Result<BTreeMap<String, Feature>> {
    if features.len() > MAX_FEATURES {
        let reason = format!("has {} entries, more than {MAX_FEATURES}", features.len());
        return Err(Error::field(path, "features", reason));
    }
    let parsed = features.iter().map(|(key, value)| {
        check_key(key).map_err(|reason| Error::field(path, "features", reason))?;
        let wrong = |field: &str, reason: String| {
            Error::field(path, format!("features.{key}{field}"), reason)
        };
        let Value::Object(fields) = value else {
            return Err(wrong("", format!("is {}, not an object", json::shortened(value))));
        };
        let dtype = match fields.get("dtype") {
            Some(Value::String(dtype)) => dtype.clone(),
            _ => return Err(wrong(".dtype", "is missing or not a text".to_owned())),
        };
        let shape = shape(fields.get("shape")).map_err(|reason| wrong(".shape", reason))?;
        let mut feature = Feature { dtype, shape, names: None };
        let expected = if feature.is_camera() { feature.shape.len() } else { feature.width() };
        feature.names =
            fields.get("names").map(names).filter(|names| names.len() == expected && expected > 0);
        Ok((key.clone(), feature))
    });
    parsed.collect()
}

/// Whether `key` can be a part of a path and a column.
///
/// # Errors
/// What is wrong with it, as the rest of a sentence.
pub(crate) fn check_key(key: &str) -> Result<(), String> {
    const MAX_LENGTH: usize = 200;
    let shown: String = key.chars().take(40).collect::<String>().escape_debug().to_string();
    let is_plain = !key.chars().any(|it| it.is_control() || matches!(it, '/' | '\\'));
    match is_plain && !matches!(key, "" | "." | "..") && key.len() <= MAX_LENGTH {
        true => Ok(()),
        false => Err(format!("has the key `{shown}`, which cannot be the name of a folder")),
    }
}

fn shape(value: Option<&Value>) -> Result<Vec<usize>, String> {
    let Some(Value::Array(sizes)) = value else {
        return Err("is missing or not a list".to_owned());
    };
    let sizes: Vec<usize> =
        sizes.iter().map(|size| json::index(Some(size))).collect::<Result<_, _>>()?;
    let width = sizes.iter().try_fold(1_usize, |width, size| width.checked_mul(*size));
    match width {
        Some(1..=MAX_WIDTH) => Ok(sizes),
        _ => Err(format!("is {sizes:?}; its values must be from 1 to {MAX_WIDTH} in all")),
    }
}

/// The names in a list, or in the lists or the keys of a nested object.
fn names(value: &Value) -> Vec<String> {
    match value {
        Value::String(name) => vec![name.clone()],
        Value::Number(name) => vec![name.to_string()],
        Value::Array(values) => values.iter().flat_map(names).collect(),
        Value::Object(values) => {
            // `{"x": 0, "y": 1}` has the places of its names.
            let mut placed: Vec<(f64, &String)> =
                values.iter().filter_map(|(name, place)| Some((place.as_f64()?, name))).collect();
            match placed.len() == values.len() {
                true => {
                    placed.sort_by(|a, b| a.0.total_cmp(&b.0));
                    placed.into_iter().map(|(_, name)| name.clone()).collect()
                }
                false => values.values().flat_map(names).collect(),
            }
        }
        Value::Null | Value::Bool(_) => Vec::new(),
    }
}
