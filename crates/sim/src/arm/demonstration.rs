//! Scripted demonstrations.

use embodied_r_random::Rng;

use super::chain::{Joints, reach};
use super::motion::Movement;
use super::objects::Kind;
use super::scene::Scene;
use super::script::{Script, Then, Waypoint, closed_m, half_pushing, script};
use super::space::{Transform, sub};
use super::task::Task;
use super::{DT_S, OPEN_M, TABLE_CENTRE};

/// Most frames for which the arm rests after a stop.
const LONGEST_REST: usize = 2;
/// Acceleration of a released object in m/s².
const GRAVITY_M_S2: f64 = 9.81;
/// Scripts that are tried until the arm reaches every waypoint.
const ATTEMPTS: u64 = 50;

/// A moment of a demonstration; moments are 0.1 s apart.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The position of the point between the fingertips in metres.
    pub position: [f64; 3],
    /// The rotation of the gripper: the unit quaternion x, y, z, w.
    pub rotation: [f64; 4],
    /// 1 if the gripper is open, 0 if it is closed or closing.
    pub gripper_open: f64,
    /// Joint angles in radians.
    pub joints: Joints,
    /// Joint velocities in radians per second: the derivative of the joint path at this moment.
    pub joint_velocities: Joints,
    /// What the robot is doing: an index of [`Demonstration::plan`].
    pub subtask: usize,
    /// The arm and the objects.
    pub scene: Scene,
}

/// A scripted demonstration of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct Demonstration {
    /// The task.
    pub task: Task,
    /// The instruction to the robot.
    pub instruction: &'static str,
    /// One sentence per key point.
    pub plan: Vec<String>,
    /// The frames at which the script stops the arm or changes the gripper, and the last one, ascending.
    pub key_points: Vec<usize>,
    /// The moments.
    pub steps: Vec<Step>,
}

impl Demonstration {
    /// The next key point after a frame: its frame. The last frame has itself.
    #[must_use]
    pub fn next_key_point(&self, frame: usize) -> usize {
        let last = self.steps.len().saturating_sub(1);
        self.key_points.iter().copied().find(|&key| key > frame).unwrap_or(last)
    }

    /// Whether it ends with the task done.
    #[must_use]
    pub fn is_successful(&self) -> bool {
        match (self.steps.first(), self.steps.last()) {
            (Some(first), Some(last)) => self.task.is_done(&first.scene, &last.scene),
            _ => false,
        }
    }

    /// The sentence of the plan that a frame is about.
    #[must_use]
    pub fn subtask(&self, frame: usize) -> &str {
        let sentence = self.steps.get(frame).and_then(|step| self.plan.get(step.subtask));
        sentence.map_or("", String::as_str)
    }
}

/// Demonstration `episode` of a task, a pure function of its arguments.
#[must_use]
pub fn demonstration(seed: u64, task: Task, episode: u64) -> Demonstration {
    let number = Task::ALL.iter().position(|other| *other == task).unwrap_or(0) as u64;
    let attempt = |attempt: u64| {
        let script = script(task, [seed, number, episode + (attempt << 40)])?;
        let mut rng = Rng::new(&[seed, number, episode, 51, attempt]);
        Recorder::record(task, script, &mut rng)
    };
    let nothing = || Demonstration {
        task,
        instruction: task.instruction(),
        plan: Vec::new(),
        key_points: Vec::new(),
        steps: Vec::new(),
    };
    (0..ATTEMPTS).find_map(attempt).unwrap_or_else(nothing)
}

/// A released object while it falls.
struct Fall {
    body: usize,
    from: f64,
    frames: usize,
}

/// Follows a script frame by frame.
struct Recorder {
    scene: Scene,
    gripper_open: f64,
    velocities: Joints,
    /// Typical speed of the fastest joint in rad/s.
    pace_rad_s: f64,
    /// The pose of the held object in the gripper's frame.
    grasp: Option<Transform>,
    fall: Option<Fall>,
    key_points: Vec<usize>,
    steps: Vec<Step>,
}

impl Recorder {
    fn record(task: Task, script: Script, rng: &mut Rng) -> Option<Demonstration> {
        let joints = reach(&script.start)?;
        let scene = Scene { joints, opening_m: OPEN_M, bodies: script.bodies, held: None };
        // Short scripts are slow, so that demonstrations of all tasks take some seconds.
        let (slowest, fastest) =
            if script.waypoints.len() < 4 { (0.2, 0.26) } else { (0.27, 0.38) };
        let mut recorder = Self {
            scene,
            gripper_open: 1.0,
            velocities: [0.0; 7],
            pace_rad_s: rng.between(slowest, fastest),
            grasp: None,
            fall: None,
            key_points: Vec::new(),
            steps: Vec::new(),
        };
        recorder.push();
        let mut from = script.start;
        let last = script.waypoints.len().saturating_sub(1);
        for (index, waypoint) in script.waypoints.iter().enumerate() {
            recorder.follow(&from, waypoint, rng)?;
            match waypoint.then {
                Then::Stop => {
                    recorder.key_points.push(recorder.steps.len() - 1);
                    let rest = if index == last { 0 } else { rng.below(LONGEST_REST + 1) };
                    (0..rest).for_each(|_| recorder.push());
                }
                Then::Close(body) => recorder.close(body),
                Then::Open => recorder.open(),
            }
            from = waypoint.pose;
        }
        let plan = script.waypoints.into_iter().map(|waypoint| waypoint.sentence).collect();
        Some(recorder.finish(task, plan))
    }

    fn finish(mut self, task: Task, plan: Vec<String>) -> Demonstration {
        for (frame, step) in self.steps.iter_mut().enumerate() {
            let passed = self.key_points.iter().filter(|&&key| key <= frame).count();
            step.subtask = passed.min(self.key_points.len().saturating_sub(1));
        }
        Demonstration {
            task,
            instruction: task.instruction(),
            plan,
            key_points: self.key_points,
            steps: self.steps,
        }
    }

    /// Moves the gripper to a waypoint; `None` if it is out of reach.
    fn follow(&mut self, from: &Transform, waypoint: &Waypoint, rng: &mut Rng) -> Option<()> {
        let joints = self.scene.joints;
        let movement =
            Movement::plan(&joints, from, &waypoint.pose, waypoint.way, self.pace_rad_s, rng)?;
        for frame in 1..=movement.frames() {
            (self.scene.joints, self.velocities) = movement.at(frame as f64);
            self.push();
        }
        Some(())
    }

    /// Closes the gripper in two frames. The object moves with it from then on.
    fn close(&mut self, body: Option<usize>) {
        let object = body.and_then(|index| self.scene.bodies.get(index));
        let closed = closed_m(object);
        self.grasp = object.map(|body| self.scene.gripper().inverse().then_after(&body.pose));
        self.gripper_open = 0.0;
        self.key_points.push(self.steps.len());
        self.scene.opening_m = (OPEN_M + closed) / 2.0;
        self.push();
        self.scene.opening_m = closed;
        self.scene.held = body;
        self.push();
    }

    /// Opens the gripper in two frames and releases what it holds.
    fn open(&mut self) {
        let closed = self.scene.opening_m;
        self.fall = self.scene.held.take().map(|body| {
            let from = self.scene.bodies.get(body).map_or(0.0, |body| body.pose.position[2]);
            Fall { body, from, frames: 0 }
        });
        self.grasp = None;
        self.gripper_open = 1.0;
        self.key_points.push(self.steps.len());
        self.scene.opening_m = (OPEN_M + closed) / 2.0;
        self.push();
        self.scene.opening_m = OPEN_M;
        self.push();
    }

    /// Records a moment, after moving the objects.
    fn push(&mut self) {
        let before = self.steps.last().map(|step| step.position);
        self.carry();
        self.drop_released();
        self.scene.press();
        let gripper = self.scene.gripper();
        if let Some(before) = before {
            self.slide(before, gripper.position);
        }
        self.steps.push(Step {
            position: gripper.position,
            rotation: gripper.rotation.quaternion(),
            gripper_open: self.gripper_open,
            joints: self.scene.joints,
            joint_velocities: self.velocities,
            subtask: 0,
            scene: self.scene.clone(),
        });
    }

    fn carry(&mut self) {
        let gripper = self.scene.gripper();
        let (Some(held), Some(grasp)) = (self.scene.held, self.grasp) else { return };
        if let Some(body) = self.scene.bodies.get_mut(held) {
            body.pose = gripper.then_after(&grasp);
        }
    }

    fn drop_released(&mut self) {
        let Some(mut fall) = self.fall.take() else { return };
        fall.frames += 1;
        let seconds = fall.frames as f64 * DT_S;
        let rest = self.scene.resting_height(fall.body);
        let height = fall.from - GRAVITY_M_S2 / 2.0 * seconds * seconds;
        if let Some(body) = self.scene.bodies.get_mut(fall.body) {
            body.pose.position[2] = height.max(rest);
        }
        if height > rest {
            self.fall = Some(fall);
        }
    }

    /// Pushes the block that the closed fingers run into, straight along the axis of their movement.
    fn slide(&mut self, before: [f64; 3], tip: [f64; 3]) {
        const HALF_M: f64 = 0.025;
        if self.gripper_open > 0.5 || self.scene.held.is_some() {
            return;
        }
        let moved = sub(tip, before);
        let axis = usize::from(moved[1].abs() > moved[0].abs());
        let reach = HALF_M + half_pushing(axis == 1);
        let block = self.scene.bodies.iter_mut().find(|body| body.kind == Kind::PinkBlock);
        let Some(block) = block.filter(|_| tip[2] < TABLE_CENTRE[2] + 2.0 * HALF_M) else { return };
        let at = &mut block.pose.position;
        let beside = (at[1 - axis] - tip[1 - axis]).abs();
        let ahead = (at[axis] - tip[axis]) * moved[axis].signum();
        if beside < HALF_M && (0.0..reach).contains(&ahead) {
            at[axis] = tip[axis] + reach * moved[axis].signum();
        }
    }
}

#[cfg(test)]
mod tests;
