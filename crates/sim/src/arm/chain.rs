//! The kinematics of the arm: seven revolute joints with the published dimensions of a Franka Panda.

use super::space::{Rotation, Transform, Vector, add, cross, norm, scale, sub};

/// Number of joints.
pub const JOINTS: usize = 7;

/// Joint angles in radians, or velocities in radians per second.
pub type Joints = [f64; JOINTS];

/// Position of the first joint's axis on the table.
pub(crate) const BASE: Vector = [-0.25, 0.0, super::TABLE_CENTRE[2]];

/// Parameters of Denavit and Hartenberg in Craig's convention: for each joint the length a in metres, the offset d in
/// metres and the twist α in quarter turns (Franka Emika, FCI documentation).
const PARAMETERS: [(f64, f64, f64); JOINTS] = [
    (0.0, 0.333, 0.0),
    (0.0, 0.0, -1.0),
    (0.0, 0.316, 1.0),
    (0.0825, 0.0, 1.0),
    (-0.0825, 0.384, -1.0),
    (0.0, 0.0, 1.0),
    (0.088, 0.0, 1.0),
];

/// Distance from the last joint to the fingertips: the flange and the hand.
const TIP_M: f64 = 0.107 + 0.1034;

/// Range of each joint in radians (Franka Emika, FCI documentation).
pub(crate) const LIMITS: [(f64, f64); JOINTS] = [
    (-2.8973, 2.8973),
    (-1.7628, 1.7628),
    (-2.8973, 2.8973),
    (-3.0718, -0.0698),
    (-2.8973, 2.8973),
    (-0.0175, 3.7525),
    (-2.8973, 2.8973),
];

/// Angles of a posture in the middle of the workspace with the gripper pointing down.
pub(crate) const READY: Joints = {
    use std::f64::consts::{FRAC_PI_2, FRAC_PI_4};
    [0.0, -FRAC_PI_4, 0.0, -3.0 * FRAC_PI_4, 0.0, FRAC_PI_2, FRAC_PI_4]
};

/// Largest error of a solution, in metres and radians.
const TOLERANCE: f64 = 1e-9;
/// Iterations of a solution. From a neighbouring pose, four are enough.
const ITERATIONS: usize = 60;
/// Largest change of pose in an iteration, in metres and radians.
const LARGEST_STEP: f64 = 0.2;
/// Part of the way towards [`READY`] that the arm makes per solution where the pose allows it.
const POSTURE_GAIN: f64 = 0.15;

/// The poses of the seven links and, last, of the gripper.
///
/// The gripper's origin is the point between its fingertips, its z axis points out of the hand, and its fingers move
/// along y.
pub(crate) fn links(joints: &Joints) -> [Transform; JOINTS + 1] {
    let mut pose = Transform { rotation: Rotation::IDENTITY, position: BASE };
    let mut links = [pose; JOINTS + 1];
    for ((link, &(a, d, quarters)), &angle) in links.iter_mut().zip(&PARAMETERS).zip(joints) {
        let twist = Rotation::about_x(quarters * std::f64::consts::FRAC_PI_2);
        let turned = Transform {
            rotation: twist.then_after(&Rotation::about_z(angle)),
            position: add([a, 0.0, 0.0], twist.apply([0.0, 0.0, d])),
        };
        pose = pose.then_after(&turned);
        *link = pose;
    }
    // The hand is mounted with an eighth of a turn.
    let hand = Transform {
        rotation: Rotation::about_z(-std::f64::consts::FRAC_PI_4),
        position: [0.0, 0.0, TIP_M],
    };
    links[JOINTS] = pose.then_after(&hand);
    links
}

/// The pose of the gripper.
pub(crate) fn gripper(joints: &Joints) -> Transform {
    links(joints)[JOINTS]
}

/// The joint angles near `start` with which the gripper has the pose `target`; `None` if it is out of reach.
///
/// Newton's method with damped least squares; the seventh degree of freedom tends towards [`READY`].
pub(crate) fn solve(start: &Joints, target: &Transform) -> Option<Joints> {
    let mut joints = *start;
    for iteration in 0..ITERATIONS {
        let links = links(&joints);
        let error = pose_error(&links[JOINTS], target);
        if iteration > 0 && error.iter().all(|part| part.abs() < TOLERANCE) {
            let is_possible =
                joints.iter().zip(LIMITS).all(|(angle, (low, high))| (low..=high).contains(angle));
            return is_possible.then_some(joints);
        }
        let jacobian = jacobian(&links);
        let mut wanted = error;
        let largest = error.iter().fold(0.0, |most: f64, part| most.max(part.abs()));
        if largest > LARGEST_STEP {
            wanted = wanted.map(|part| part * LARGEST_STEP / largest);
        }
        let mut posture = [0.0; JOINTS];
        if iteration == 0 {
            for (pull, (ready, angle)) in posture.iter_mut().zip(READY.iter().zip(&joints)) {
                *pull = POSTURE_GAIN * (ready - angle);
            }
            // The movement that the posture would cause is subtracted: the rest is in the null space.
            for (part, row) in wanted.iter_mut().zip(&jacobian) {
                *part -= row.iter().zip(&posture).map(|(a, b)| a * b).sum::<f64>();
            }
        }
        let weights = damped_solution(&jacobian, wanted)?;
        for (joint, angle) in joints.iter_mut().enumerate() {
            let step: f64 = jacobian.iter().zip(&weights).map(|(row, w)| row[joint] * w).sum();
            *angle += step + posture[joint];
        }
    }
    None
}

/// The translation and rotation from one pose to another.
fn pose_error(from: &Transform, to: &Transform) -> [f64; 6] {
    let [x, y, z] = sub(to.position, from.position);
    let [a, b, c] = to.rotation.then_after(&from.rotation.inverse()).vector();
    [x, y, z, a, b, c]
}

/// The derivative of the gripper's pose (rows) by the joint angles (columns).
fn jacobian(links: &[Transform; JOINTS + 1]) -> [[f64; JOINTS]; 6] {
    let mut rows = [[0.0; JOINTS]; 6];
    let tip = links[JOINTS].position;
    for (joint, link) in links.iter().take(JOINTS).enumerate() {
        let axis = link.rotation.axis(2);
        let moved = cross(axis, sub(tip, link.position));
        for part in 0..3 {
            rows[part][joint] = moved[part];
            rows[part + 3][joint] = axis[part];
        }
    }
    rows
}

/// The solution w of (J Jᵀ + λ I) w = `wanted`, by Gaussian elimination of a positive definite matrix.
fn damped_solution(jacobian: &[[f64; JOINTS]; 6], wanted: [f64; 6]) -> Option<[f64; 6]> {
    const DAMPING: f64 = 1e-8;
    let mut matrix = [[0.0; 7]; 6];
    for (i, row) in matrix.iter_mut().enumerate() {
        for (j, cell) in row.iter_mut().take(6).enumerate() {
            *cell = jacobian[i].iter().zip(&jacobian[j]).map(|(a, b)| a * b).sum();
        }
        row[i] += DAMPING;
        row[6] = wanted[i];
    }
    for pivot in 0..6 {
        let top = matrix[pivot];
        if top[pivot].abs() < 1e-14 {
            return None;
        }
        for row in &mut matrix[pivot + 1..] {
            let factor = row[pivot] / top[pivot];
            row.iter_mut().zip(&top).for_each(|(cell, above)| *cell -= factor * above);
        }
    }
    let mut solution = [0.0; 6];
    for i in (0..6).rev() {
        let known: f64 = (i + 1..6).map(|j| matrix[i][j] * solution[j]).sum();
        solution[i] = (matrix[i][6] - known) / matrix[i][i];
    }
    Some(solution)
}

/// The joint angles with the gripper at `target`, reached from [`READY`] along a straight line; `None` if it is out of
/// reach.
pub(crate) fn reach(target: &Transform) -> Option<Joints> {
    let from = gripper(&READY);
    let steps = (norm(sub(target.position, from.position)) / 0.05).ceil().max(1.0);
    let turn = target.rotation.then_after(&from.rotation.inverse()).vector();
    (1..=steps as usize).try_fold(READY, |joints, step| {
        let part = step as f64 / steps;
        solve(&joints, &part_way(&from, target, turn, part))
    })
}

/// The pose `part` of the way between two poses, along a straight line and the rotation vector `turn` between them.
pub(crate) fn part_way(from: &Transform, to: &Transform, turn: Vector, part: f64) -> Transform {
    if part >= 1.0 {
        return *to;
    }
    Transform {
        position: super::space::lerp(from.position, to.position, part),
        rotation: rotation_by(scale(turn, part)).then_after(&from.rotation),
    }
}

/// The rotation about the axis `vector` by its length in radians.
pub(crate) fn rotation_by(vector: Vector) -> Rotation {
    let angle = norm(vector);
    if angle < 1e-12 {
        return Rotation::IDENTITY;
    }
    let frame = Rotation::with_z(scale(vector, 1.0 / angle));
    frame.then_after(&Rotation::about_z(angle)).then_after(&frame.inverse())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::arm::TABLE_CENTRE;

    #[test]
    fn the_ready_posture_points_down_in_front_of_the_base() {
        let pose = gripper(&READY);
        // Franka's own value for this posture: 0.3069 m ahead and 0.4869 m up with the hand's tip.
        let expected = add(BASE, [0.3069, 0.0, 0.4869]);
        assert!(norm(sub(pose.position, expected)) < 5e-4, "{:?}", pose.position);
        let down = pose.rotation.then_after(&Rotation::DOWN.inverse()).vector();
        assert!(norm(down) < 1e-9, "{down:?}");
    }

    proptest! {
        #[test]
        fn a_solution_has_the_gripper_at_the_target(
            x in 0.08..0.42, y in -0.3..0.3, height in 0.01..0.3, yaw in -0.8..0.8, tilt in -0.08..0.08,
        ) {
            let rotation = Rotation::about_z(yaw).then_after(&Rotation::about_y(tilt)).then_after(&Rotation::DOWN);
            let target = Transform { rotation, position: [x, y, TABLE_CENTRE[2] + height] };
            let joints = reach(&target).expect("in reach");
            let found = gripper(&joints);
            prop_assert!(norm(sub(found.position, target.position)) < 1e-8);
            prop_assert!(norm(pose_error(&found, &target)[3..].try_into().unwrap()) < 1e-8);
            for (angle, (low, high)) in joints.iter().zip(LIMITS) {
                prop_assert!((low..=high).contains(angle));
            }
        }

        #[test]
        fn the_jacobian_is_the_derivative_of_the_pose(
            offsets in prop::array::uniform7(-0.4..0.4), joint in 0..JOINTS,
        ) {
            let mut joints = READY;
            joints.iter_mut().zip(offsets).for_each(|(angle, offset)| *angle += offset);
            let mut moved = joints;
            moved[joint] += 1e-6;
            let error = pose_error(&gripper(&joints), &gripper(&moved));
            let rows = jacobian(&links(&joints));
            for (part, row) in error.iter().zip(rows) {
                prop_assert!((part / 1e-6 - row[joint]).abs() < 1e-4);
            }
        }
    }

    #[test]
    fn a_target_out_of_reach_has_no_solution() {
        let far = Transform { rotation: Rotation::DOWN, position: [1.5, 0.0, 1.0] };
        assert_eq!(reach(&far), None);
    }
}
