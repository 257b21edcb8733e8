//! A camera's way through a real room of which only the boxes are known.
//!
//! Standing points and headings come from the boxes' geometry alone, never from a question: the
//! camera looks all round near the middle, then walks to the free place that is farthest from where
//! it has been, and so on. All places lie on a lattice of whole metres and all headings along its
//! axes, so that the movements in words, which are rounded, are exact. It passes over furniture,
//! and objects do not hide one another.

use embodied_r_data::scene::Pose;

use super::meta_info::RoomBox;

/// Horizontal field of view: four headings cover all directions.
const FIELD_OF_VIEW_DEG: f64 = 90.0;
/// How far the camera sees on the floor, in metres.
const RANGE_M: f64 = 8.0;
/// Height of the camera above the lowest point of any box, in metres.
const EYE_M: f64 = 1.5;
/// Room that somebody who stands there needs on each side, in metres.
const CLEARANCE_M: f64 = 0.3;
/// Boxes that end below or begin above these heights do not stand in the way, in metres.
const IN_THE_WAY_M: [f64; 2] = [0.15, 1.6];
/// From the third on, standing points are at least so far from one another, in metres.
const SPACING_M: f64 = 2.0;
/// Farther from the middle nobody walks, in metres; it bounds the work that a broken file makes.
const LARGEST_REACH_M: f64 = 50.0;
/// Steps in which bearings are told, in degrees.
const BEARING_STEP_DEG: f64 = 5.0;

/// A place on the lattice of whole metres around the middle of the boxes.
type Place = (i32, i32);

/// The poses of a tour of at most `max_frames`; the same boxes give the same tour.
pub(super) fn tour(boxes: &[RoomBox], max_frames: usize) -> Vec<Pose> {
    let floor = Floor::new(boxes);
    let free = floor.free_places();
    let mut walk = Walk::new(nearest(&free, (0, 0)));
    let mut left = stands(&free, walk.place);
    while let Some(next) = next_stand(&left, walk.place) {
        let mut on = walk.clone();
        let corner = (next.0, walk.place.1);
        // Around the corner that is free, where one is.
        match free.contains(&corner) {
            true => on.go([corner, next]),
            false => on.go([(walk.place.0, next.1), next]),
        }
        on.look_round();
        if on.frames.len() > max_frames {
            break;
        }
        walk = on;
        left.retain(|&stand| stand != next);
    }
    let frames = walk.frames.into_iter().take(max_frames);
    frames.map(|(place, quarter)| floor.pose(place, quarter)).collect()
}

/// What is seen from a pose, from left to right: `chair left 30, 1.4 m; lamp ahead, 2.0 m`, or
/// `nothing`. Bearing and distance are those of the object's centre on the floor.
pub(super) fn view_text(boxes: &[RoomBox], pose: &Pose) -> String {
    let mut seen: Vec<(f64, f64, &str)> = boxes
        .iter()
        .map(|RoomBox { name, centroid, .. }| {
            let [dx, dy] = [0, 1].map(|axis| centroid[axis] - pose.position_m[axis]);
            let turn = dy.atan2(dx).to_degrees() - pose.yaw_deg;
            // Into [-180, 180).
            let bearing = (turn + 180.0).rem_euclid(360.0) - 180.0;
            (bearing, dx.hypot(dy), name.as_str())
        })
        .filter(|&(bearing, distance, _)| {
            bearing.abs() <= FIELD_OF_VIEW_DEG / 2.0 && distance <= RANGE_M
        })
        .collect();
    seen.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.total_cmp(&b.1)).then(a.2.cmp(b.2)));
    if seen.is_empty() {
        return "nothing".to_owned();
    }
    let told = seen.iter().map(|&(bearing, distance, name)| {
        let rounded = (bearing / BEARING_STEP_DEG).round() * BEARING_STEP_DEG;
        let bearing = match rounded {
            0.0 => "ahead".to_owned(),
            left if left > 0.0 => format!("left {left}"),
            right => format!("right {}", -right),
        };
        format!("{name} {bearing}, {distance:.1} m")
    });
    told.collect::<Vec<_>>().join("; ")
}

/// The floor under the boxes.
struct Floor<'a> {
    in_the_way: Vec<&'a RoomBox>,
    middle: [f64; 2],
    /// Whole metres from the middle to the last place within the boxes' extent, along x and y.
    reach: [i32; 2],
    eye_m: f64,
}

impl<'a> Floor<'a> {
    fn new(boxes: &'a [RoomBox]) -> Self {
        let low = |axis: usize| boxes.iter().map(|b| b.min[axis]).reduce(f64::min).unwrap_or(0.0);
        let high = |axis: usize| boxes.iter().map(|b| b.max[axis]).reduce(f64::max).unwrap_or(0.0);
        let ground = low(2);
        let [from, to] = IN_THE_WAY_M.map(|height| ground + height);
        Self {
            in_the_way: boxes.iter().filter(|b| b.max[2] > from && b.min[2] < to).collect(),
            middle: [0, 1].map(|axis| (low(axis) + high(axis)) / 2.0),
            reach: [0, 1].map(|axis| ((high(axis) - low(axis)) / 2.0).min(LARGEST_REACH_M) as i32),
            eye_m: ground + EYE_M,
        }
    }

    /// The places where one can stand, in order. Where there is none among the boxes, those just
    /// outside: two metres beyond the last box it is always free.
    fn free_places(&self) -> Vec<Place> {
        let within = |beyond: i32| {
            let [x, y] = self.reach.map(|reach| reach + beyond);
            let places = (-x..=x).flat_map(move |i| (-y..=y).map(move |j| (i, j)));
            places.filter(|&place| self.is_free(place)).collect::<Vec<_>>()
        };
        (0..=2).map(within).find(|places| !places.is_empty()).unwrap_or_default()
    }

    fn is_free(&self, place: Place) -> bool {
        let at = self.position(place);
        !self.in_the_way.iter().any(|b| {
            (0..2).all(|axis| {
                at[axis] > b.min[axis] - CLEARANCE_M && at[axis] < b.max[axis] + CLEARANCE_M
            })
        })
    }

    fn position(&self, (x, y): Place) -> [f64; 2] {
        [self.middle[0] + f64::from(x), self.middle[1] + f64::from(y)]
    }

    fn pose(&self, place: Place, quarter: i32) -> Pose {
        let [x, y] = self.position(place);
        Pose { position_m: [x, y, self.eye_m], yaw_deg: f64::from(quarter) * 90.0 }
    }
}

/// The frames so far. Headings are in quarter turns to the left from +x.
#[derive(Clone)]
struct Walk {
    frames: Vec<(Place, i32)>,
    place: Place,
    quarter: i32,
}

impl Walk {
    fn new(place: Place) -> Self {
        let mut walk = Self { frames: vec![(place, 0)], place, quarter: 0 };
        walk.look_round();
        walk
    }

    /// Three quarter turns, after which all directions have been seen.
    fn look_round(&mut self) {
        for _ in 0..3 {
            self.turn_to((self.quarter + 1) % 4);
        }
    }

    /// Goes straight to one place after another, facing forward; one movement a frame.
    fn go(&mut self, way: [Place; 2]) {
        for place in way.into_iter() {
            let quarter =
                match ((place.0 - self.place.0).signum(), (place.1 - self.place.1).signum()) {
                    (1, _) => 0,
                    (-1, _) => 2,
                    (_, 1) => 1,
                    (_, -1) => 3,
                    _ => continue,
                };
            if quarter != self.quarter {
                self.turn_to(quarter);
            }
            self.place = place;
            self.frames.push((place, quarter));
        }
    }

    fn turn_to(&mut self, quarter: i32) {
        self.quarter = quarter;
        self.frames.push((self.place, quarter));
    }
}

/// The standing points after `first`, each the farthest from those before it.
fn stands(free: &[Place], first: Place) -> Vec<Place> {
    let mut chosen = vec![first];
    loop {
        let gap = |place: Place| chosen.iter().map(|&c| squared(c, place)).min().unwrap_or(0);
        // The first of equals, so that the choice does not hang on the iterator.
        let farthest = free.iter().copied().rev().max_by_key(|&place| gap(place));
        let Some(place) = farthest.filter(|&place| gap(place) > 0) else { break };
        if chosen.len() > 1 && f64::from(gap(place)) < SPACING_M * SPACING_M {
            break;
        }
        chosen.push(place);
    }
    chosen.split_off(1)
}

/// The nearest of the stands that are left, by the way to walk.
fn next_stand(left: &[Place], from: Place) -> Option<Place> {
    let steps = |place: &Place| (place.0 - from.0).abs() + (place.1 - from.1).abs();
    left.iter().copied().min_by_key(steps)
}

/// The place of `free` that is nearest to `to`; `to` itself where there is none.
fn nearest(free: &[Place], to: Place) -> Place {
    free.iter().copied().min_by_key(|&place| squared(place, to)).unwrap_or(to)
}

fn squared(a: Place, b: Place) -> i32 {
    (a.0 - b.0).pow(2) + (a.1 - b.1).pow(2)
}

#[cfg(test)]
mod tests {
    use embodied_r_data::scene::action_text;

    use super::*;

    /// A box of 0.4 m on the floor.
    fn stool(name: &str, x: f64, y: f64) -> RoomBox {
        RoomBox {
            name: name.into(),
            centroid: [x, y, 0.2],
            min: [x - 0.2, y - 0.2, 0.0],
            max: [x + 0.2, y + 0.2, 0.4],
        }
    }

    /// Stools in the corners of a room of 6 by 5 m, and one in its middle.
    fn room() -> Vec<RoomBox> {
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
    fn a_view_tells_name_bearing_and_distance_from_left_to_right() {
        let boxes = [stool("lamp", 2.0, 0.0), stool("bed", 1.0, -1.0), stool("sofa", 1.0, 0.5)];
        let view = view_text(&boxes, &pose(0.0, 0.0, 0.0));
        assert_eq!(view, "sofa left 25, 1.1 m; lamp ahead, 2.0 m; bed right 45, 1.4 m");
    }

    #[test]
    fn what_is_behind_or_too_far_is_not_seen() {
        let boxes = [stool("behind", -1.0, 0.0), stool("far", 8.1, 0.0)];
        assert_eq!(view_text(&boxes, &pose(0.0, 0.0, 0.0)), "nothing");
        assert_eq!(view_text(&boxes, &pose(0.0, 0.0, 180.0)), "behind ahead, 1.0 m");
    }

    #[test]
    fn nobody_stands_in_a_box() {
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
    fn every_movement_is_one_turn_or_one_walk_of_whole_metres() {
        let poses = tour(&room(), 32);
        for pair in poses.windows(2) {
            let text = action_text(&pair[0], &pair[1]);
            let [dx, dy] = [0, 1].map(|i| pair[1].position_m[i] - pair[0].position_m[i]);
            let expected =
                match (dx.hypot(dy), (pair[1].yaw_deg - pair[0].yaw_deg).rem_euclid(360.0)) {
                    (0.0, 270.0) => "rotate right 90".to_owned(),
                    (0.0, turn) => format!("rotate left {turn}"),
                    (walk, 0.0) => format!("move forward {} m", walk.round()),
                    other => panic!("{other:?} is two movements"),
                };
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn a_walk_through_a_room_sees_every_object() {
        let boxes = room();
        let told: String = tour(&boxes, 32).iter().map(|pose| view_text(&boxes, pose)).collect();
        for b in &boxes {
            assert!(told.contains(&format!("{} ", b.name)), "{}", b.name);
        }
    }

    #[test]
    fn a_tour_keeps_to_its_frames_and_ends_at_a_whole_look_round() {
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
        let bed = RoomBox {
            name: "bed".into(),
            centroid: [0.0, 0.0, 0.3],
            min: [-1.2, -1.2, 0.0],
            max: [1.2, 1.2, 0.6],
        };
        let first = tour(std::slice::from_ref(&bed), 32)[0];
        assert!(first.position_m[0].abs() > 1.2 || first.position_m[1].abs() > 1.2, "{first:?}");
    }

    #[test]
    fn no_boxes_make_a_tour_of_nothing() {
        let poses = tour(&[], 32);
        assert!(!poses.is_empty());
        assert_eq!(view_text(&[], &poses[0]), "nothing");
    }
}
