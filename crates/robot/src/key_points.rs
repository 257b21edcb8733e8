//! Key points: the frames at which a demonstration's gripper changes or its arm stops.
//!
//! The rule is that of ARM (arXiv 2105.14829), which Robot-R1 uses. A frame is a key point if the gripper has opened or
//! closed since the frame before, if the arm has stopped, or if it is the last one. The arm has stopped if it stands
//! still, the gripper's state is the same from two frames before to one frame after, the frame is not the one before
//! the last, and none of the four frames before is a stop. Of two key points in the last two frames, the first is left
//! out. Frame 0 is never a key point, but may be a stop.

use std::ops::Range;

use serde::Serialize;

use crate::demonstration::{Demonstration, distance};

/// ARM's bound on the velocity of a joint that stands still, in rad/s.
pub const STILL_VELOCITY: f64 = 0.1;

/// The speed of a gripper that stands still, in m/s: [`STILL_VELOCITY`] at half a metre from the joint, which is about
/// the reach of a table-top arm.
pub const STILL_SPEED: f64 = 0.05;

/// Frames after a stop in which there is no other.
const COOL_DOWN: i64 = 4;

/// When the arm stands still.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stillness {
    /// The velocity of every joint is at most this, in rad/s, as in ARM.
    JointVelocity(f64),
    /// The position is at most this far, in metres, from that in the frame before. In the first frame the arm stands
    /// still if it does in the second.
    Displacement(f64),
}

/// Why a frame is a key point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The gripper has opened or closed.
    Gripper,
    /// The arm has stopped.
    Stop,
    /// It is the last frame.
    End,
}

/// A key point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct KeyPoint {
    /// Its frame.
    pub frame: usize,
    /// Why it is one.
    pub cause: Cause,
}

/// The key points of `demonstration`, in order. The gripper is open where it is wider than `gripper_threshold`.
pub fn key_points(
    demonstration: &Demonstration,
    stillness: Stillness,
    gripper_threshold: f64,
) -> Vec<KeyPoint> {
    let frames = demonstration.frames();
    let open: Vec<bool> = match demonstration.gripper.is_empty() {
        true => vec![true; frames],
        false => demonstration.gripper.iter().map(|width| *width > gripper_threshold).collect(),
    };
    discover(&open, &still(demonstration, stillness))
}

/// In which frames the arm stands still.
fn still(demonstration: &Demonstration, stillness: Stillness) -> Vec<bool> {
    match stillness {
        Stillness::JointVelocity(bound) => {
            demonstration.joint_speeds.iter().map(|speed| *speed <= bound).collect()
        }
        Stillness::Displacement(bound) => {
            let positions = &demonstration.positions;
            let moved = |frame: usize| {
                let before = frame.max(1);
                match (positions.get(before - 1), positions.get(before)) {
                    (Some(a), Some(b)) => distance(*a, *b),
                    _ => 0.0,
                }
            };
            (0..positions.len()).map(|frame| moved(frame) <= bound).collect()
        }
    }
}

/// ARM's rule. Both slices have a value per frame.
fn discover(open: &[bool], still: &[bool]) -> Vec<KeyPoint> {
    let frames = open.len();
    let mut found: Vec<KeyPoint> = Vec::new();
    let mut cool_down = 0;
    for frame in 0..frames {
        // The frames before the first are the last ones: ARM's code indexes a Python list with negative numbers.
        let before = |by: usize| open[(frame + frames - by) % frames];
        let is_stop = cool_down <= 0
            && still.get(frame).copied().unwrap_or(false)
            && frame + 2 < frames
            && [open[frame + 1], before(1), before(2)].iter().all(|other| *other == open[frame]);
        cool_down = if is_stop { COOL_DOWN } else { cool_down - 1 };
        if frame == 0 {
            continue;
        }
        let cause = if open[frame] != open[frame - 1] {
            Cause::Gripper
        } else if frame + 1 == frames {
            Cause::End
        } else if is_stop {
            Cause::Stop
        } else {
            continue;
        };
        found.push(KeyPoint { frame, cause });
    }
    if let [.., second_to_last, last] = found.as_slice()
        && second_to_last.frame + 1 == last.frame
    {
        found.remove(found.len() - 2);
    }
    found
}

/// Every `stride`-th frame with the key point that follows it: from frame 0 to the last one before the last key point.
pub fn start_frames(
    key_points: &[KeyPoint],
    stride: usize,
) -> impl Iterator<Item = (usize, KeyPoint)> {
    let range: Range<usize> = 0..key_points.last().map_or(0, |last| last.frame);
    range.step_by(stride.max(1)).filter_map(|frame| {
        let next = key_points.iter().find(|key_point| key_point.frame > frame)?;
        Some((frame, *next))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(open: &[bool], still: &[bool]) -> Vec<usize> {
        discover(open, still).iter().map(|key_point| key_point.frame).collect()
    }

    /// `n` frames with `true` in some.
    fn flags(n: usize, at: &[usize]) -> Vec<bool> {
        (0..n).map(|frame| at.contains(&frame)).collect()
    }

    #[test]
    fn gripper_changes_stops_and_the_end_are_key_points() {
        let open = (0..30).map(|frame| frame < 12).collect::<Vec<_>>();
        let found = discover(&open, &flags(30, &[7, 20]));
        let expected =
            [(7, Cause::Stop), (12, Cause::Gripper), (20, Cause::Stop), (29, Cause::End)];
        assert_eq!(found, expected.map(|(frame, cause)| KeyPoint { frame, cause }));
    }

    #[test]
    fn a_stop_near_a_gripper_change_is_none() {
        let open = (0..30).map(|frame| frame < 12).collect::<Vec<_>>();
        // One frame before the change, and up to one after it.
        for frame in [11, 13] {
            assert_eq!(frames(&open, &flags(30, &[frame])), [12, 29], "{frame}");
        }
        assert_eq!(frames(&open, &flags(30, &[10])), [10, 12, 29]);
        assert_eq!(frames(&open, &flags(30, &[14])), [12, 14, 29]);
    }

    #[test]
    fn a_still_arm_at_a_gripper_change_starts_no_cool_down() {
        let open: Vec<bool> = (0..12).map(|frame| frame != 3).collect();
        assert_eq!(frames(&open, &flags(12, &[4, 6])), [3, 4, 6, 11]);
    }

    #[test]
    fn after_a_stop_four_frames_are_none() {
        let open = [true; 30];
        assert_eq!(frames(&open, &flags(30, &[5, 6, 7, 8, 9])), [5, 29]);
        assert_eq!(frames(&open, &flags(30, &[5, 10])), [5, 10, 29]);
        assert_eq!(frames(&open, &flags(30, &(5..24).collect::<Vec<_>>())), [5, 10, 15, 20, 29]);
    }

    #[test]
    fn a_stop_at_frame_0_cools_down_but_is_no_key_point() {
        assert_eq!(frames(&[true; 12], &flags(12, &[0, 3])), [11]);
        assert_eq!(frames(&[true; 12], &flags(12, &[0, 5])), [5, 11]);
        // The gripper ends in another state than it began with, so frame 0 is no stop.
        let open: Vec<bool> = (0..12).map(|frame| frame < 9).collect();
        assert_eq!(frames(&open, &flags(12, &[0, 3])), [3, 9, 11]);
    }

    #[test]
    fn the_frame_before_the_last_is_no_stop() {
        assert_eq!(frames(&[true; 12], &flags(12, &[10])), [11]);
        assert_eq!(frames(&[true; 12], &flags(12, &[9])), [9, 11]);
    }

    #[test]
    fn of_key_points_in_the_last_two_frames_the_first_is_left_out() {
        let open: Vec<bool> = (0..12).map(|frame| frame < 10).collect();
        assert_eq!(frames(&open, &[false; 12]), [11]);
        let open: Vec<bool> = (0..12).map(|frame| frame < 9).collect();
        assert_eq!(frames(&open, &[false; 12]), [9, 11]);
    }

    #[test]
    fn short_demonstrations_have_few_key_points() {
        assert_eq!(frames(&[], &[]), Vec::<usize>::new());
        assert_eq!(frames(&[true], &[true]), Vec::<usize>::new());
        assert_eq!(frames(&[true, true], &[true, true]), [1]);
        assert_eq!(frames(&[true, false, true], &[true; 3]), [2]);
    }

    fn demonstration() -> Demonstration {
        let x = [0.0, 0.001, 0.1, 0.2, 0.3, 0.304, 0.4, 0.5];
        Demonstration {
            episode: 0,
            tasks: Vec::new(),
            positions: x.map(|x| [x, 0.0, 0.0]).to_vec(),
            gripper: vec![0.9, 0.8, 0.7, 0.4, 0.3, 0.2, 0.1, 0.0],
            joint_speeds: x.map(|x| if x == 0.2 { 0.11 } else { 0.1 }).to_vec(),
            annotations: Vec::new(),
        }
    }

    #[test]
    fn stillness_is_by_velocity_or_by_displacement() {
        let by_velocity = still(&demonstration(), Stillness::JointVelocity(0.1));
        assert_eq!(by_velocity, [true, true, true, false, true, true, true, true]);
        let by_displacement = still(&demonstration(), Stillness::Displacement(0.005));
        assert_eq!(by_displacement, [true, true, false, false, false, true, false, false]);
        let bound = Stillness::Displacement(0.5 - 0.4);
        assert!(still(&demonstration(), bound)[7], "the bound itself is still");
    }

    #[test]
    fn the_gripper_closes_where_it_crosses_the_threshold() {
        let found = key_points(&demonstration(), Stillness::Displacement(0.0), 0.5);
        let expected = [(3, Cause::Gripper), (7, Cause::End)];
        assert_eq!(found, expected.map(|(frame, cause)| KeyPoint { frame, cause }));
        // At the threshold it is closed.
        let found = key_points(&demonstration(), Stillness::Displacement(0.0), 0.7);
        assert_eq!(found[0], KeyPoint { frame: 2, cause: Cause::Gripper });
    }

    #[test]
    fn a_start_frame_is_before_its_key_point() {
        let at = |frame| KeyPoint { frame, cause: Cause::Stop };
        let found: Vec<_> = start_frames(&[at(7), at(10), at(31)], 10).collect();
        assert_eq!(found, [(0, at(7)), (10, at(31)), (20, at(31)), (30, at(31))]);
        assert_eq!(start_frames(&[], 10).count(), 0);
    }
}
