//! What the robot does in each task: waypoints, and sentences about them.

use embodied_r_random::Rng;

use super::layout::Layout;
use super::look::FINGER_HALF;
use super::objects::{Body, Kind, PRESS_M};
use super::scene::FINGERTIP_M;
use super::space::{Rotation, Transform, Vector, add, norm, sub};
use super::task::Task;
use super::{OPEN_M, TABLE_CENTRE};

/// Layouts that are tried until all objects have room.
const ATTEMPTS: u64 = 1000;

/// Least distance from the start to the first waypoint in metres.
const FIRST_MOVE_M: f64 = 0.12;

/// What happens once the gripper has arrived.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Then {
    /// It stops.
    Stop,
    /// It closes on an object, or on nothing.
    Close(Option<usize>),
    /// It opens.
    Open,
}

/// How the gripper gets to a waypoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// With a detour.
    Free,
    /// Straight, next to objects.
    Straight,
}

/// A pose where the gripper stops, opens or closes.
#[derive(Debug, Clone)]
pub(crate) struct Waypoint {
    pub(crate) pose: Transform,
    pub(crate) way: Way,
    pub(crate) then: Then,
    /// What the robot does from the waypoint before up to this one.
    pub(crate) sentence: String,
}

/// The objects of a demonstration and the waypoints of the robot.
pub(crate) struct Script {
    pub(crate) bodies: Vec<Body>,
    pub(crate) start: Transform,
    pub(crate) waypoints: Vec<Waypoint>,
}

/// The script of a demonstration; `None` if objects never have room, which does not occur.
pub(crate) fn script(task: Task, keys: [u64; 3]) -> Option<Script> {
    let [seed, number, episode] = keys;
    (0..ATTEMPTS).find_map(|attempt| {
        let mut rng = Rng::new(&[seed, number, episode, 50, attempt]);
        let mut layout = Layout::new(&mut rng);
        let mut steps = Steps::of(task, &mut layout)?;
        layout.add_bystanders();
        let bodies = layout.bodies;
        let first = steps.waypoints.first()?.pose.position;
        let mut starts = (0..ATTEMPTS).map(|_| start(&mut rng));
        let start = starts.find(|start| norm(sub(start.position, first)) > FIRST_MOVE_M)?;
        steps.vary(&mut rng);
        Some(Script { bodies, start, waypoints: steps.waypoints })
    })
}

/// A pose above the table.
fn start(rng: &mut Rng) -> Transform {
    let position = [
        rng.between(0.14, 0.34),
        rng.between(-0.2, 0.2),
        TABLE_CENTRE[2] + rng.between(0.26, 0.42),
    ];
    let tilt = Rotation::about_y(rng.between(-0.08, 0.08));
    let yaw = Rotation::about_z(rng.between(-0.4, 0.4));
    Transform { rotation: yaw.then_after(&tilt).then_after(&Rotation::DOWN), position }
}

/// A gripper that points down, rotated about the vertical.
fn downwards(position: Vector, yaw: f64) -> Transform {
    Transform { rotation: Rotation::about_z(yaw).then_after(&Rotation::DOWN), position }
}

/// The waypoints of a script while it is written.
#[derive(Default)]
struct Steps {
    waypoints: Vec<Waypoint>,
}

impl Steps {
    fn of(task: Task, layout: &mut Layout<'_>) -> Option<Self> {
        let mut steps = Self::default();
        match task {
            Task::PickUpCup => steps.pick_up_cup(layout)?,
            Task::PushButton => {
                let button = layout.place(Kind::Button, 0.6)?;
                steps.press(layout, button);
            }
            Task::PutRubbishInBin => steps.put_rubbish_in_bin(layout)?,
            Task::PhoneOnBase => steps.put_on(layout, Kind::Phone, Kind::PhoneBase, [0.5, 0.3])?,
            Task::TakeLidOffSaucepan => steps.take_lid_off(layout)?,
            Task::SlideBlockToTarget => steps.slide_block(layout)?,
            Task::StackBlocks => {
                steps.put_on(layout, Kind::BlueBlock, Kind::GreenBlock, [0.5, 0.5])?;
            }
            Task::PutKnifeOnChoppingBoard => {
                steps.put_on(layout, Kind::Knife, Kind::ChoppingBoard, [0.5, 0.3])?;
            }
            Task::CloseJar => steps.put_on(layout, Kind::JarLid, Kind::Jar, [0.4, 0.4])?,
            Task::LampOn => {
                let switch = layout.place(Kind::LampSwitch, 0.6)?;
                layout.place(Kind::Lamp, 0.0)?;
                steps.press(layout, switch);
            }
        }
        Some(steps)
    }

    fn go(&mut self, pose: Transform, way: Way, then: Then, sentence: String) {
        self.waypoints.push(Waypoint { pose, way, then, sentence });
    }

    /// Goes above an object, grasps it and lifts it; returns the pose of the grasp.
    fn pick(&mut self, layout: &mut Layout<'_>, index: usize) -> Option<Transform> {
        let body = *layout.bodies.get(index)?;
        let (height, _) = body.kind.grasp()?;
        let name = body.kind.name();
        let yaw = half_turn(body.yaw());
        let pose = downwards(add(body.base(), [0.0, 0.0, height]), yaw);
        let rng = layout.rng();
        let mut above = add(pose.position, [0.0, 0.0, rng.between(0.12, 0.14)]);
        (0..2).for_each(|axis| above[axis] += rng.between(-0.006, 0.006));
        let lift = rng.between(0.185, 0.205);
        let lifted = [pose.position[0], pose.position[1], TABLE_CENTRE[2] + 0.06 + lift];
        let sentence = format!("Move the gripper above the {name}.");
        self.go(downwards(above, yaw), Way::Free, Then::Stop, sentence);
        let sentence = format!("Lower the gripper and grasp the {name}.");
        self.go(pose, Way::Straight, Then::Close(Some(index)), sentence);
        self.go(downwards(lifted, yaw), Way::Straight, Then::Stop, format!("Lift the {name}."));
        Some(pose)
    }

    /// Carries what was picked above `at`, lowers it by `down` metres, opens the gripper and retreats. `at` is where the
    /// gripper opens.
    fn drop_at(
        &mut self,
        layout: &mut Layout<'_>,
        at: Transform,
        [name, place]: [&str; 2],
        lower: &str,
    ) {
        let rng = layout.rng();
        let down = rng.between(0.105, 0.125);
        let above = Transform { position: add(at.position, [0.0, 0.0, down]), ..at };
        let up = [0.0, 0.0, rng.between(0.13, 0.15)];
        let away = Transform { position: add(at.position, up), ..at };
        self.go(above, Way::Free, Then::Stop, format!("Carry the {name} {place}."));
        self.go(at, Way::Straight, Then::Open, lower.to_owned());
        self.go(away, Way::Straight, Then::Stop, "Move the gripper up and away.".to_owned());
    }

    fn pick_up_cup(&mut self, layout: &mut Layout<'_>) -> Option<()> {
        let cup = layout.place(Kind::RedCup, 0.6)?;
        layout.place(Kind::BlueCup, std::f64::consts::PI)?;
        self.pick(layout, cup).map(|_| ())
    }

    fn put_rubbish_in_bin(&mut self, layout: &mut Layout<'_>) -> Option<()> {
        let bin = layout.place(Kind::Bin, 0.0)?;
        let rubbish = layout.place(Kind::Rubbish, 0.5)?;
        layout.place(Kind::Tomato, 1.0)?;
        let grasp = self.pick(layout, rubbish)?;
        let mut at = layout.bodies.get(bin)?.base();
        at[2] += layout.rng().between(0.15, 0.17);
        let pose = Transform { position: at, ..grasp };
        let lower = "Lower the rubbish into the bin and open the gripper.";
        self.drop_at(layout, pose, ["rubbish", "above the bin"], lower);
        Some(())
    }

    /// Puts an object on another. `yaws` limit how far they are rotated.
    fn put_on(
        &mut self,
        layout: &mut Layout<'_>,
        kind: Kind,
        on: Kind,
        yaws: [f64; 2],
    ) -> Option<()> {
        let under = layout.place(on, yaws[1])?;
        let object = layout.place(kind, yaws[0])?;
        let grasp = self.pick(layout, object)?;
        let under = *layout.bodies.get(under)?;
        // The knife lies in the middle of the board with its handle, where it is grasped, at the side.
        let aside = if kind == Kind::Knife { -0.045 } else { 0.0 };
        let surface = under.support_at(under.base()[0], under.base()[1])?;
        let mut at = under.pose.apply([aside, 0.0, 0.0]);
        at[2] = surface + (grasp.position[2] - TABLE_CENTRE[2]) + 0.002;
        let pose = downwards(at, half_turn(under.yaw()));
        let (name, place) = (kind.name(), on.name());
        let lower = format!("Lower the {name} onto the {place} and open the gripper.");
        self.drop_at(layout, pose, [name, &format!("above the {place}")], &lower);
        Some(())
    }

    fn take_lid_off(&mut self, layout: &mut Layout<'_>) -> Option<()> {
        let pan = layout.place(Kind::Saucepan, 1.5)?;
        let pan = *layout.bodies.get(pan)?;
        let [x, y, _] = pan.base();
        let surface = pan.support_at(x, y)?;
        let yaw = layout.rng().between(-0.4, 0.4);
        // It is placed without a check: it lies on the saucepan.
        layout.bodies.push(Body::new(Kind::Lid, [x, y, surface], yaw));
        let lid = layout.bodies.len() - 1;
        self.pick(layout, lid).map(|_| ())
    }

    /// Closes the gripper above a button, presses it and retreats.
    fn press(&mut self, layout: &mut Layout<'_>, index: usize) {
        let Some(body) = layout.bodies.get(index).copied() else { return };
        let name = body.kind.name();
        let rng = layout.rng();
        let yaw = rng.between(-0.3, 0.3);
        let mut at = add(body.base(), [0.0, 0.0, body.kind.height_m() - PRESS_M + FINGERTIP_M]);
        (0..2).for_each(|axis| at[axis] += rng.between(-0.006, 0.006));
        let above = add(at, [0.0, 0.0, rng.between(0.12, 0.14)]);
        let away = add(at, [0.0, 0.0, rng.between(0.14, 0.16)]);
        let sentence = format!("Move the gripper above the {name} and close it.");
        self.go(downwards(above, yaw), Way::Free, Then::Close(None), sentence);
        let sentence = format!("Lower the gripper to press the {name}.");
        self.go(downwards(at, yaw), Way::Straight, Then::Stop, sentence);
        let sentence = "Move the gripper up and away.".to_owned();
        self.go(downwards(away, yaw), Way::Straight, Then::Stop, sentence);
    }

    /// Pushes the block along one of three directions.
    fn slide_block(&mut self, layout: &mut Layout<'_>) -> Option<()> {
        let directions = [([0.0, 1.0], "right"), ([0.0, -1.0], "left"), ([1.0, 0.0], "forward")];
        let &([ux, uy], side) = layout.rng().pick(&directions)?;
        let length = layout.rng().between(0.13, 0.2);
        let block = layout.free_spot(Kind::PinkBlock)?;
        let moved = |metres: f64| [block[0] + ux * metres, block[1] + uy * metres];
        let target = moved(length);
        if !layout.is_free(target, Kind::Target) {
            return None;
        }
        let on_table = |[x, y]: [f64; 2], height: f64| [x, y, TABLE_CENTRE[2] + height];
        layout.put(Body::new(Kind::Target, on_table(target, 0.0), 0.0));
        layout.put(Body::new(Kind::PinkBlock, on_table(block, 0.0), 0.0));
        layout.reserve(moved(length / 2.0), Kind::Target);
        layout.reserve(moved(-0.08), Kind::Target);
        let reach = 0.025 + half_pushing(uy != 0.0);
        let beside = on_table(moved(-reach - layout.rng().between(0.012, 0.02)), 0.016);
        let end = on_table(moved(length - reach), 0.016);
        let above = add(beside, [0.0, 0.0, layout.rng().between(0.12, 0.14)]);
        let away = add(end, [0.0, 0.0, layout.rng().between(0.13, 0.15)]);
        let sentence =
            "Move the gripper above the table beside the pink block and close it.".to_owned();
        self.go(downwards(above, 0.0), Way::Free, Then::Close(None), sentence);
        let sentence = "Lower the gripper beside the pink block.".to_owned();
        self.go(downwards(beside, 0.0), Way::Straight, Then::Stop, sentence);
        let sentence = format!("Push the pink block {side} onto the target.");
        self.go(downwards(end, 0.0), Way::Straight, Then::Stop, sentence);
        let sentence = "Move the gripper up and away.".to_owned();
        self.go(downwards(away, 0.0), Way::Straight, Then::Stop, sentence);
        Some(())
    }

    /// Moves waypoints that are not next to an object by a few millimetres.
    fn vary(&mut self, rng: &mut Rng) {
        for waypoint in &mut self.waypoints {
            if waypoint.way == Way::Free {
                (0..3).for_each(|axis| waypoint.pose.position[axis] += rng.between(-0.004, 0.004));
            }
        }
    }
}

/// An angle that gives the fingers the same line, in [-π/2, π/2].
fn half_turn(yaw: f64) -> f64 {
    use std::f64::consts::{FRAC_PI_2, PI};
    (yaw + FRAC_PI_2).rem_euclid(PI) - FRAC_PI_2
}

/// Half the thickness of the closed fingers along y, or along x, in metres.
pub(crate) fn half_pushing(is_along_y: bool) -> f64 {
    f64::from(if is_along_y { 2.0 * FINGER_HALF[1] } else { FINGER_HALF[0] })
}

/// The distance between the fingers of a gripper that is closed on an object, or on nothing, in metres.
pub(crate) fn closed_m(body: Option<&Body>) -> f64 {
    body.and_then(|body| body.kind.grasp()).map_or(0.0, |(_, width)| width.min(OPEN_M))
}
