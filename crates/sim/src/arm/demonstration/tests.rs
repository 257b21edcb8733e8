use super::*;
use crate::arm::chain::{LIMITS, gripper};
use crate::arm::space::norm;
use crate::arm::{FPS, STOPPED_RAD_S};

const EPISODES: u64 = 50;

fn all() -> impl Iterator<Item = (Task, u64, Demonstration)> {
    let episodes =
        |task| (0..EPISODES).map(move |episode| (task, episode, demonstration(7, task, episode)));
    Task::ALL.into_iter().flat_map(episodes)
}

/// ARM's rule for key points (Robot-R1, section 3): gripper changes, stops with a cool-down of four frames, the end.
fn key_points_by_rule(steps: &[Step]) -> Vec<usize> {
    let mut found = Vec::new();
    let mut cool_down = 0;
    for frame in 1..steps.len() {
        let open = |at: usize| steps[at].gripper_open;
        let is_still = steps[frame].joint_velocities.iter().all(|v| v.abs() <= STOPPED_RAD_S);
        let is_steady = frame >= 2
            && frame + 2 < steps.len()
            && [frame - 2, frame - 1, frame + 1].iter().all(|&at| open(at) == open(frame));
        let is_stop = cool_down == 0 && is_still && is_steady;
        cool_down = if is_stop { 4 } else { cool_down.max(1) - 1 };
        if open(frame) != open(frame - 1) || frame + 1 == steps.len() || is_stop {
            found.push(frame);
        }
    }
    if let [.., second, last] = found[..] {
        if second + 1 == last {
            found.remove(found.len() - 2);
        }
    }
    found
}

#[test]
fn every_demonstration_does_its_task() {
    for (task, episode, demonstration) in all() {
        assert!(demonstration.is_successful(), "{task} {episode}");
        assert!(!task.is_done(&demonstration.steps[0].scene, &demonstration.steps[0].scene));
    }
}

#[test]
fn the_rule_of_arm_finds_the_key_points_of_the_script() {
    for (task, episode, demonstration) in all() {
        let found = key_points_by_rule(&demonstration.steps);
        assert_eq!(found, demonstration.key_points, "{task} {episode}");
        assert_eq!(found.len(), demonstration.plan.len());
    }
}

#[test]
fn demonstrations_take_4_to_15_seconds() {
    let lengths: Vec<usize> = all().map(|(.., it)| it.steps.len()).collect();
    let typical = lengths.iter().filter(|length| (60..=120).contains(*length)).count();
    assert!(typical * 10 >= lengths.len() * 7, "{typical} of {} are typical", lengths.len());
    let (least, most) = (lengths.iter().min().unwrap(), lengths.iter().max().unwrap());
    assert!(*least >= 40 && *most <= 150, "{least} to {most}");
}

#[test]
fn joint_angles_give_the_poses_and_their_velocities_the_changes() {
    let demonstration = demonstration(7, Task::PutRubbishInBin, 3);
    for pair in demonstration.steps.windows(2) {
        let [a, b] = pair else { unreachable!() };
        assert_eq!(a.position, gripper(&a.joints).position);
        assert_eq!(a.rotation, gripper(&a.joints).rotation.quaternion());
        for joint in 0..7 {
            let change = (b.joints[joint] - a.joints[joint]) / DT_S;
            let (from, to) = (a.joint_velocities[joint], b.joint_velocities[joint]);
            // A ramp ends between two frames, so the mean of both velocities is off by up to half their difference.
            let off = (change - (from + to) / 2.0).abs();
            assert!(off <= 0.01 + (to - from).abs() / 2.0, "{change} {from} {to}");
        }
    }
}

#[test]
fn the_arm_moves_without_leaps_within_its_limits() {
    for (task, episode, demonstration) in all() {
        for pair in demonstration.steps.windows(2) {
            let moved = norm(sub(pair[1].position, pair[0].position));
            assert!(moved * f64::from(FPS) < 1.2, "{task} {episode}: {moved} m in a frame");
            let turned: f64 =
                pair[0].rotation.iter().zip(pair[1].rotation).map(|(a, b)| a * b).sum();
            assert!(turned > 0.99, "{task} {episode}: {turned}");
        }
        for step in &demonstration.steps {
            for joint in 0..7 {
                let (low, high) = LIMITS[joint];
                assert!((low..=high).contains(&step.joints[joint]));
                assert!(step.joint_velocities[joint].abs() < 2.175);
            }
            assert!(step.position[2] > TABLE_CENTRE[2]);
        }
    }
}

#[test]
fn objects_stay_on_the_table_or_on_what_is_below_unless_held() {
    for (task, episode, demonstration) in all() {
        let mut resting = demonstration.steps.last().unwrap().scene.clone();
        for index in 0..resting.bodies.len() {
            if resting.held == Some(index) {
                continue;
            }
            let height = resting.resting_height(index);
            let body = &mut resting.bodies[index];
            // The target lies under the block and is as good as flat.
            let off = (body.pose.position[2] - height).abs();
            assert!(off < 0.0021, "{task} {episode}: {:?} {off} m too high", body.kind);
        }
    }
}

#[test]
fn a_held_object_moves_with_the_gripper_and_others_stay() {
    let demonstration = demonstration(7, Task::PhoneOnBase, 4);
    let offset = |step: &Step| {
        let scene = &step.scene;
        scene.held_body().map(|body| scene.gripper().inverse().apply(body.middle()))
    };
    let held: Vec<_> = demonstration.steps.iter().filter_map(offset).collect();
    assert!(held.len() > 10);
    assert!(held.iter().all(|at| norm(sub(*at, held[0])) < 1e-9));
    let first = &demonstration.steps[0].scene;
    for step in &demonstration.steps {
        for (before, body) in first.bodies.iter().zip(&step.scene.bodies) {
            assert!(body.kind == Kind::Phone || body == before);
        }
    }
}

#[test]
fn objects_never_jump() {
    for (task, episode, demonstration) in all() {
        for pair in demonstration.steps.windows(2) {
            for (a, b) in pair[0].scene.bodies.iter().zip(&pair[1].scene.bodies) {
                let moved = norm(sub(a.base(), b.base()));
                // A fall of two frames is 0.15 m in its second one.
                assert!(moved < 0.16, "{task} {episode}: {:?} {moved}", a.kind);
            }
        }
    }
}

#[test]
fn a_demonstration_follows_from_seed_task_and_episode() {
    let a = demonstration(1, Task::StackBlocks, 2);
    assert_eq!(a, demonstration(1, Task::StackBlocks, 2));
    assert_ne!(a.steps, demonstration(2, Task::StackBlocks, 2).steps);
    assert_ne!(a.steps, demonstration(1, Task::StackBlocks, 3).steps);
}

#[test]
fn the_subtask_is_what_leads_to_the_next_key_point() {
    let demonstration = demonstration(1, Task::PickUpCup, 0);
    for frame in 0..demonstration.steps.len() - 1 {
        let next = demonstration.next_key_point(frame);
        let stage = demonstration.key_points.iter().position(|&key| key == next).unwrap();
        assert_eq!(demonstration.steps[frame].subtask, stage);
        assert_eq!(demonstration.subtask(frame), demonstration.plan[stage]);
    }
}
