//! The tasks: five after those of Robot-R1 (arXiv 2506.00070), and five others that share their motions.

use std::fmt;
use std::str::FromStr;

use super::objects::Kind;
use super::scene::Scene;

/// A task, named after RLBench's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Task {
    /// Grasp the red cup, not the blue one, and lift it.
    PickUpCup,
    /// Press the button.
    PushButton,
    /// Drop the rubbish into the bin.
    PutRubbishInBin,
    /// Put the phone on its base.
    PhoneOnBase,
    /// Lift the lid of the saucepan.
    TakeLidOffSaucepan,
    /// Push the pink block onto the target.
    SlideBlockToTarget,
    /// Put the blue block on the green one.
    StackBlocks,
    /// Put the knife on the chopping board.
    PutKnifeOnChoppingBoard,
    /// Put the lid on the jar.
    CloseJar,
    /// Press the switch of the lamp.
    LampOn,
}

/// Whether demonstrations of a task are for training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// One of the five tasks of Robot-R1.
    Seen,
    /// One of the five other tasks.
    HeldOut,
}

impl Split {
    /// `seen` or `held-out`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Seen => "seen",
            Self::HeldOut => "held-out",
        }
    }
}

/// How far an object is lifted at least, in metres.
const LIFTED_M: f64 = 0.1;
/// Largest horizontal distance from where an object is to be, in metres.
const NEAR_M: f64 = 0.02;

impl Task {
    /// All tasks, those for training first.
    pub const ALL: [Self; 10] = [
        Self::PickUpCup,
        Self::PushButton,
        Self::PutRubbishInBin,
        Self::PhoneOnBase,
        Self::TakeLidOffSaucepan,
        Self::SlideBlockToTarget,
        Self::StackBlocks,
        Self::PutKnifeOnChoppingBoard,
        Self::CloseJar,
        Self::LampOn,
    ];

    /// The tasks for training.
    pub const SEEN: [Self; 5] = [
        Self::PickUpCup,
        Self::PushButton,
        Self::PutRubbishInBin,
        Self::PhoneOnBase,
        Self::TakeLidOffSaucepan,
    ];

    /// The name, such as `pick_up_cup`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PickUpCup => "pick_up_cup",
            Self::PushButton => "push_button",
            Self::PutRubbishInBin => "put_rubbish_in_bin",
            Self::PhoneOnBase => "phone_on_base",
            Self::TakeLidOffSaucepan => "take_lid_off_saucepan",
            Self::SlideBlockToTarget => "slide_block_to_target",
            Self::StackBlocks => "stack_blocks",
            Self::PutKnifeOnChoppingBoard => "put_knife_on_chopping_board",
            Self::CloseJar => "close_jar",
            Self::LampOn => "lamp_on",
        }
    }

    /// The instruction to the robot.
    #[must_use]
    pub fn instruction(self) -> &'static str {
        match self {
            Self::PickUpCup => "pick up the red cup",
            Self::PushButton => "press the green button",
            Self::PutRubbishInBin => "throw the rubbish into the bin",
            Self::PhoneOnBase => "put the phone on its base",
            Self::TakeLidOffSaucepan => "take the lid off the saucepan",
            Self::SlideBlockToTarget => "slide the pink block onto the target",
            Self::StackBlocks => "stack the blue block on the green block",
            Self::PutKnifeOnChoppingBoard => "put the knife on the chopping board",
            Self::CloseJar => "close the jar with its lid",
            Self::LampOn => "turn on the lamp",
        }
    }

    /// Whether it is one of the five tasks for training.
    #[must_use]
    pub fn split(self) -> Split {
        if Self::SEEN.contains(&self) { Split::Seen } else { Split::HeldOut }
    }

    /// Whether `last` is the end of a successful demonstration that began with `first`.
    #[must_use]
    pub fn is_done(self, first: &Scene, last: &Scene) -> bool {
        let base = |kind| last.body(kind).map(super::Body::base);
        // Whether an object lies on another at a height above its base.
        let rests = |kind, on, height: f64, at_most: f64| {
            let (Some(object), Some(on)) = (base(kind), base(on)) else { return false };
            let aside = (object[0] - on[0]).hypot(object[1] - on[1]);
            let above = object[2] - on[2] - height;
            last.held.is_none() && aside <= at_most && above.abs() < 0.002
        };
        let is_lifted = |kind| {
            let (Some(before), Some(after)) = (first.body(kind), base(kind)) else { return false };
            let is_held = last.held_body().is_some_and(|body| body.kind == kind);
            is_held && after[2] > before.base()[2] + LIFTED_M
        };
        let is_pressed = |kind| last.body(kind).is_some_and(super::Body::is_pressed);
        match self {
            Self::PickUpCup => is_lifted(Kind::RedCup),
            Self::PushButton => is_pressed(Kind::Button),
            Self::PutRubbishInBin => rests(Kind::Rubbish, Kind::Bin, 0.006, 0.04),
            Self::PhoneOnBase => rests(Kind::Phone, Kind::PhoneBase, 0.03, NEAR_M),
            Self::TakeLidOffSaucepan => is_lifted(Kind::Lid),
            Self::SlideBlockToTarget => rests(Kind::PinkBlock, Kind::Target, 0.0, NEAR_M),
            Self::StackBlocks => rests(Kind::BlueBlock, Kind::GreenBlock, 0.05, NEAR_M),
            Self::PutKnifeOnChoppingBoard => rests(Kind::Knife, Kind::ChoppingBoard, 0.016, 0.06),
            Self::CloseJar => rests(Kind::JarLid, Kind::Jar, 0.09, NEAR_M),
            Self::LampOn => is_pressed(Kind::LampSwitch) && is_pressed(Kind::Lamp),
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is none of a task.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown task `{0}`; use {list}", list = Task::ALL.map(Task::name).join(", "))]
pub struct UnknownTask(String);

impl FromStr for Task {
    type Err = UnknownTask;

    fn from_str(name: &str) -> Result<Self, UnknownTask> {
        let found = Self::ALL.into_iter().find(|task| task.name() == name);
        found.ok_or_else(|| UnknownTask(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_found_by_its_name() {
        for task in Task::ALL {
            assert_eq!(task.name().parse(), Ok(task));
        }
        let error = "pick_up".parse::<Task>().unwrap_err().to_string();
        assert!(error.contains("`pick_up`") && error.contains("pick_up_cup"), "{error}");
    }

    #[test]
    fn five_tasks_are_held_out() {
        let held_out = Task::ALL.into_iter().filter(|task| task.split() == Split::HeldOut);
        assert!(held_out.eq(Task::ALL[5..].iter().copied()));
    }

    #[test]
    fn what_is_grasped_is_to_be_lifted() {
        for task in [Task::PickUpCup, Task::TakeLidOffSaucepan] {
            let demonstration = crate::arm::demonstration(1, task, 0);
            let scenes = || demonstration.steps.iter().map(|step| &step.scene);
            let first = scenes().next().unwrap();
            let grasped = scenes().find(|scene| scene.held_body().is_some()).unwrap();
            assert!(!task.is_done(first, grasped), "{task}");
            assert!(task.is_done(first, scenes().next_back().unwrap()), "{task}");
        }
    }
}
