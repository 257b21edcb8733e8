//! True words from 3-D annotations in place of a model: an upper bound for perception, and what
//! lets everything run without one.
//!
//! A built-in room has a scene file with the camera's own path: its captions tell what the camera
//! sees at the key frames of the video. A VSI-Bench scene has boxes but no path: a [`tour`] is
//! made from the boxes alone. Neither looks at the question's text, so that nothing can lean
//! towards an option; the answer is not even within reach ([`Asked`] does not hold it).
//!
//! What the boxes lack is not told: of VSI-Bench's route questions most name some object that has
//! no box.

mod meta_info;
mod tour;

use std::path::{Path, PathBuf};

use embodied_r_data::scene::{self, Scene};
use futures_util::future::{BoxFuture, FutureExt as _};
use serde_json::{Map, Value, json};

use super::{Asked, Caption, Captioner, Footage};
use crate::error::{Error, Result};
use meta_info::RealRooms;

/// Tells what the annotations say.
#[derive(Debug)]
pub struct SceneCaptions {
    folder: PathBuf,
    real_rooms: RealRooms,
    max_frames: usize,
}

impl SceneCaptions {
    /// Captions from the scene files in `folder`: `<video stem>.json` for built-in rooms, and
    /// VSI-Bench's `*meta_info*.json`. A tour has at most `max_frames` frames.
    ///
    /// # Errors
    /// The folder or a `meta_info` file cannot be read.
    pub fn open(folder: &Path, max_frames: usize) -> Result<Self> {
        let real_rooms = RealRooms::read(folder)?;
        Ok(Self { folder: folder.to_owned(), real_rooms, max_frames })
    }

    async fn all(&self, asked: Asked<'_>, footage: &Footage) -> Result<Vec<Caption>> {
        match self.source(asked)? {
            Source::BuiltIn(file) => built_in(&file, footage).await,
            Source::Boxes(_, boxes) => Ok(real_room(boxes, self.max_frames)),
        }
    }

    /// The annotations of a question's video.
    fn source<'a>(&'a self, asked: Asked<'a>) -> Result<Source<'a>> {
        let file = asked.video_stem.map(|stem| self.folder.join(format!("{stem}.json")));
        if let Some(file) = file.filter(|file| file.is_file()) {
            return Ok(Source::BuiltIn(file));
        }
        let mut names = asked.scene_name.into_iter().chain(asked.video_stem);
        let boxes = names.find_map(|name| self.real_rooms.get(name));
        let (name, boxes) = boxes.ok_or_else(|| Error::NoScene {
            scene: asked.scene_name.or(asked.video_stem).unwrap_or("without name").to_owned(),
            folder: self.folder.clone(),
        })?;
        Ok(Source::Boxes(name, boxes))
    }
}

/// Annotations of one video.
enum Source<'a> {
    /// The scene file of a built-in room.
    BuiltIn(PathBuf),
    /// A real room's name, and the boxes in it.
    Boxes(&'a str, &'a [meta_info::RoomBox]),
}

impl Captioner for SceneCaptions {
    fn settings(&self) -> Map<String, Value> {
        Map::from_iter([("backend".to_owned(), json!("scene"))])
    }

    fn check(&self, asked: Asked<'_>) -> Result<()> {
        let Source::Boxes(name, _) = self.source(asked)? else { return Ok(()) };
        match asked.category.and_then(|category| Some((category, beyond_boxes(category)?))) {
            Some((category, reason)) => {
                let (scene, category) = (name.to_owned(), category.to_owned());
                Err(Error::UnsupportedCategory { scene, category, reason })
            }
            None => Ok(()),
        }
    }

    fn caption<'a>(
        &'a self,
        asked: Asked<'a>,
        footage: &'a Footage,
    ) -> BoxFuture<'a, Result<Vec<Caption>>> {
        self.all(asked, footage).boxed()
    }
}

/// Why boxes without a camera path, told by bearing and distance, cannot support a category of
/// VSI-Bench; `None` where they can.
fn beyond_boxes(category: &str) -> Option<&'static str> {
    match category {
        "obj_appearance_order" => Some(
            "it asks for the order along the camera's real path, and the annotations hold no path",
        ),
        "object_size_estimation" => Some("the captions tell bearing and distance, no sizes"),
        "room_size_estimation" => Some("the captions tell of objects, not of walls"),
        _ => None,
    }
}

/// What the camera of a built-in room sees at the key frames of its video.
async fn built_in(file: &Path, footage: &Footage) -> Result<Vec<Caption>> {
    let scene = Scene::read(file)?;
    let mut captions = Vec::new();
    let mut before = None;
    for frame in footage.key_frames().await? {
        let Some(pose) = scene.camera.get(frame.index) else {
            let (path, poses) = (file.to_owned(), scene.camera.len());
            return Err(Error::SceneTooShort { path, index: frame.index, poses });
        };
        let action = before.map(|before| scene::action_text(before, pose));
        let view = scene::view_text(&scene.seen_from(pose));
        captions.push(told(frame.index, Some(frame.time_s), action, view));
        before = Some(pose);
    }
    Ok(captions)
}

/// What a camera on the tour of a real room's boxes would see.
fn real_room(boxes: &[meta_info::RoomBox], max_frames: usize) -> Vec<Caption> {
    let poses = tour::tour(boxes, max_frames);
    let before = std::iter::once(None).chain(poses.iter().map(Some));
    let frames = poses.iter().zip(before).enumerate();
    frames
        .map(|(index, (pose, before))| {
            let action = before.map(|before| scene::action_text(before, pose));
            told(index, None, action, tour::view_text(boxes, pose))
        })
        .collect()
}

/// A caption that no model was asked for.
fn told(index: usize, time_s: Option<f64>, action: Option<String>, view: String) -> Caption {
    Caption {
        index,
        time_s,
        action,
        view,
        prompt_tokens: None,
        completion_tokens: None,
        attempts: 0,
        elapsed_s: 0.0,
        fault: None,
        from_cache: false,
    }
}
