//! Scene files: the objects of a built-in room and the camera's trajectory.
//!
//! Ground-truth captions are generated from them: the visible objects ([`Scene::visible_from`],
//! [`view_text`]) and the camera's movement ([`action_text`]). Axes: x and y on the floor, z up, in
//! metres. Angles: degrees, counter-clockwise from above, 0 along +x.

use std::path::Path;

use embodied_r_files::{read_text, write_atomic};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Rounding step of bearings and rotations in captions.
const ANGLE_STEP_DEG: f64 = 10.0;

/// A room, its objects, and the camera pose at each video frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scene {
    /// Name of the room; a scene is never in two splits.
    pub scene_name: String,
    /// File name of the video.
    pub video_id: String,
    /// Frames per second of the video.
    pub fps: f64,
    /// Extent of the room along x, y and z, in metres.
    pub room_size_m: [f64; 3],
    /// Horizontal field of view of the camera, in degrees.
    pub horizontal_fov_deg: f64,
    /// Viewing range of the camera, in metres on the floor.
    pub max_range_m: f64,
    /// The objects in the room.
    pub objects: Vec<SceneObject>,
    /// The camera pose at each video frame.
    pub camera: Vec<Pose>,
}

/// An object: an axis-aligned box with a name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SceneObject {
    /// Its name.
    pub name: String,
    /// Center of the box, in metres.
    pub center_m: [f64; 3],
    /// Extent of the box along x, y and z, in metres.
    pub size_m: [f64; 3],
}

/// A camera pose.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Pose {
    /// Position, in metres.
    pub position_m: [f64; 3],
    /// Heading: counter-clockwise positive, 0 along +x.
    pub yaw_deg: f64,
}

/// An object in view, with bearing and distance rounded as in captions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VisibleObject {
    /// Its name.
    pub name: String,
    /// Angle from the heading, left positive, rounded to 10 degrees.
    pub bearing_deg: i32,
    /// Distance on the floor, rounded to 1 m, at least 1.
    pub distance_m: u32,
}

impl Scene {
    /// Reads a scene file.
    ///
    /// # Errors
    /// The file cannot be read, is not the JSON of a scene, or has invalid values.
    pub fn read(path: &Path) -> Result<Self> {
        let text = read_text(path)?;
        let scene: Self = serde_json::from_str(&text)
            .map_err(|source| Error::Json { path: path.into(), source })?;
        scene.invalid_field().map_or(Ok(scene), |(field, expected)| {
            Err(Error::Scene { path: path.into(), field, expected })
        })
    }

    /// Writes a scene file atomically.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text =
            serde_json::to_vec(self).map_err(|source| Error::Json { path: path.into(), source })?;
        Ok(write_atomic(path, &text)?)
    }

    /// The first invalid field, and the expected value.
    fn invalid_field(&self) -> Option<(&'static str, &'static str)> {
        let positive = |value: f64| value.is_finite() && value > 0.0;
        if !positive(self.fps) {
            return Some(("fps", "a number above 0"));
        }
        if !positive(self.horizontal_fov_deg) || self.horizontal_fov_deg > 360.0 {
            return Some(("horizontal_fov_deg", "above 0 and at most 360"));
        }
        if !positive(self.max_range_m) {
            return Some(("max_range_m", "a number above 0"));
        }
        if self.camera.is_empty() {
            return Some(("camera", "one pose per video frame"));
        }
        None
    }

    /// The objects visible from `pose`, from left to right: those whose center is within the field
    /// of view and the range.
    ///
    /// Occlusion is ignored.
    pub fn visible_from(&self, pose: &Pose) -> Vec<VisibleObject> {
        let mut in_view: Vec<(f64, f64, &str)> = self
            .objects
            .iter()
            .filter_map(|object| {
                let [dx, dy] = on_floor(pose, object.center_m);
                let distance = dx.hypot(dy);
                let bearing = match distance {
                    0.0 => 0.0,
                    _ => wrapped(dy.atan2(dx).to_degrees() - pose.yaw_deg),
                };
                // Tolerance for rounding: an object exactly on the edge is in view.
                let edge = self.horizontal_fov_deg / 2.0 + 1e-9;
                let visible = bearing.abs() <= edge && distance <= self.max_range_m + 1e-9;
                visible.then_some((bearing, distance, object.name.as_str()))
            })
            .collect();
        in_view.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.total_cmp(&b.1)).then(a.2.cmp(b.2)));
        in_view
            .into_iter()
            .map(|(bearing, distance, name)| VisibleObject {
                name: name.to_owned(),
                bearing_deg: rounded_angle(bearing),
                distance_m: (distance.round() as u32).max(1),
            })
            .collect()
    }
}

/// The caption of a view: `chair left 30, 2 m; lamp ahead, 4 m; bed right 20, 1 m`, or `nothing`.
pub fn view_text(visible: &[VisibleObject]) -> String {
    if visible.is_empty() {
        return "nothing".to_owned();
    }
    let objects: Vec<String> = visible
        .iter()
        .map(|VisibleObject { name, bearing_deg, distance_m }| {
            let bearing = match bearing_deg {
                0 => "ahead".to_owned(),
                left if *left > 0 => format!("left {left}"),
                right => format!("right {}", right.unsigned_abs()),
            };
            format!("{name} {bearing}, {distance_m} m")
        })
        .collect();
    objects.join("; ")
}

/// The caption of a movement: `rotate left 60`, `move forward 2 m`, both joined by `and`, or `stay`.
///
/// The rotation is rounded to 10 degrees. The translation is projected on the dominant axis of
/// `from` and rounded to 1 m. Components that round to 0 and changes of height are omitted.
pub fn action_text(from: &Pose, to: &Pose) -> String {
    let turn = match rounded_angle(wrapped(to.yaw_deg - from.yaw_deg)) {
        0 => None,
        left if left > 0 => Some(format!("rotate left {left}")),
        right => Some(format!("rotate right {}", right.unsigned_abs())),
    };
    let [dx, dy] = on_floor(from, to.position_m);
    let (sin, cos) = from.yaw_deg.to_radians().sin_cos();
    let (forward, left) = (dx * cos + dy * sin, dy * cos - dx * sin);
    let (along, ahead, behind) = match forward.abs() >= left.abs() {
        true => (forward, "forward", "backward"),
        false => (left, "left", "right"),
    };
    let step = match along.round() as i64 {
        0 => None,
        metres if metres > 0 => Some(format!("move {ahead} {metres} m")),
        metres => Some(format!("move {behind} {} m", metres.unsigned_abs())),
    };
    match (turn, step) {
        (Some(turn), Some(step)) => format!("{turn} and {step}"),
        (Some(only), None) | (None, Some(only)) => only,
        (None, None) => "stay".to_owned(),
    }
}

/// The vector from the camera to a point, along x and y.
fn on_floor(pose: &Pose, point_m: [f64; 3]) -> [f64; 2] {
    [point_m[0] - pose.position_m[0], point_m[1] - pose.position_m[1]]
}

/// Wraps an angle to (-180, 180].
fn wrapped(angle_deg: f64) -> f64 {
    let angle = angle_deg.rem_euclid(360.0);
    if angle > 180.0 { angle - 360.0 } else { angle }
}

/// Rounds an angle to the step and wraps it to (-180, 180].
fn rounded_angle(angle_deg: f64) -> i32 {
    let steps = (angle_deg / ANGLE_STEP_DEG).round() * ANGLE_STEP_DEG;
    wrapped(steps) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pose(x: f64, y: f64, yaw_deg: f64) -> Pose {
        Pose { position_m: [x, y, 1.5], yaw_deg }
    }

    fn scene(objects: &[(&str, f64, f64)]) -> Scene {
        Scene {
            scene_name: "room".into(),
            video_id: "room.mp4".into(),
            fps: 10.0,
            room_size_m: [6.0, 6.0, 3.0],
            horizontal_fov_deg: 90.0,
            max_range_m: 5.0,
            objects: objects
                .iter()
                .map(|&(name, x, y)| SceneObject {
                    name: name.into(),
                    center_m: [x, y, 0.5],
                    size_m: [0.5, 0.5, 1.0],
                })
                .collect(),
            camera: vec![pose(0.0, 0.0, 0.0)],
        }
    }

    #[test]
    fn a_view_is_described_from_left_to_right() {
        let room = scene(&[("bed", 1.0, -0.4), ("lamp", 4.0, 0.0), ("chair", 1.7, 1.0)]);
        let seen = room.visible_from(&pose(0.0, 0.0, 0.0));
        assert_eq!(view_text(&seen), "chair left 30, 2 m; lamp ahead, 4 m; bed right 20, 1 m");
    }

    #[test]
    fn an_empty_view_is_described_as_nothing() {
        assert_eq!(view_text(&scene(&[]).visible_from(&pose(0.0, 0.0, 0.0))), "nothing");
    }

    #[test]
    fn objects_outside_the_field_of_view_or_the_range_are_not_visible() {
        let room = scene(&[
            ("edge", 1.0, 1.0),
            ("beyond the edge", 1.0, 1.1),
            ("behind", -2.0, 0.0),
            ("at the range", 5.0, 0.0),
            ("beyond the range", 5.1, 0.0),
        ]);
        let seen = room.visible_from(&pose(0.0, 0.0, 0.0));
        let names: Vec<_> = seen.iter().map(|seen| seen.name.as_str()).collect();
        assert_eq!(names, ["edge", "at the range"]);
    }

    #[test]
    fn bearings_turn_with_the_camera() {
        let room = scene(&[("lamp", 0.0, 3.0)]);
        let text = |yaw| view_text(&room.visible_from(&pose(0.0, 0.0, yaw)));
        assert_eq!(text(90.0), "lamp ahead, 3 m");
        assert_eq!(text(70.0), "lamp left 20, 3 m");
        assert_eq!(text(120.0), "lamp right 30, 3 m");
        assert_eq!(text(90.0 - 720.0), "lamp ahead, 3 m");
    }

    #[test]
    fn a_distance_is_at_least_one_metre() {
        let room = scene(&[("lamp", 0.2, 0.0), ("rug", 0.0, 0.0)]);
        let seen = room.visible_from(&pose(0.0, 0.0, 0.0));
        assert_eq!(view_text(&seen), "rug ahead, 1 m; lamp ahead, 1 m");
    }

    #[test]
    fn rotations_are_rounded_to_ten_degrees_and_take_the_shorter_way() {
        let text = |from, to| action_text(&pose(0.0, 0.0, from), &pose(0.0, 0.0, to));
        assert_eq!(text(0.0, 57.0), "rotate left 60");
        assert_eq!(text(10.0, -18.0), "rotate right 30");
        assert_eq!(text(350.0, 20.0), "rotate left 30");
        assert_eq!(text(0.0, 180.0), "rotate left 180");
        assert_eq!(text(0.0, -178.0), "rotate left 180");
        assert_eq!(text(0.0, 4.0), "stay");
    }

    #[test]
    fn moves_are_described_in_the_frame_of_the_previous_pose() {
        let text = |yaw, x, y| action_text(&pose(1.0, 1.0, yaw), &pose(1.0 + x, 1.0 + y, yaw));
        assert_eq!(text(0.0, 2.1, 0.3), "move forward 2 m");
        assert_eq!(text(180.0, 2.1, 0.3), "move backward 2 m");
        assert_eq!(text(90.0, 2.1, 0.3), "move right 2 m");
        assert_eq!(text(-90.0, 2.1, 0.3), "move left 2 m");
        assert_eq!(text(0.0, 0.4, 0.4), "stay");
    }

    #[test]
    fn a_rotation_and_a_move_are_joined() {
        let (from, to) = (pose(0.0, 0.0, 0.0), pose(1.0, 0.0, 60.0));
        assert_eq!(action_text(&from, &to), "rotate left 60 and move forward 1 m");
    }

    #[test]
    fn a_scene_file_round_trips() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("room.json");
        let room = scene(&[("lamp", 0.1, 1.0 / 3.0)]);
        room.write(&path).unwrap();
        assert_eq!(Scene::read(&path).unwrap(), room);
    }

    #[test]
    fn invalid_values_are_reported_with_their_field() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("room.json");
        Scene { fps: 0.0, ..scene(&[]) }.write(&path).unwrap();
        let error = Scene::read(&path).unwrap_err().to_string();
        assert!(error.contains("room.json") && error.contains("`fps`"), "{error}");
    }
}
