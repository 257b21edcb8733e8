//! Angles and distances on the floor plan.

use embodied_r_data::scene::{Pose, SceneObject};

/// Wraps an angle to (-180, 180].
pub(crate) fn wrap(angle_deg: f64) -> f64 {
    let angle = angle_deg.rem_euclid(360.0);
    if angle > 180.0 { angle - 360.0 } else { angle }
}

/// Wraps an angle to (-180, 180].
pub fn wrap_whole(angle_deg: i32) -> i32 {
    let angle = angle_deg.rem_euclid(360);
    if angle > 180 { angle - 360 } else { angle }
}

/// The angle from the camera's heading to the object's centre, left positive.
pub(crate) fn bearing_deg(pose: &Pose, object: &SceneObject) -> f64 {
    let dx = object.center_m[0] - pose.position_m[0];
    let dy = object.center_m[1] - pose.position_m[1];
    wrap(dy.atan2(dx).to_degrees() - pose.yaw_deg)
}

/// Distance between two points on the floor.
pub(crate) fn floor_distance_m(a: [f64; 3], b: [f64; 3]) -> f64 {
    (a[0] - b[0]).hypot(a[1] - b[1])
}

/// Distance between the closest points of two axis-aligned boxes.
pub(crate) fn closest_distance_m(a: &SceneObject, b: &SceneObject) -> f64 {
    let gap = |axis: usize| {
        let apart = (a.center_m[axis] - b.center_m[axis]).abs();
        (apart - (a.size_m[axis] + b.size_m[axis]) / 2.0).max(0.0)
    };
    (gap(0).powi(2) + gap(1).powi(2) + gap(2).powi(2)).sqrt()
}

/// The angle at `stand` from the direction of `face` to that of `target`, left positive.
pub(crate) fn turn_at_deg(stand: &SceneObject, face: &SceneObject, target: &SceneObject) -> f64 {
    let towards = |to: &SceneObject| {
        let dx = to.center_m[0] - stand.center_m[0];
        let dy = to.center_m[1] - stand.center_m[1];
        dy.atan2(dx).to_degrees()
    };
    wrap(towards(target) - towards(face))
}

/// One of eight directions around the camera, each 45° wide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Octant(usize);

impl Octant {
    /// All, counterclockwise from straight ahead.
    pub const ALL: [Self; 8] =
        [Self(0), Self(1), Self(2), Self(3), Self(4), Self(5), Self(6), Self(7)];

    /// Name of the direction and of the action that leads there.
    const TEXTS: [(&'static str, &'static str); 8] = [
        ("ahead", "go straight"),
        ("ahead left", "turn slightly left"),
        ("left", "turn left"),
        ("behind left", "turn sharply left"),
        ("behind", "turn around"),
        ("behind right", "turn sharply right"),
        ("right", "turn right"),
        ("ahead right", "turn slightly right"),
    ];

    /// The width of an octant.
    pub(crate) const WIDTH_DEG: f64 = 45.0;

    /// The octant of a bearing.
    pub fn of(bearing_deg: f64) -> Self {
        Self((bearing_deg / Self::WIDTH_DEG).round().rem_euclid(Self::ALL.len() as f64) as usize)
    }

    /// Degrees from a bearing to the next border between octants.
    pub(crate) fn to_border_deg(bearing_deg: f64) -> f64 {
        let from_center = wrap(bearing_deg - Self::WIDTH_DEG * Self::of(bearing_deg).0 as f64);
        Self::WIDTH_DEG / 2.0 - from_center.abs()
    }

    /// The bearing of its middle.
    pub(crate) fn middle_deg(self) -> f64 {
        Self::WIDTH_DEG * self.0 as f64
    }

    /// The option of a landmark question.
    pub fn direction(self) -> &'static str {
        Self::TEXTS[self.0].0
    }

    /// The option of an action question: the action that leads towards this octant.
    pub fn action(self) -> &'static str {
        Self::TEXTS[self.0].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(x: f64, y: f64) -> SceneObject {
        SceneObject { name: "lamp".into(), center_m: [x, y, 0.5], size_m: [1.0, 1.0, 1.0] }
    }

    #[test]
    fn angles_are_wrapped_to_half_a_turn_either_way() {
        assert_eq!(wrap(190.0), -170.0);
        assert_eq!(wrap(-180.0), 180.0);
        assert_eq!(wrap_whole(-180), 180);
        assert_eq!(wrap_whole(540), 180);
        assert_eq!(wrap_whole(-250), 110);
    }

    #[test]
    fn bearings_are_positive_to_the_left() {
        let pose = Pose { position_m: [1.0, 1.0, 1.2], yaw_deg: 90.0 };
        assert!((bearing_deg(&pose, &object(0.0, 1.0)) - 90.0).abs() < 1e-9);
        assert!((bearing_deg(&pose, &object(2.0, 2.0)) + 45.0).abs() < 1e-9);
    }

    #[test]
    fn distances_are_measured_between_the_closest_points() {
        assert!((closest_distance_m(&object(0.0, 0.0), &object(4.0, 5.0)) - 5.0).abs() < 1e-9);
        assert_eq!(closest_distance_m(&object(0.0, 0.0), &object(0.5, 0.0)), 0.0);
    }

    #[test]
    fn a_turn_at_an_object_is_positive_to_the_left() {
        let turn = turn_at_deg(&object(0.0, 0.0), &object(1.0, 0.0), &object(1.0, 1.0));
        assert!((turn - 45.0).abs() < 1e-9);
    }

    #[test]
    fn octants_are_named_after_the_direction_in_their_middle() {
        for (bearing, direction, to_border) in [
            (0.0, "ahead", 22.5),
            (-20.0, "ahead", 2.5),
            (30.0, "ahead left", 7.5),
            (-90.0, "right", 22.5),
            (140.0, "behind left", 17.5),
            (180.0, "behind", 22.5),
            (-170.0, "behind", 12.5),
            (-130.0, "behind right", 17.5),
        ] {
            assert_eq!(Octant::of(bearing).direction(), direction, "{bearing}");
            assert!((Octant::to_border_deg(bearing) - to_border).abs() < 1e-9, "{bearing}");
        }
        let right = Octant::of(-90.0);
        assert_eq!(
            (right.action(), Octant::of(50.0).action()),
            ("turn right", "turn slightly left")
        );
    }
}
