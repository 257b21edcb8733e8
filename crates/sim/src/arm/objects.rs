//! The catalogue of objects: names, dimensions, and what rests where.

use super::space::{Rotation, Transform, Vector};

/// An object class. A scene has at most one object of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A red cup with a handle.
    RedCup,
    /// A blue cup with a handle.
    BlueCup,
    /// A yellow cup with a handle.
    YellowCup,
    /// A green button on a dark base.
    Button,
    /// A crumpled piece of paper.
    Rubbish,
    /// An open bin.
    Bin,
    /// A tomato.
    Tomato,
    /// A phone.
    Phone,
    /// The flat base that the phone lies on.
    PhoneBase,
    /// A saucepan with a long handle.
    Saucepan,
    /// The lid of the saucepan.
    Lid,
    /// A pink cube.
    PinkBlock,
    /// A blue cube.
    BlueBlock,
    /// A green cube.
    GreenBlock,
    /// An orange ball.
    OrangeBall,
    /// A purple can.
    PurpleCan,
    /// A square on the table.
    Target,
    /// A knife; its origin is its handle.
    Knife,
    /// A chopping board.
    ChoppingBoard,
    /// An open jar.
    Jar,
    /// The lid of the jar.
    JarLid,
    /// A lamp, which is lit while its switch is pressed.
    Lamp,
    /// The switch of the lamp: a blue button on a light base.
    LampSwitch,
}

/// How deep a button is when it is pressed, in metres.
pub(crate) const PRESS_M: f64 = 0.018;

/// A region of an object's upper surfaces that other objects rest on, in the object's frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Support {
    /// A disc around the object's axis: radius and height in metres.
    Disc(f64, f64),
    /// A rectangle around the object's axis: half its length and width, and its height, in metres.
    Rectangle(f64, f64, f64),
}

impl Kind {
    /// All object classes.
    pub const ALL: [Self; 23] = [
        Self::RedCup,
        Self::BlueCup,
        Self::YellowCup,
        Self::Button,
        Self::Rubbish,
        Self::Bin,
        Self::Tomato,
        Self::Phone,
        Self::PhoneBase,
        Self::Saucepan,
        Self::Lid,
        Self::PinkBlock,
        Self::BlueBlock,
        Self::GreenBlock,
        Self::OrangeBall,
        Self::PurpleCan,
        Self::Target,
        Self::Knife,
        Self::ChoppingBoard,
        Self::Jar,
        Self::JarLid,
        Self::Lamp,
        Self::LampSwitch,
    ];

    /// The name in texts, such as `red cup`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::RedCup => "red cup",
            Self::BlueCup => "blue cup",
            Self::YellowCup => "yellow cup",
            Self::Button => "button",
            Self::Rubbish => "rubbish",
            Self::Bin => "bin",
            Self::Tomato => "tomato",
            Self::Phone => "phone",
            Self::PhoneBase => "phone base",
            Self::Saucepan => "saucepan",
            Self::Lid => "lid",
            Self::PinkBlock => "pink block",
            Self::BlueBlock => "blue block",
            Self::GreenBlock => "green block",
            Self::OrangeBall => "orange ball",
            Self::PurpleCan => "purple can",
            Self::Target => "target",
            Self::Knife => "knife",
            Self::ChoppingBoard => "chopping board",
            Self::Jar => "jar",
            Self::JarLid => "jar lid",
            Self::Lamp => "lamp",
            Self::LampSwitch => "lamp switch",
        }
    }

    /// Index of the class in [`Self::ALL`].
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }

    /// The radius of a circle around its axis that contains it, in metres.
    pub(crate) fn radius_m(self) -> f64 {
        match self {
            Self::RedCup | Self::BlueCup | Self::YellowCup => 0.055,
            Self::Button | Self::LampSwitch => 0.06,
            Self::Rubbish => 0.035,
            Self::Bin => 0.075,
            Self::Tomato | Self::OrangeBall => 0.03,
            Self::Phone => 0.076,
            Self::PhoneBase => 0.085,
            Self::Saucepan => 0.12,
            Self::Lid => 0.085,
            Self::PinkBlock | Self::BlueBlock | Self::GreenBlock => 0.036,
            Self::PurpleCan => 0.03,
            Self::Target => 0.057,
            Self::Knife => 0.14,
            Self::ChoppingBoard => 0.12,
            Self::Jar => 0.036,
            Self::JarLid => 0.038,
            Self::Lamp => 0.06,
        }
    }

    /// The height in metres.
    pub(crate) fn height_m(self) -> f64 {
        match self {
            Self::RedCup | Self::BlueCup | Self::YellowCup | Self::Jar => 0.09,
            Self::Button | Self::LampSwitch => 0.05,
            Self::Rubbish => 0.05,
            Self::Bin => 0.12,
            Self::Tomato => 0.056,
            Self::OrangeBall => 0.06,
            Self::Phone => 0.02,
            Self::PhoneBase => 0.03,
            Self::Saucepan => 0.07,
            Self::Lid => 0.045,
            Self::PinkBlock | Self::BlueBlock | Self::GreenBlock => 0.05,
            Self::PurpleCan => 0.1,
            Self::Target => 0.002,
            Self::Knife => 0.016,
            Self::ChoppingBoard => 0.016,
            Self::JarLid => 0.022,
            Self::Lamp => 0.2,
        }
    }

    /// The height of the fingertips and the distance between the fingers when the object is grasped, in metres; `None` if
    /// it cannot be grasped.
    pub(crate) fn grasp(self) -> Option<(f64, f64)> {
        match self {
            Self::RedCup | Self::BlueCup | Self::YellowCup => Some((0.055, 0.072)),
            Self::Rubbish => Some((0.025, 0.046)),
            Self::Phone => Some((0.012, 0.06)),
            Self::Lid => Some((0.032, 0.03)),
            Self::PinkBlock | Self::BlueBlock | Self::GreenBlock => Some((0.03, 0.05)),
            Self::Knife => Some((0.012, 0.022)),
            Self::JarLid => Some((0.014, 0.074)),
            _ => None,
        }
    }

    /// The surfaces that other objects rest on.
    pub(crate) fn supports(self) -> &'static [Support] {
        match self {
            Self::Bin => &[Support::Disc(0.06, 0.006)],
            Self::PhoneBase => &[Support::Rectangle(0.07, 0.045, 0.03)],
            Self::Saucepan => &[Support::Disc(0.08, 0.07)],
            Self::PinkBlock | Self::BlueBlock | Self::GreenBlock => {
                &[Support::Rectangle(0.025, 0.025, 0.05)]
            }
            Self::Target => &[Support::Rectangle(0.04, 0.04, 0.002)],
            Self::ChoppingBoard => &[Support::Rectangle(0.105, 0.06, 0.016)],
            Self::Jar => &[Support::Disc(0.035, 0.09)],
            _ => &[],
        }
    }

    /// Whether the object has a button that the gripper can press.
    pub(crate) fn is_pressable(self) -> bool {
        matches!(self, Self::Button | Self::LampSwitch)
    }
}

/// An object in a scene.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Body {
    /// Its class.
    pub kind: Kind,
    /// Its pose; the origin is the centre of its base.
    pub(crate) pose: Transform,
    /// How deep its button is pressed, in metres; for the lamp, that of its switch.
    pub(crate) pressed_m: f64,
}

impl Body {
    /// An object that stands upright at `position`, rotated about the vertical by `yaw` radians.
    pub(crate) fn new(kind: Kind, position: Vector, yaw: f64) -> Self {
        let pose = Transform { rotation: Rotation::about_z(yaw), position };
        Self { kind, pose, pressed_m: 0.0 }
    }

    /// The position of its middle in metres: on its axis, at half its height.
    #[must_use]
    pub fn middle(&self) -> [f64; 3] {
        self.pose.apply([0.0, 0.0, self.kind.height_m() / 2.0])
    }

    /// The position of the centre of its base in metres.
    #[must_use]
    pub fn base(&self) -> [f64; 3] {
        self.pose.position
    }

    /// Whether its button is pressed.
    #[must_use]
    pub fn is_pressed(&self) -> bool {
        self.pressed_m >= 0.9 * PRESS_M
    }

    /// The rotation about the vertical in radians.
    pub(crate) fn yaw(&self) -> f64 {
        let x = self.pose.rotation.axis(0);
        x[1].atan2(x[0])
    }

    /// The height of its highest surface below a vertical line that an object could rest on; `None` if there is none.
    pub(crate) fn support_at(&self, x: f64, y: f64) -> Option<f64> {
        let local = self.pose.inverse().apply([x, y, self.pose.position[2]]);
        let heights = self.kind.supports().iter().filter_map(|support| match *support {
            Support::Disc(radius, height) => (local[0].hypot(local[1]) <= radius).then_some(height),
            Support::Rectangle(length, width, height) => {
                (local[0].abs() <= length && local[1].abs() <= width).then_some(height)
            }
        });
        heights.fold(None, |highest: Option<f64>, height| {
            let height = self.pose.position[2] + height;
            Some(highest.map_or(height, |other| other.max(height)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_its_own_name_and_its_index() {
        for (index, kind) in Kind::ALL.iter().enumerate() {
            assert_eq!(kind.index(), index);
            assert!(Kind::ALL[index + 1..].iter().all(|other| other.name() != kind.name()));
        }
    }

    #[test]
    fn what_is_grasped_fits_between_the_fingers() {
        for kind in Kind::ALL {
            if let Some((height, width)) = kind.grasp() {
                assert!(width < crate::arm::OPEN_M, "{kind:?}");
                assert!(height < kind.height_m(), "{kind:?}");
            }
        }
    }

    #[test]
    fn a_support_turns_with_its_object() {
        let board = Body::new(Kind::ChoppingBoard, [0.2, 0.1, 0.7], std::f64::consts::FRAC_PI_2);
        assert_eq!(board.support_at(0.2, 0.19), Some(0.716));
        assert_eq!(board.support_at(0.29, 0.1), None);
    }
}
