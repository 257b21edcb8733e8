//! Joint paths between waypoints, and their speed.

use embodied_r_random::Rng;

use super::chain::{JOINTS, Joints, part_way, solve};
use super::script::Way;
use super::space::Transform;
use super::{DT_S, STOPPED_RAD_S};

/// Pieces of a joint path.
const PIECES: usize = 14;
/// Frames of the shortest movement: a stop and the next one are at least five frames apart, so that the rule of ARM
/// counts both.
const FEWEST_FRAMES: usize = 6;
/// Frames of the longest movement, unless it would be too fast.
const MOST_FRAMES: usize = 28;
/// Fastest joint speed in rad/s.
const FASTEST_RAD_S: f64 = 1.6;
/// Least speed of the fastest joint between the start and the end of a movement, in rad/s.
const LEAST_RAD_S: f64 = 1.35 * STOPPED_RAD_S;

/// A joint path from standstill to standstill.
pub(crate) struct Movement {
    knots: Vec<Joints>,
    frames: usize,
    /// Frames of acceleration and deceleration.
    ramps: [f64; 2],
}

impl Movement {
    /// A movement from the joint angles `start` to a pose, with about this speed of the fastest joint; `None` if it is out
    /// of reach.
    pub(crate) fn plan(
        start: &Joints,
        from: &Transform,
        to: &Transform,
        way: Way,
        speed_rad_s: f64,
        rng: &mut Rng,
    ) -> Option<Self> {
        let detour_m = match way {
            Way::Free => [0.025, 0.025, 0.03],
            Way::Straight => [0.002, 0.002, 0.0],
        };
        let detour = detour_m.map(|most| rng.between(-most, most));
        let turn = to.rotation.then_after(&from.rotation.inverse()).vector();
        let mut knots = vec![*start];
        let mut joints = *start;
        for piece in 1..=PIECES {
            let part = piece as f64 / PIECES as f64;
            let mut pose = part_way(from, to, turn, part);
            if piece < PIECES {
                let aside = (std::f64::consts::PI * part).sin().powi(2);
                pose.position.iter_mut().zip(detour).for_each(|(at, most)| *at += aside * most);
            }
            joints = solve(&joints, &pose)?;
            knots.push(joints);
        }
        let ramps = [rng.between(1.05, 1.5), rng.between(1.05, 1.5)];
        Some(Self::timed(knots, speed_rad_s * rng.between(0.85, 1.15), ramps))
    }

    /// Chooses the number of frames: about the wanted speed, fast enough never to seem at rest, and not too fast.
    fn timed(knots: Vec<Joints>, speed_rad_s: f64, ramps: [f64; 2]) -> Self {
        let length = |joint: usize| -> f64 {
            knots.windows(2).map(|pair| (pair[1][joint] - pair[0][joint]).abs()).sum()
        };
        let longest = (0..JOINTS).map(length).fold(0.0, f64::max);
        let wanted = (longest / (speed_rad_s * DT_S)).round() as usize + 2;
        let mut movement = Self { knots, frames: wanted.clamp(FEWEST_FRAMES, MOST_FRAMES), ramps };
        let is_slow = |it: &Self| (1..it.frames).any(|frame| it.fastest(frame) < LEAST_RAD_S);
        while movement.frames > FEWEST_FRAMES && is_slow(&movement) {
            movement.frames -= 1;
        }
        while (1..movement.frames).any(|frame| movement.fastest(frame) > FASTEST_RAD_S) {
            movement.frames += 1;
        }
        movement
    }

    /// The number of frames after the first.
    pub(crate) fn frames(&self) -> usize {
        self.frames
    }

    /// The joint angles in radians and velocities in radians per second, at a time in frames.
    pub(crate) fn at(&self, frame: f64) -> (Joints, Joints) {
        let (part, speed) = self.progress(frame);
        let along = part.clamp(0.0, 1.0) * PIECES as f64;
        let piece = (along as usize).min(PIECES - 1);
        let t = along - piece as f64;
        let (a, b) = (self.knots[piece], self.knots[piece + 1]);
        let (slope_a, slope_b) = (self.slope(piece), self.slope(piece + 1));
        let per_second = speed / DT_S * PIECES as f64;
        let mut angles = [0.0; JOINTS];
        let mut velocities = [0.0; JOINTS];
        for joint in 0..JOINTS {
            // A cubic Hermite spline.
            let rise = b[joint] - a[joint];
            let (m, n) = (slope_a[joint], slope_b[joint]);
            let (c2, c3) = (3.0 * rise - 2.0 * m - n, m + n - 2.0 * rise);
            angles[joint] = a[joint] + t * (m + t * (c2 + t * c3));
            velocities[joint] = (m + t * (2.0 * c2 + t * 3.0 * c3)) * per_second;
        }
        (angles, velocities)
    }

    /// The derivative of the path at a knot, per piece: half the difference of its neighbours.
    fn slope(&self, knot: usize) -> Joints {
        let knots = &self.knots;
        let mut slope = [0.0; JOINTS];
        for (joint, value) in slope.iter_mut().enumerate() {
            let q = |at: usize| knots[at][joint];
            *value = match knot {
                0 => (4.0 * q(1) - 3.0 * q(0) - q(2)) / 2.0,
                PIECES => (3.0 * q(PIECES) - 4.0 * q(PIECES - 1) + q(PIECES - 2)) / 2.0,
                _ => (q(knot + 1) - q(knot - 1)) / 2.0,
            };
        }
        slope
    }

    /// The part of the path at a time in frames, and its derivative per frame: a trapezoid of speed.
    fn progress(&self, frame: f64) -> (f64, f64) {
        let [up, down] = self.ramps;
        let frames = self.frames as f64;
        let cruise = 1.0 / (frames - (up + down) / 2.0);
        let left = frames - frame;
        match frame {
            _ if frame <= 0.0 => (0.0, 0.0),
            _ if left <= 0.0 => (1.0, 0.0),
            _ if frame < up => (cruise * frame * frame / (2.0 * up), cruise * frame / up),
            _ if left < down => (1.0 - cruise * left * left / (2.0 * down), cruise * left / down),
            _ => (cruise * (frame - up / 2.0), cruise),
        }
    }

    /// The speed of the fastest joint at a frame, in radians per second.
    fn fastest(&self, frame: usize) -> f64 {
        let (_, velocities) = self.at(frame as f64);
        velocities.iter().fold(0.0, |most, velocity| most.max(velocity.abs()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arm::chain::{READY, gripper};
    use crate::arm::space::{add, norm, sub};

    fn movement(seed: u64) -> (Transform, Movement) {
        let from = gripper(&READY);
        let to = Transform { position: add(from.position, [0.1, 0.2, -0.1]), ..from };
        let rng = &mut Rng::new(&[seed]);
        (to, Movement::plan(&READY, &from, &to, Way::Free, 0.3, rng).unwrap())
    }

    #[test]
    fn velocities_are_the_derivative_of_the_joint_path() {
        let (_, movement) = movement(1);
        let h = 1e-5;
        for step in 1..10 * movement.frames() {
            let frame = step as f64 / 10.0 + 0.01;
            let (before, after) = (movement.at(frame - h).0, movement.at(frame + h).0);
            for (joint, velocity) in movement.at(frame).1.into_iter().enumerate() {
                let slope = (after[joint] - before[joint]) / (2.0 * h * DT_S);
                assert!((slope - velocity).abs() < 1e-5, "{frame}: {slope} {velocity}");
            }
        }
    }

    #[test]
    fn a_movement_ends_at_its_pose_and_is_at_rest_at_both_ends() {
        let (to, movement) = movement(2);
        let end = movement.frames() as f64;
        let (joints, velocities) = movement.at(end);
        assert!(norm(sub(gripper(&joints).position, to.position)) < 1e-8);
        assert_eq!((velocities, movement.at(0.0).1), ([0.0; JOINTS], [0.0; JOINTS]));
        assert_eq!(movement.at(0.0).0, READY);
    }

    #[test]
    fn movements_differ_in_path_and_duration() {
        let (a, b) = (movement(3).1, movement(4).1);
        assert!((4..9).any(|seed| movement(seed).1.frames() != a.frames()));
        let middle = |movement: &Movement| movement.at(movement.frames() as f64 / 2.0).0;
        assert!(norm(sub(gripper(&middle(&a)).position, gripper(&middle(&b)).position)) > 0.002);
    }
}
