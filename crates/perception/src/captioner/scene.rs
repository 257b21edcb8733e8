//! Ground-truth captions from 3-D annotations: an upper bound for perception, and a captioner that
//! needs no model.
//!
//! A built-in room has a scene file with the camera's path: its captions describe what is in view
//! at the key frames of the video. A VSI-Bench scene has boxes but no path: a synthetic [`tour`] is
//! computed from the boxes. Neither uses the question's text, so that captions cannot favor an
//! option; [`CaptionRequest`] does not contain the answer.
//!
//! Objects without boxes are not described: most of VSI-Bench's route questions name one.

mod meta_info;
mod tour;

use std::path::{Path, PathBuf};

use embodied_r_data::scene::{self, Scene};
use futures_util::future::{BoxFuture, FutureExt as _};
use serde_json::{Map, Value, json};

use super::{Caption, CaptionRequest, Captioner, VideoFrames};
use crate::error::{Error, Result};
use meta_info::RealRooms;

/// The setting that names the captioner, and its value.
pub(super) const BACKEND: (&str, &str) = ("backend", "scene");

/// Captions from annotations.
#[derive(Debug)]
pub struct SceneCaptioner {
    folder: PathBuf,
    real_rooms: RealRooms,
    max_frames: usize,
}

impl SceneCaptioner {
    /// Captions from the scene files in `folder`: `<video stem>.json` for built-in rooms, and
    /// VSI-Bench's `*meta_info*.json`. A tour has at most `max_frames` frames.
    ///
    /// # Errors
    /// The folder or a `meta_info` file cannot be read.
    pub fn open(folder: &Path, max_frames: usize) -> Result<Self> {
        let real_rooms = RealRooms::read(folder)?;
        Ok(Self { folder: folder.to_owned(), real_rooms, max_frames })
    }

    async fn captions(
        &self,
        request: CaptionRequest<'_>,
        video_frames: &VideoFrames,
    ) -> Result<Vec<Caption>> {
        match self.source(request)? {
            Source::BuiltIn(file) => built_in(&file, video_frames).await,
            Source::Boxes(_, boxes) => Ok(real_room(boxes, self.max_frames)),
        }
    }

    /// The annotations of a question's video.
    fn source<'a>(&'a self, request: CaptionRequest<'a>) -> Result<Source<'a>> {
        let file = request.video_stem.map(|stem| self.folder.join(format!("{stem}.json")));
        if let Some(file) = file.filter(|file| file.is_file()) {
            return Ok(Source::BuiltIn(file));
        }
        let mut names = request.scene_name.into_iter().chain(request.video_stem);
        let boxes = names.find_map(|name| self.real_rooms.get(name));
        let (name, boxes) = boxes.ok_or_else(|| Error::SceneNotFound {
            scene: request.scene_name.or(request.video_stem).unwrap_or("without name").to_owned(),
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
    Boxes(&'a str, &'a [meta_info::ObjectBox]),
}

impl Captioner for SceneCaptioner {
    fn settings(&self) -> Map<String, Value> {
        Map::from_iter([(BACKEND.0.to_owned(), json!(BACKEND.1))])
    }

    fn check(&self, request: CaptionRequest<'_>) -> Result<()> {
        let Source::Boxes(name, _) = self.source(request)? else { return Ok(()) };
        match request.category.and_then(|category| Some((category, unsupported_reason(category)?)))
        {
            Some((category, reason)) => {
                let (scene, category) = (name.to_owned(), category.to_owned());
                Err(Error::UnsupportedCategory { scene, category, reason })
            }
            None => Ok(()),
        }
    }

    fn caption<'a>(
        &'a self,
        request: CaptionRequest<'a>,
        video_frames: &'a VideoFrames,
    ) -> BoxFuture<'a, Result<Vec<Caption>>> {
        self.captions(request, video_frames).boxed()
    }
}

/// Why captions from boxes, with bearing and distance but no camera path, cannot support a category of
/// VSI-Bench; `None` if they can.
fn unsupported_reason(category: &str) -> Option<&'static str> {
    match category {
        "obj_appearance_order" => {
            Some("it requires the order along the camera's path, which the annotations lack")
        }
        "object_size_estimation" => Some("the captions give bearing and distance, no sizes"),
        "room_size_estimation" => Some("the captions describe objects, not walls"),
        _ => None,
    }
}

/// Captions of a built-in room, from the camera poses of the video's key frames.
async fn built_in(file: &Path, video_frames: &VideoFrames) -> Result<Vec<Caption>> {
    let scene = Scene::read(file)?;
    let mut captions = Vec::new();
    let mut previous = None;
    for frame in video_frames.key_frames().await? {
        let Some(pose) = scene.camera.get(frame.index) else {
            let (path, poses) = (file.to_owned(), scene.camera.len());
            return Err(Error::SceneTooShort { path, index: frame.index, poses });
        };
        let action = previous.map(|previous| scene::action_text(previous, pose));
        let view = scene::view_text(&scene.visible_from(pose));
        captions.push(caption(frame.index, Some(frame.time_s), action, view));
        previous = Some(pose);
    }
    Ok(captions)
}

/// Captions of a real room, from a synthetic tour of its boxes.
fn real_room(boxes: &[meta_info::ObjectBox], max_frames: usize) -> Vec<Caption> {
    let poses = tour::tour(boxes, max_frames);
    let previous = std::iter::once(None).chain(poses.iter().map(Some));
    let frames = poses.iter().zip(previous).enumerate();
    frames
        .map(|(index, (pose, previous))| {
            let action = previous.map(|previous| scene::action_text(previous, pose));
            caption(index, None, action, tour::view_text(boxes, pose))
        })
        .collect()
}

/// A caption made without a model.
fn caption(index: usize, time_s: Option<f64>, action: Option<String>, view: String) -> Caption {
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
