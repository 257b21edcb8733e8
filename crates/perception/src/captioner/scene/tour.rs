//! A synthetic camera path through a real room, computed from object boxes.
//!
//! Viewpoints and headings come from the boxes' geometry alone, never from a question: the camera
//! looks around near the center, then visits free points in farthest-point order. All points lie on a
//! one-metre grid and all headings along its axes, so that the captions' rounded movements are exact.
//! The camera may move over furniture, and occlusion is ignored.

use embodied_r_data::scene::Pose;

use super::meta_info::ObjectBox;

/// Horizontal field of view: four headings cover 360°.
const FIELD_OF_VIEW_DEG: f64 = 90.0;
/// Visible range along the floor, in metres.
const RANGE_M: f64 = 8.0;
/// Height of the camera above the lowest point of any box, in metres.
const EYE_M: f64 = 1.5;
/// Clearance of a viewpoint on each side, in metres.
const CLEARANCE_M: f64 = 0.3;
/// Boxes entirely below or above these heights are no obstacles, in metres.
const OBSTACLE_HEIGHTS_M: [f64; 2] = [0.15, 1.6];
/// Minimum distance between viewpoints, from the third on, in metres.
const SPACING_M: f64 = 2.0;
/// Maximum distance from the center, in metres; bounds the work on a broken file.
const MAX_REACH_M: f64 = 50.0;
/// Resolution of bearings, in degrees.
const BEARING_STEP_DEG: f64 = 5.0;

/// A point of the one-metre grid around the center of the boxes.
type GridPoint = (i32, i32);

/// The poses of a tour of at most `max_frames`; the same boxes give the same tour.
pub(super) fn tour(boxes: &[ObjectBox], max_frames: usize) -> Vec<Pose> {
    let floor = Floor::new(boxes);
    let free = floor.free_points();
    let mut path = CameraPath::new(nearest(&free, (0, 0)));
    let mut left = viewpoints(&free, path.point);
    while let Some(next) = next_viewpoint(&left, path.point) {
        let mut extended = path.clone();
        let corner = (next.0, path.point.1);
        // Prefer a free corner.
        match free.contains(&corner) {
            true => extended.go([corner, next]),
            false => extended.go([(path.point.0, next.1), next]),
        }
        extended.look_around();
        if extended.frames.len() > max_frames {
            break;
        }
        path = extended;
        left.retain(|&viewpoint| viewpoint != next);
    }
    let frames = path.frames.into_iter().take(max_frames);
    frames.map(|(point, quarter)| floor.pose(point, quarter)).collect()
}

/// The view from a pose, from left to right: `chair left 30, 1.4 m; lamp ahead, 2.0 m`, or
/// `nothing`. Bearing and distance are those of the object's center, projected onto the floor.
pub(super) fn view_text(boxes: &[ObjectBox], pose: &Pose) -> String {
    let mut visible: Vec<(f64, f64, &str)> = boxes
        .iter()
        .map(|ObjectBox { name, centroid, .. }| {
            let [dx, dy] = [0, 1].map(|axis| centroid[axis] - pose.position_m[axis]);
            let angle = dy.atan2(dx).to_degrees() - pose.yaw_deg;
            // Into [-180, 180).
            let bearing = (angle + 180.0).rem_euclid(360.0) - 180.0;
            (bearing, dx.hypot(dy), name.as_str())
        })
        .filter(|&(bearing, distance, _)| {
            bearing.abs() <= FIELD_OF_VIEW_DEG / 2.0 && distance <= RANGE_M
        })
        .collect();
    visible.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.total_cmp(&b.1)).then(a.2.cmp(b.2)));
    if visible.is_empty() {
        return "nothing".to_owned();
    }
    let described = visible.iter().map(|&(bearing, distance, name)| {
        let rounded = (bearing / BEARING_STEP_DEG).round() * BEARING_STEP_DEG;
        let bearing = match rounded {
            0.0 => "ahead".to_owned(),
            left if left > 0.0 => format!("left {left}"),
            right => format!("right {}", -right),
        };
        format!("{name} {bearing}, {distance:.1} m")
    });
    described.collect::<Vec<_>>().join("; ")
}

/// The floor under the boxes.
struct Floor<'a> {
    obstacles: Vec<&'a ObjectBox>,
    center: [f64; 2],
    /// Half of the boxes' extent along x and y, in whole metres.
    reach: [i32; 2],
    eye_m: f64,
}

impl<'a> Floor<'a> {
    fn new(boxes: &'a [ObjectBox]) -> Self {
        let low = |axis: usize| boxes.iter().map(|b| b.min[axis]).reduce(f64::min).unwrap_or(0.0);
        let high = |axis: usize| boxes.iter().map(|b| b.max[axis]).reduce(f64::max).unwrap_or(0.0);
        let ground = low(2);
        let [from, to] = OBSTACLE_HEIGHTS_M.map(|height| ground + height);
        Self {
            obstacles: boxes.iter().filter(|b| b.max[2] > from && b.min[2] < to).collect(),
            center: [0, 1].map(|axis| (low(axis) + high(axis)) / 2.0),
            reach: [0, 1].map(|axis| ((high(axis) - low(axis)) / 2.0).min(MAX_REACH_M) as i32),
            eye_m: ground + EYE_M,
        }
    }

    /// The unobstructed points, in order. If there is none within the boxes' extent, those just outside:
    /// two metres beyond it is always free.
    fn free_points(&self) -> Vec<GridPoint> {
        let within = |beyond: i32| {
            let [x, y] = self.reach.map(|reach| reach + beyond);
            let points = (-x..=x).flat_map(move |i| (-y..=y).map(move |j| (i, j)));
            points.filter(|&point| self.is_free(point)).collect::<Vec<_>>()
        };
        (0..=2).map(within).find(|points| !points.is_empty()).unwrap_or_default()
    }

    fn is_free(&self, point: GridPoint) -> bool {
        let at = self.position(point);
        !self.obstacles.iter().any(|b| {
            (0..2).all(|axis| {
                at[axis] > b.min[axis] - CLEARANCE_M && at[axis] < b.max[axis] + CLEARANCE_M
            })
        })
    }

    fn position(&self, (x, y): GridPoint) -> [f64; 2] {
        [self.center[0] + f64::from(x), self.center[1] + f64::from(y)]
    }

    fn pose(&self, point: GridPoint, quarter: i32) -> Pose {
        let [x, y] = self.position(point);
        Pose { position_m: [x, y, self.eye_m], yaw_deg: f64::from(quarter) * 90.0 }
    }
}

/// The frames so far. Headings are quarter turns to the left from +x.
#[derive(Clone)]
struct CameraPath {
    frames: Vec<(GridPoint, i32)>,
    point: GridPoint,
    quarter: i32,
}

impl CameraPath {
    fn new(point: GridPoint) -> Self {
        let mut path = Self { frames: vec![(point, 0)], point, quarter: 0 };
        path.look_around();
        path
    }

    /// Three quarter turns, which complete a 360° view.
    fn look_around(&mut self) {
        for _ in 0..3 {
            self.turn_to((self.quarter + 1) % 4);
        }
    }

    /// Moves straight to one point after another, facing forward; one movement per frame.
    fn go(&mut self, points: [GridPoint; 2]) {
        for point in points.into_iter() {
            let quarter =
                match ((point.0 - self.point.0).signum(), (point.1 - self.point.1).signum()) {
                    (1, _) => 0,
                    (-1, _) => 2,
                    (_, 1) => 1,
                    (_, -1) => 3,
                    _ => continue,
                };
            if quarter != self.quarter {
                self.turn_to(quarter);
            }
            self.point = point;
            self.frames.push((point, quarter));
        }
    }

    fn turn_to(&mut self, quarter: i32) {
        self.quarter = quarter;
        self.frames.push((self.point, quarter));
    }
}

/// The viewpoints after `first`, each the farthest from its predecessors.
fn viewpoints(free: &[GridPoint], first: GridPoint) -> Vec<GridPoint> {
    let mut chosen = vec![first];
    loop {
        let gap = |point: GridPoint| chosen.iter().map(|&c| squared(c, point)).min().unwrap_or(0);
        // Ties go to the first, independently of the iterator.
        let farthest = free.iter().copied().rev().max_by_key(|&point| gap(point));
        let Some(point) = farthest.filter(|&point| gap(point) > 0) else { break };
        if chosen.len() > 1 && f64::from(gap(point)) < SPACING_M * SPACING_M {
            break;
        }
        chosen.push(point);
    }
    chosen.split_off(1)
}

/// The nearest remaining viewpoint, by Manhattan distance.
fn next_viewpoint(left: &[GridPoint], from: GridPoint) -> Option<GridPoint> {
    let steps = |point: &GridPoint| (point.0 - from.0).abs() + (point.1 - from.1).abs();
    left.iter().copied().min_by_key(steps)
}

/// The point of `free` nearest to `to`; `to` itself if there is none.
fn nearest(free: &[GridPoint], to: GridPoint) -> GridPoint {
    free.iter().copied().min_by_key(|&point| squared(point, to)).unwrap_or(to)
}

fn squared(a: GridPoint, b: GridPoint) -> i32 {
    (a.0 - b.0).pow(2) + (a.1 - b.1).pow(2)
}

#[cfg(test)]
mod tests {
    use embodied_r_data::scene::action_text;

    use super::*;

    /// A box of 0.4 m on the floor.
    fn stool(name: &str, x: f64, y: f64) -> ObjectBox {
        ObjectBox {
            name: name.into(),
            centroid: [x, y, 0.2],
            min: [x - 0.2, y - 0.2, 0.0],
            max: [x + 0.2, y + 0.2, 0.4],
        }
    }

    /// Stools in the corners of a room of 6 by 5 m, and one in its middle.
    fn room() -> Vec<ObjectBox> {
        vec![
            stool("a", 0.2, 0.2),
            stool("b", 5.8, 0.2),
            stool("c", 5.8, 4.8),
            stool("d", 0.2, 4.8),
            stool("e", 3.0, 2.5),
        ]
    }

    fn pose(x: f64, y: f64, yaw_deg: f64) -> Pose {
        Pose { position_m: [x, y, 1.5], yaw_deg }
    }

    #[test]
    fn a_view_lists_name_bearing_and_distance_from_left_to_right() {
        let boxes = [stool("lamp", 2.0, 0.0), stool("bed", 1.0, -1.0), stool("sofa", 1.0, 0.5)];
        let view = view_text(&boxes, &pose(0.0, 0.0, 0.0));
        assert_eq!(view, "sofa left 25, 1.1 m; lamp ahead, 2.0 m; bed right 45, 1.4 m");
    }

    #[test]
    fn objects_behind_or_out_of_range_are_not_visible() {
        let boxes = [stool("behind", -1.0, 0.0), stool("far", 8.1, 0.0)];
        assert_eq!(view_text(&boxes, &pose(0.0, 0.0, 0.0)), "nothing");
        assert_eq!(view_text(&boxes, &pose(0.0, 0.0, 180.0)), "behind ahead, 1.0 m");
    }

    #[test]
    fn no_viewpoint_is_inside_a_box() {
        let boxes = room();
        for pose in tour(&boxes, 32) {
            for b in &boxes {
                let inside =
                    (0..2).all(|axis| (b.min[axis]..b.max[axis]).contains(&pose.position_m[axis]));
                assert!(!inside, "{pose:?} is in {b:?}");
            }
        }
    }

    #[test]
    fn every_movement_is_one_turn_or_one_move_of_whole_metres() {
        let poses = tour(&room(), 32);
        for pair in poses.windows(2) {
            let text = action_text(&pair[0], &pair[1]);
            let [dx, dy] = [0, 1].map(|i| pair[1].position_m[i] - pair[0].position_m[i]);
            let expected =
                match (dx.hypot(dy), (pair[1].yaw_deg - pair[0].yaw_deg).rem_euclid(360.0)) {
                    (0.0, 270.0) => "rotate right 90".to_owned(),
                    (0.0, angle) => format!("rotate left {angle}"),
                    (distance, 0.0) => format!("move forward {} m", distance.round()),
                    other => panic!("{other:?} is two movements"),
                };
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn a_tour_sees_every_object() {
        let boxes = room();
        let views: String = tour(&boxes, 32).iter().map(|pose| view_text(&boxes, pose)).collect();
        for b in &boxes {
            assert!(views.contains(&format!("{} ", b.name)), "{}", b.name);
        }
    }

    #[test]
    fn a_tour_respects_its_frame_limit_and_ends_with_a_full_turn() {
        for max_frames in [4, 10, 20, 32] {
            let poses = tour(&room(), max_frames);
            assert!(poses.len() <= max_frames && poses.len() >= 4);
            let last = &poses[poses.len() - 4..];
            assert!(last.iter().all(|pose| pose.position_m == last[0].position_m));
        }
        assert_eq!(tour(&room(), 2).len(), 2);
    }

    #[test]
    fn a_room_full_of_one_box_is_seen_from_outside() {
        let bed = ObjectBox {
            name: "bed".into(),
            centroid: [0.0, 0.0, 0.3],
            min: [-1.2, -1.2, 0.0],
            max: [1.2, 1.2, 0.6],
        };
        let first = tour(std::slice::from_ref(&bed), 32)[0];
        assert!(first.position_m[0].abs() > 1.2 || first.position_m[1].abs() > 1.2, "{first:?}");
    }

    #[test]
    fn without_boxes_a_tour_sees_nothing() {
        let poses = tour(&[], 32);
        assert!(!poses.is_empty());
        assert_eq!(view_text(&[], &poses[0]), "nothing");
    }
}
