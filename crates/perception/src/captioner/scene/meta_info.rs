//! VSI-Bench's `meta_info` files: the bounding boxes of each scene's objects.
//!
//! Source: `data/meta_info` of vision-x-nyu/thinking-in-space. Each file maps scene names to
//! records whose `object_bbox` maps an object's name to its boxes, in metres, z up. `min` and `max`
//! are the corners of the axis-aligned box around the oriented one.

use std::collections::BTreeMap;
use std::path::Path;

use embodied_r_files::read_text;
use serde::Deserialize;

use crate::error::{Error, Result};

/// One object of a real room.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ObjectBox {
    /// Its name.
    pub(super) name: String,
    /// Its center, in metres.
    pub(super) centroid: [f64; 3],
    /// The lower corner, in metres.
    pub(super) min: [f64; 3],
    /// The upper corner, in metres.
    pub(super) max: [f64; 3],
}

/// The objects of all scenes, by scene name.
#[derive(Debug, Default)]
pub(super) struct RealRooms(BTreeMap<String, Vec<ObjectBox>>);

#[derive(Deserialize)]
struct Room {
    object_bbox: BTreeMap<String, Vec<Corners>>,
}

#[derive(Deserialize)]
struct Corners {
    centroid: [f64; 3],
    min: [f64; 3],
    max: [f64; 3],
}

impl RealRooms {
    /// Reads every `*meta_info*.json` in `folder`, if any.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(Error::io("read", folder))? {
            let path = entry.map_err(Error::io("read", folder))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.contains("meta_info") && name.ends_with(".json") {
                files.push(path);
            }
        }
        // The order of directory entries is platform-dependent.
        files.sort();
        let mut rooms = BTreeMap::new();
        for path in files {
            let text = read_text(&path)?;
            let read: BTreeMap<String, Room> = serde_json::from_str(&text)
                .map_err(|source| Error::MetaInfo { path: path.clone(), source })?;
            rooms.extend(read.into_iter().map(|(name, room)| (name, room.boxes())));
        }
        Ok(Self(rooms))
    }

    /// A scene's name and objects.
    pub(super) fn get(&self, name: &str) -> Option<(&str, &[ObjectBox])> {
        self.0.get_key_value(name).map(|(name, boxes)| (name.as_str(), boxes.as_slice()))
    }
}

impl Room {
    fn boxes(self) -> Vec<ObjectBox> {
        let named = |(name, boxes): (String, Vec<Corners>)| {
            boxes.into_iter().map(move |Corners { centroid, min, max }| {
                let name = name.clone();
                ObjectBox { name, centroid, min, max }
            })
        };
        self.object_bbox.into_iter().flat_map(named).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    #[test]
    fn boxes_are_read_from_every_meta_info_file() {
        let scene = |name: &str| {
            json!({name: {"dataset": "d", "room_size": 9.5, "object_counts": {"sofa": 1},
                "object_bbox": {"sofa": [{"centroid": [1.0, 2.0, 0.5], "axesLengths": [1, 1, 1],
                "normalizedAxes": [1, 0, 0, 0, 1, 0, 0, 0, 1],
                "min": [0.5, 1.5, 0.0], "max": [1.5, 2.5, 1.0]}]}}})
            .to_string()
        };
        let folder = folder(&[
            ("a_meta_info_val.json", &scene("one")),
            ("b_meta_info_val.json", &scene("two")),
            ("notes.json", "not read"),
        ]);
        let rooms = RealRooms::read(folder.path()).unwrap();
        let sofa = ObjectBox {
            name: "sofa".into(),
            centroid: [1.0, 2.0, 0.5],
            min: [0.5, 1.5, 0.0],
            max: [1.5, 2.5, 1.0],
        };
        assert_eq!(rooms.get("one"), Some(("one", [sofa.clone()].as_slice())));
        assert_eq!(rooms.get("two"), Some(("two", [sofa].as_slice())));
        assert_eq!(rooms.get("three"), None);
    }

    #[test]
    fn a_broken_file_is_named() {
        let folder = folder(&[("a_meta_info.json", r#"{"one": {"object_bbox": {"sofa": [{}]}}}"#)]);
        let error = RealRooms::read(folder.path()).unwrap_err().to_string();
        assert!(error.contains("a_meta_info.json"), "{error}");
    }
}
