//! Scripted demonstrations for tests: reach, grasp, carry and release, with noise.

use embodied_r_lerobot::TaskSpan;
use embodied_r_random::Rng;
use embodied_r_sim::arm;

use crate::demonstration::{Demonstration, Position, distance};
use crate::key_points::{KeyPoint, Stillness, key_points};
use crate::questions::Source;
use crate::split::Split;

/// Tasks, of which each has ways of its own.
pub(crate) const TASKS: [&str; 5] = [
    "pick up the cup",
    "push the button",
    "throw the rubbish away",
    "hang up the phone",
    "open the pan",
];

/// Metres per frame.
const STEP: f64 = 0.02;

/// Episode `episode` of task `episode % 5`.
pub(crate) fn demonstration(seed: u64, episode: usize) -> Demonstration {
    let task = episode % TASKS.len();
    let rng = &mut Rng::new(&[seed, episode as u64]);
    let object = [rng.between(0.05, 0.45), rng.between(-0.35, 0.35), 0.78 + 0.02 * task as f64];
    let above = [object[0], object[1], object[2] + rng.between(0.08, 0.15)];
    let home = [0.28, 0.0, 1.25].map(|value| value + rng.between(-0.02, 0.02));
    let goal = match task {
        0 | 4 => [object[0], object[1], object[2] + rng.between(0.15, 0.3)],
        1 => above,
        _ => [rng.between(0.1, 0.4), rng.between(-0.3, 0.3), 0.95],
    };
    let mut made = Demonstration {
        episode,
        tasks: vec![TaskSpan { start: 0, task: TASKS[task].to_owned() }],
        positions: vec![home],
        gripper: vec![1.0],
        joint_speeds: Vec::new(),
        annotations: Vec::new(),
    };
    for (to, width) in [(above, 1.0), (object, 1.0), (object, 0.0), (goal, 0.0)] {
        go(&mut made, to, rng);
        hold(&mut made, width, if width == 0.0 { 3 } else { 2 });
    }
    made
}

/// The simulated arm's episode `episode` of task `episode % 5`.
fn simulated(seed: u64, episode: usize) -> Demonstration {
    let task = arm::Task::SEEN[episode % TASKS.len()];
    let made = arm::demonstration(seed, task, (episode / TASKS.len()) as u64);
    let fastest = |step: &arm::Step| {
        step.joint_velocities.iter().fold(0.0_f64, |most, speed| most.max(speed.abs()))
    };
    Demonstration {
        episode,
        tasks: vec![TaskSpan { start: 0, task: made.instruction.to_owned() }],
        positions: made.steps.iter().map(|step| step.position).collect(),
        gripper: made.steps.iter().map(|step| step.gripper_open).collect(),
        joint_speeds: made.steps.iter().map(fastest).collect(),
        annotations: Vec::new(),
    }
}

/// Moves to `to` with a noise of half a millimetre.
fn go(made: &mut Demonstration, to: Position, rng: &mut Rng) {
    let (Some(&from), Some(&width)) = (made.positions.last(), made.gripper.last()) else { return };
    let steps = (distance(from, to) / STEP).ceil() as usize;
    for step in 1..=steps {
        let share = step as f64 / steps as f64;
        let mut at = [0.0; 3];
        for (axis, value) in at.iter_mut().enumerate() {
            *value = from[axis] + share * (to[axis] - from[axis]) + rng.between(-5e-4, 5e-4);
        }
        made.positions.push(at);
        made.gripper.push(width);
    }
}

fn hold(made: &mut Demonstration, width: f64, frames: usize) {
    let Some(&at) = made.positions.last() else { return };
    made.positions.extend(std::iter::repeat_n(at, frames));
    made.gripper.extend(std::iter::repeat_n(width, frames));
}

/// Demonstrations with their key points.
pub(crate) struct Scripted {
    pub(crate) demonstrations: Vec<Demonstration>,
    key_points: Vec<Vec<KeyPoint>>,
}

impl Scripted {
    pub(crate) fn new(seed: u64, episodes: usize) -> Self {
        let demonstrations = (0..episodes).map(|episode| demonstration(seed, episode));
        Self::of(demonstrations.collect(), Stillness::Displacement(0.005))
    }

    /// Of the simulated arm.
    pub(crate) fn simulated(seed: u64, episodes: usize) -> Self {
        let demonstrations = (0..episodes).map(|episode| simulated(seed, episode));
        Self::of(demonstrations.collect(), Stillness::JointVelocity(0.1))
    }

    fn of(demonstrations: Vec<Demonstration>, stillness: Stillness) -> Self {
        let of = |it: &Demonstration| key_points(it, stillness, 0.5);
        let key_points = demonstrations.iter().map(of).collect();
        Self { demonstrations, key_points }
    }

    pub(crate) fn sources(&self, split: impl Fn(usize) -> Split) -> Vec<Source<'_>> {
        let pairs = self.demonstrations.iter().zip(&self.key_points);
        pairs
            .map(|(demonstration, key_points)| Source {
                demonstration,
                key_points,
                split: split(demonstration.episode),
                held_out_tasks: &[],
            })
            .collect()
    }
}
