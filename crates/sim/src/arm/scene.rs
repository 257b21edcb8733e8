//! A moment of the simulation: the arm, the objects, and what the gripper does to them.

use super::chain::{Joints, gripper};
use super::objects::{Body, Kind, PRESS_M};
use super::space::Transform;
use super::{OPEN_M, TABLE_CENTRE};

/// The arm and the objects at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Scene {
    /// Joint angles of the arm in radians.
    pub joints: Joints,
    /// Distance between the fingers in metres.
    pub opening_m: f64,
    /// The objects.
    pub bodies: Vec<Body>,
    /// What the gripper holds: an index of [`Self::bodies`].
    pub held: Option<usize>,
}

impl Scene {
    /// The pose of the gripper.
    pub(crate) fn gripper(&self) -> Transform {
        gripper(&self.joints)
    }

    /// The position of the point between the fingertips, in metres.
    #[must_use]
    pub fn gripper_position(&self) -> [f64; 3] {
        self.gripper().position
    }

    /// Whether the gripper is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.held.is_none() && self.opening_m > OPEN_M / 2.0
    }

    /// The object of a class.
    #[must_use]
    pub fn body(&self, kind: Kind) -> Option<&Body> {
        self.bodies.iter().find(|body| body.kind == kind)
    }

    /// The object that the gripper holds.
    #[must_use]
    pub fn held_body(&self) -> Option<&Body> {
        self.held.and_then(|index| self.bodies.get(index))
    }

    /// The height that an object would rest at, in metres.
    pub(crate) fn resting_height(&self, index: usize) -> f64 {
        let Some(body) = self.bodies.get(index) else { return TABLE_CENTRE[2] };
        let [x, y, z] = body.pose.position;
        let others = self.bodies.iter().enumerate().filter(|(other, _)| *other != index);
        others
            .filter_map(|(_, other)| other.support_at(x, y))
            // What is higher than the object does not carry it.
            .filter(|height| *height <= z + 1e-6)
            .fold(TABLE_CENTRE[2], f64::max)
    }

    /// Presses the buttons that the gripper is on.
    pub(crate) fn press(&mut self) {
        let tip = self.gripper().position;
        let mut switched = None;
        for body in self.bodies.iter_mut().filter(|body| body.kind.is_pressable()) {
            let [x, y, z] = body.pose.position;
            if (tip[0] - x).hypot(tip[1] - y) < 0.024 {
                let depth = z + body.kind.height_m() - (tip[2] - FINGERTIP_M);
                body.pressed_m = body.pressed_m.max(depth.clamp(0.0, PRESS_M));
            }
            if body.kind == Kind::LampSwitch {
                switched = Some(body.pressed_m);
            }
        }
        let lamp = self.bodies.iter_mut().find(|body| body.kind == Kind::Lamp);
        if let (Some(pressed), Some(lamp)) = (switched, lamp) {
            lamp.pressed_m = pressed;
        }
    }
}

/// How far the fingers reach below the gripper's position, in metres.
pub(crate) const FINGERTIP_M: f64 = 0.005;
