//! Short camera paths for questions about a few frames, drawn before the room is furnished.
//!
//! The text of a prompt, the actions, is thus independent of the room, and so of the answer.

use embodied_r_data::scene::{Pose, Scene, SceneObject};
use embodied_r_random::Rng;

use super::{
    CAMERA_HEIGHT_M, CameraMove, FIELD_OF_VIEW_DEG, RANGE_M, ROOM_HEIGHT_M, ahead, decimetres,
    give_names, is_clear, next_move, objects,
};
use crate::geometry::{Octant, bearing_deg, floor_distance_m, wrap};

/// Frames of a path.
pub const FRAMES: usize = 4;

/// Degrees from the edge of the view within which no object's centre is: it is clearly visible or not at all.
const EDGE_DEG: f64 = 3.0;

/// Minimum angle between two objects in a view, so that neither hides the other.
const APART_DEG: f64 = 12.0;

/// A camera path in a room that is not furnished yet.
#[derive(Debug, Clone)]
pub(crate) struct Path {
    size_m: [f64; 2],
    poses: Vec<Pose>,
}

impl Path {
    /// A random path of [`FRAMES`] poses with one move between two.
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let size_m = [decimetres(rng.between(6.0, 9.0)), decimetres(rng.between(6.0, 9.0))];
        let start = size_m.map(|size| size / 2.0 + rng.between(-0.5, 0.5));
        let first_yaw = rng.between(-180.0, 180.0);
        let (mut left, mut turned, mut has_moved) = (rng.chance(0.5), 0.0, false);
        let mut at =
            Pose { position_m: [start[0], start[1], CAMERA_HEIGHT_M], yaw_deg: wrap(first_yaw) };
        let mut poses = vec![at];
        while poses.len() < FRAMES {
            let is_inside = is_clear(&ahead(&at, 1.0), size_m, &[]);
            match next_move(rng, &mut left, !has_moved && is_inside) {
                CameraMove::Rotate(degrees) => turned += degrees,
                CameraMove::Forward => {
                    has_moved = true;
                    at = ahead(&at, 1.0);
                }
            }
            at.yaw_deg = wrap(first_yaw + turned);
            poses.push(at);
        }
        Self { size_m, poses }
    }

    /// The octants around the last pose that some view shows entirely, up to their borders.
    pub(crate) fn seen_octants(&self) -> Vec<Octant> {
        let last = self.poses.last().map_or(0.0, |pose| pose.yaw_deg);
        let most = (FIELD_OF_VIEW_DEG - Octant::WIDTH_DEG) / 2.0 + 7.5;
        let is_seen = |octant: &Octant| {
            let direction = last + octant.middle_deg();
            self.poses.iter().any(|pose| wrap(direction - pose.yaw_deg).abs() <= most + 1e-9)
        };
        Octant::ALL.into_iter().filter(is_seen).collect()
    }

    /// Whether any two views are at least this far apart.
    pub(crate) fn headings_differ(&self, least_deg: f64) -> bool {
        self.poses.iter().enumerate().all(|(index, pose)| {
            let later = &self.poses[index + 1..];
            later.iter().all(|other| wrap(other.yaw_deg - pose.yaw_deg).abs() >= least_deg)
        })
    }

    /// The room with objects all around the start; `None` if they are in the camera's way, or if a view shows one half or
    /// one behind another. The camera's poses are those of the path, one per second.
    pub(crate) fn furnish(&self, rng: &mut Rng) -> Option<Scene> {
        let [x, y, _] = self.poses.first()?.position_m;
        let mut objects = objects(rng, self.size_m, [x, y])?;
        let clear = |pose: &Pose| is_clear(pose, self.size_m, &objects) && is_plain(pose, &objects);
        if !self.poses.iter().all(clear) {
            return None;
        }
        give_names(rng, &mut objects);
        let [width, depth] = self.size_m;
        Some(Scene {
            scene_name: String::new(),
            video_id: String::new(),
            fps: 1.0,
            room_size_m: [width, depth, ROOM_HEIGHT_M],
            horizontal_fov_deg: FIELD_OF_VIEW_DEG,
            max_range_m: RANGE_M,
            objects,
            camera: self.poses.clone(),
        })
    }
}

/// Whether every object in view is whole and beside the others.
fn is_plain(pose: &Pose, objects: &[SceneObject]) -> bool {
    let half = FIELD_OF_VIEW_DEG / 2.0;
    let mut seen: Vec<f64> = Vec::new();
    for object in objects {
        let bearing = bearing_deg(pose, object);
        let radius = object.size_m[0].hypot(object.size_m[1]) / 2.0;
        let away = floor_distance_m(object.center_m, pose.position_m).max(radius);
        let outside = half + (radius / away).asin().to_degrees();
        match bearing.abs() {
            at if at <= half - EDGE_DEG => seen.push(bearing),
            at if at >= outside => {}
            _ => return false,
        }
    }
    seen.sort_by(f64::total_cmp);
    seen.windows(2).all(|pair| pair[1] - pair[0] >= APART_DEG)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn furnished(path: &Path, seed: u64) -> Scene {
        (0..).find_map(|attempt| path.furnish(&mut Rng::new(&[seed, attempt]))).unwrap()
    }

    #[test]
    fn objects_in_view_are_whole_and_apart() {
        for seed in 0..60 {
            let path = Path::draw(&mut Rng::new(&[seed]));
            let scene = furnished(&path, seed);
            assert_eq!(scene.camera, path.poses);
            for pose in &scene.camera {
                let bearings: Vec<i32> =
                    scene.visible_from(pose).iter().map(|seen| seen.bearing_deg).collect();
                assert!(bearings.iter().all(|bearing| bearing.abs() <= 40), "{bearings:?}");
                assert!(bearings.windows(2).all(|pair| pair[0] - pair[1] >= 10), "{bearings:?}");
            }
        }
    }

    #[test]
    fn an_object_in_a_seen_octant_is_visible_in_some_frame_of_a_path_of_rotations() {
        let mut checked = 0;
        for seed in 0..60 {
            let path = Path::draw(&mut Rng::new(&[seed]));
            if path.poses.iter().any(|pose| pose.position_m != path.poses[0].position_m) {
                continue;
            }
            let scene = furnished(&path, seed);
            let (octants, last) = (path.seen_octants(), scene.camera.last().unwrap());
            for object in &scene.objects {
                let bearing = bearing_deg(last, object);
                let is_central = Octant::to_border_deg(bearing) >= 7.5;
                if is_central && octants.contains(&Octant::of(bearing)) {
                    checked += 1;
                    let seen = |pose: &Pose| bearing_deg(pose, object).abs() <= 45.0;
                    assert!(scene.camera.iter().any(seen), "{bearing}");
                }
            }
        }
        assert!(checked > 60, "{checked}");
    }

    #[test]
    fn one_path_can_be_furnished_in_many_ways() {
        let path = Path::draw(&mut Rng::new(&[1]));
        let (a, b) = (furnished(&path, 1), furnished(&path, 2));
        assert_eq!((&a.camera, a.room_size_m), (&b.camera, b.room_size_m));
        assert_ne!(a.objects, b.objects);
    }
}
