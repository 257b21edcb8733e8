//! Generates rooms: object layout and camera trajectory.

pub(crate) mod path;

use embodied_r_data::scene::{Pose, Scene, SceneObject};
use embodied_r_random::Rng;

use crate::catalogue::KINDS;
use crate::geometry::{floor_distance_m, wrap};

/// Frames per second of the rooms' videos.
pub(crate) const FPS: usize = 10;
const ROOM_HEIGHT_M: f64 = 2.6;
const CAMERA_HEIGHT_M: f64 = 1.2;
const FIELD_OF_VIEW_DEG: f64 = 90.0;
/// Viewing range, beyond any room's diagonal.
const RANGE_M: f64 = 15.0;
/// Minimum distance of the camera from walls and object centres.
const CLEARANCE_M: f64 = 1.0;
/// Minimum distance of an object's centre from the camera's start.
const NEAREST_OBJECT_M: f64 = 1.7;
/// Minimum distance between object centres.
const APART_M: f64 = 1.1;
/// Minimum distance of an object's centre from a wall.
const WALL_GAP_M: f64 = 0.5;

/// A room with its objects and the camera trajectory, generated from `keys`.
///
/// Names are drawn last, so that they are independent of the geometry.
pub fn draw(keys: &[u64]) -> Scene {
    let mut rng = Rng::new(keys);
    loop {
        let size = [decimetres(rng.between(6.0, 9.0)), decimetres(rng.between(6.0, 9.0))];
        let start =
            [size[0] / 2.0 + rng.between(-0.5, 0.5), size[1] / 2.0 + rng.between(-0.5, 0.5)];
        let Some(mut objects) = objects(&mut rng, size, start) else { continue };
        let camera = path(&mut rng, size, start, &objects);
        give_names(&mut rng, &mut objects);
        return Scene {
            scene_name: String::new(),
            video_id: String::new(),
            fps: FPS as f64,
            room_size_m: [size[0], size[1], ROOM_HEIGHT_M],
            horizontal_fov_deg: FIELD_OF_VIEW_DEG,
            max_range_m: RANGE_M,
            objects,
            camera,
        };
    }
}

/// The frame indices sampled at one frame per second, including the last frame.
pub(crate) fn stops(scene: &Scene) -> Vec<usize> {
    let last = scene.camera.len().saturating_sub(1);
    let step = (scene.fps as usize).max(1);
    let mut stops: Vec<usize> = (0..scene.camera.len()).step_by(step).collect();
    if stops.last() != Some(&last) {
        stops.push(last);
    }
    stops
}

/// Key frames by camera pose, an approximation of selection by overlap: of the frames sampled once
/// a second, those rotated by 45° or more or moved by 2 m or more since the last key frame, plus the
/// first and the last.
pub fn keyframes_by_pose(scene: &Scene) -> Vec<usize> {
    let stops = stops(scene);
    let mut kept: Vec<usize> = Vec::new();
    for &frame in &stops {
        let Some(&previous) = kept.last() else {
            kept.push(frame);
            continue;
        };
        let (from, to) = (&scene.camera[previous], &scene.camera[frame]);
        let turned = wrap(to.yaw_deg - from.yaw_deg).abs() >= 45.0;
        let moved = floor_distance_m(from.position_m, to.position_m) >= 2.0;
        if turned || moved || Some(&frame) == stops.last() {
            kept.push(frame);
        }
    }
    kept
}

/// Unnamed objects all around the start; `None` if two of them are too close.
fn objects(rng: &mut Rng, size: [f64; 2], start: [f64; 2]) -> Option<Vec<SceneObject>> {
    let count = 6 + rng.below(3);
    let first = rng.between(0.0, 360.0);
    let mut objects: Vec<SceneObject> = Vec::with_capacity(count);
    for slot in 0..count {
        let angle = first + 360.0 / count as f64 * (slot as f64 + rng.between(-0.27, 0.27));
        let (sin, cos) = angle.to_radians().sin_cos();
        let to_wall = |at: f64, along: f64, end: f64| match along {
            along if along > 1e-9 => (end - WALL_GAP_M - at) / along,
            along if along < -1e-9 => (WALL_GAP_M - at) / along,
            _ => f64::INFINITY,
        };
        let farthest = to_wall(start[0], cos, size[0]).min(to_wall(start[1], sin, size[1]));
        let distance = rng.between(NEAREST_OBJECT_M, farthest.max(NEAREST_OBJECT_M + 0.1));
        let width = (rng.between(0.4, 0.8) * 100.0).round() / 100.0;
        let centre = [start[0] + cos * distance, start[1] + sin * distance, 0.0];
        if objects.iter().any(|other| floor_distance_m(other.center_m, centre) < APART_M) {
            return None;
        }
        let size_m = [width, width, 0.0];
        objects.push(SceneObject { name: String::new(), center_m: centre, size_m });
    }
    Some(objects)
}

/// Names the objects in an order independent of their positions.
fn give_names(rng: &mut Rng, objects: &mut [SceneObject]) {
    rng.shuffle(objects);
    let kinds = rng.sample(&KINDS, objects.len());
    for (object, kind) in objects.iter_mut().zip(kinds) {
        object.name = kind.name.to_owned();
        object.center_m[2] = kind.height_m / 2.0;
        object.size_m[2] = kind.height_m;
    }
}

/// One second of camera movement.
#[derive(Debug, Clone, Copy)]
enum CameraMove {
    /// Degrees, left positive.
    Rotate(f64),
    /// A metre ahead.
    Forward,
}

/// The pose at every frame: 6 to 9 one-second moves, with the camera at rest at every full second.
fn path(rng: &mut Rng, size: [f64; 2], start: [f64; 2], objects: &[SceneObject]) -> Vec<Pose> {
    let seconds = 6 + rng.below(4);
    let mut left = rng.chance(0.5);
    let mut forwards = 0;
    let first_yaw = rng.between(-180.0, 180.0);
    let mut turned = 0.0;
    let mut at = Pose { position_m: [start[0], start[1], CAMERA_HEIGHT_M], yaw_deg: first_yaw };
    let mut camera = vec![at];
    for _ in 0..seconds {
        let way_is_clear = (1..FPS)
            .all(|frame| is_clear(&ahead(&at, frame as f64 / (FPS - 1) as f64), size, objects));
        let step = next_move(rng, &mut left, forwards < 2 && way_is_clear);
        let from = at;
        match step {
            // Sums of whole degrees keep every stop at an exact multiple from the start.
            CameraMove::Rotate(degrees) => turned += degrees,
            CameraMove::Forward => {
                forwards += 1;
                at = ahead(&from, 1.0);
            }
        }
        at.yaw_deg = wrap(first_yaw + turned);
        for frame in 1..=FPS {
            // The camera rests for the last tenth of each second.
            let part = (frame as f64 / (FPS - 1) as f64).min(1.0);
            camera.push(match step {
                _ if part >= 1.0 => at,
                CameraMove::Rotate(degrees) => {
                    Pose { yaw_deg: wrap(from.yaw_deg + degrees * part), ..from }
                }
                CameraMove::Forward => ahead(&from, part),
            });
        }
    }
    camera
}

fn next_move(rng: &mut Rng, left: &mut bool, may_go: bool) -> CameraMove {
    let go = rng.chance(0.15);
    let turn_the_other_way = rng.chance(0.25);
    let size = rng.unit();
    if go && may_go {
        return CameraMove::Forward;
    }
    *left ^= turn_the_other_way;
    let degrees = match size {
        size if size < 0.2 => 30.0,
        size if size < 0.65 => 60.0,
        _ => 90.0,
    };
    CameraMove::Rotate(if *left { degrees } else { -degrees })
}

fn ahead(pose: &Pose, metres: f64) -> Pose {
    let (sin, cos) = pose.yaw_deg.to_radians().sin_cos();
    let [x, y, z] = pose.position_m;
    Pose { position_m: [x + cos * metres, y + sin * metres, z], ..*pose }
}

fn is_clear(pose: &Pose, size: [f64; 2], objects: &[SceneObject]) -> bool {
    let inside = |at: f64, end: f64| (CLEARANCE_M..=end - CLEARANCE_M).contains(&at);
    inside(pose.position_m[0], size[0])
        && inside(pose.position_m[1], size[1])
        && objects
            .iter()
            .all(|object| floor_distance_m(object.center_m, pose.position_m) >= CLEARANCE_M)
}

fn decimetres(metres: f64) -> f64 {
    (metres * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::bearing_deg;

    #[test]
    fn objects_are_inside_the_room_apart_and_all_around_the_start() {
        for seed in 0..200 {
            let scene = draw(&[seed]);
            assert!((6..=8).contains(&scene.objects.len()));
            let mut bearings = Vec::new();
            for (i, object) in scene.objects.iter().enumerate() {
                for axis in 0..2 {
                    let half = object.size_m[axis] / 2.0;
                    assert!(object.center_m[axis] - half > 0.0);
                    assert!(object.center_m[axis] + half < scene.room_size_m[axis]);
                }
                for other in &scene.objects[i + 1..] {
                    assert_ne!(object.name, other.name);
                    assert!(floor_distance_m(object.center_m, other.center_m) >= APART_M);
                }
                bearings.push(bearing_deg(&scene.camera[0], object));
            }
            bearings.sort_by(f64::total_cmp);
            assert!(bearings.windows(2).all(|pair| pair[1] - pair[0] > 15.0), "{bearings:?}");
        }
    }

    #[test]
    fn the_camera_keeps_its_clearance_from_walls_and_objects() {
        for seed in 0..200 {
            let scene = draw(&[seed]);
            let size = [scene.room_size_m[0], scene.room_size_m[1]];
            for pose in &scene.camera {
                let eased = [size[0] + 1e-9, size[1] + 1e-9];
                assert!(is_clear(pose, eased, &scene.objects), "room {seed}: {pose:?}");
            }
        }
    }

    #[test]
    fn each_second_is_one_exact_move_that_ends_at_rest() {
        for seed in 0..200 {
            let scene = draw(&[seed]);
            assert!((61..=91).contains(&scene.camera.len()) && scene.camera.len() % 10 == 1);
            for second in 1..=scene.camera.len() / 10 {
                let (from, to) = (&scene.camera[second * 10 - 10], &scene.camera[second * 10]);
                let turn = wrap(to.yaw_deg - from.yaw_deg).abs();
                let way = floor_distance_m(from.position_m, to.position_m);
                let exact = |degrees: f64| (turn - degrees).abs() < 1e-9 && way == 0.0;
                let forward = turn < 1e-9 && (way - 1.0).abs() < 1e-9;
                assert!(forward || [30.0, 60.0, 90.0].into_iter().any(exact), "{turn} {way}");
                assert_eq!(scene.camera[second * 10 - 1], *to);
            }
        }
    }

    #[test]
    fn key_frames_are_half_a_view_apart_and_include_the_first_and_last() {
        let mut counts = [0; 16];
        for seed in 0..500 {
            let scene = draw(&[seed]);
            let kept = keyframes_by_pose(&scene);
            assert_eq!(kept[0], 0);
            assert_eq!(*kept.last().unwrap(), scene.camera.len() - 1);
            for pair in kept[..kept.len() - 1].windows(2) {
                let (from, to) = (&scene.camera[pair[0]], &scene.camera[pair[1]]);
                let turned = wrap(to.yaw_deg - from.yaw_deg).abs();
                let way = floor_distance_m(from.position_m, to.position_m);
                assert!(turned >= 45.0 - 1e-9 || way >= 2.0);
            }
            counts[kept.len()] += 1;
        }
        let usual: usize = counts[5..=9].iter().sum();
        assert!(usual > 450, "{counts:?}");
    }

    #[test]
    fn the_same_keys_give_the_same_room() {
        assert_eq!(draw(&[3, 4]), draw(&[3, 4]));
        assert_ne!(draw(&[3, 4]), draw(&[4, 3]));
    }
}
