//! What objects, gripper and arm look like.

use super::mesh::{Colour, Mesh};
use super::objects::{Kind, PRESS_M};

const WHITE: Colour = [235, 235, 238];
const LIGHT: Colour = [205, 208, 214];
const DARK: Colour = [52, 54, 62];
const STEEL: Colour = [168, 174, 184];
const FINGER: Colour = [255, 168, 20];

/// Half the size of the hand in metres: 0.06 along x, 0.2 along y, 0.09 along z.
pub(super) const HAND_HALF: [f32; 3] = [0.03, 0.1, 0.045];
/// Length of the fingers below the hand in metres.
pub(super) const FINGER_M: f32 = 0.04;
/// How far the fingers reach beyond the point between them, in metres.
const FINGERTIP_M: f32 = 0.005;
/// Half the size of a finger across in metres.
pub(super) const FINGER_HALF: [f32; 2] = [0.01, 0.007];

/// An object in its own frame. The lamp is lit if it is `pressed`.
pub(super) fn object(kind: Kind, pressed_m: f64) -> Mesh {
    let mut mesh = Mesh::default();
    let height = kind.height_m() as f32;
    let is_pressed = pressed_m > 0.5 * PRESS_M;
    match kind {
        Kind::RedCup => cup(&mut mesh, [214, 40, 40]),
        Kind::BlueCup => cup(&mut mesh, [40, 90, 220]),
        Kind::YellowCup => cup(&mut mesh, [240, 205, 40]),
        Kind::Button => button(&mut mesh, [60, 62, 70], [30, 190, 70], pressed_m),
        Kind::LampSwitch => button(&mut mesh, [225, 225, 225], [60, 110, 230], pressed_m),
        Kind::Rubbish => {
            for (centre, radius) in [
                ([0.0, 0.0, 0.024], 0.022),
                ([0.011, 0.006, 0.031], 0.017),
                ([-0.01, 0.008, 0.017], 0.016),
                ([0.002, -0.011, 0.032], 0.016),
            ] {
                mesh.sphere(centre, radius, [0, 190, 210]);
            }
        }
        Kind::Bin => mesh.vessel([0.06, 0.075], height, 0.005, [[64, 78, 96], [34, 40, 50]]),
        Kind::Tomato => {
            mesh.sphere([0.0, 0.0, 0.027], 0.027, [226, 62, 36]);
            mesh.cylinder([0.0, 0.0, 0.05], [0.009, 0.003], 0.008, [40, 120, 40]);
        }
        Kind::Phone => {
            mesh.cuboid([0.0, 0.0, height / 2.0], [0.07, 0.03, height / 2.0], [30, 30, 36]);
            mesh.cuboid([0.0, 0.0, height], [0.056, 0.024, 0.001], [110, 200, 235]);
        }
        Kind::PhoneBase => {
            mesh.cuboid([0.0, 0.0, height / 2.0], [0.072, 0.046, height / 2.0], [150, 60, 170]);
            mesh.cuboid([0.0, 0.0, height], [0.06, 0.034, 0.001], [96, 34, 112]);
        }
        Kind::Saucepan => {
            mesh.vessel([0.076, 0.08], height, 0.004, [[120, 126, 136], [80, 84, 92]]);
            mesh.cuboid([0.14, 0.0, 0.052], [0.065, 0.011, 0.008], [36, 36, 40]);
        }
        Kind::Lid => {
            mesh.cylinder([0.0; 3], [0.084, 0.07], 0.014, [196, 120, 70]);
            mesh.cylinder([0.0, 0.0, 0.014], [0.013, 0.015], height - 0.014, [40, 34, 34]);
        }
        Kind::PinkBlock => block(&mut mesh, [240, 110, 180]),
        Kind::BlueBlock => block(&mut mesh, [50, 110, 230]),
        Kind::GreenBlock => block(&mut mesh, [60, 170, 80]),
        Kind::OrangeBall => mesh.sphere([0.0, 0.0, 0.03], 0.03, [250, 150, 40]),
        Kind::PurpleCan => {
            mesh.cylinder([0.0; 3], [0.03, 0.03], height, [125, 60, 170]);
            mesh.cylinder([0.0, 0.0, height], [0.026, 0.026], 0.001, STEEL);
        }
        Kind::Target => {
            mesh.cuboid([0.0, 0.0, 0.0005], [0.04, 0.04, 0.0005], [200, 30, 30]);
            mesh.cuboid([0.0, 0.0, 0.001], [0.028, 0.028, 0.001], [250, 240, 240]);
        }
        Kind::Knife => {
            mesh.cuboid([0.0, 0.0, 0.008], [0.05, 0.011, 0.008], [30, 30, 34]);
            mesh.cuboid([0.095, 0.0, 0.008], [0.045, 0.014, 0.002], [214, 220, 228]);
        }
        Kind::ChoppingBoard => {
            mesh.cuboid([0.0, 0.0, height / 2.0], [0.105, 0.065, height / 2.0], [226, 190, 120]);
        }
        Kind::Jar => {
            mesh.vessel([0.035, 0.035], height, 0.004, [[130, 205, 215], [80, 140, 150]]);
        }
        Kind::JarLid => mesh.cylinder([0.0; 3], [0.037, 0.036], height, [190, 30, 60]),
        Kind::Lamp => lamp(&mut mesh, is_pressed),
    }
    mesh
}

fn cup(mesh: &mut Mesh, colour: Colour) {
    mesh.vessel([0.031, 0.037], 0.09, 0.004, [colour, colour.map(|c| c / 2 + 20)]);
    for z in [0.028, 0.066] {
        mesh.cuboid([0.045, 0.0, z], [0.012, 0.005, 0.005], colour);
    }
    mesh.cuboid([0.057, 0.0, 0.047], [0.005, 0.005, 0.024], colour);
}

fn button(mesh: &mut Mesh, base: Colour, cap: Colour, pressed_m: f64) {
    mesh.cuboid([0.0, 0.0, 0.0125], [0.042, 0.042, 0.0125], base);
    mesh.cylinder([0.0, 0.0, 0.02], [0.026, 0.024], 0.03 - pressed_m as f32, cap);
}

fn block(mesh: &mut Mesh, colour: Colour) {
    mesh.cuboid([0.0, 0.0, 0.025], [0.025, 0.025, 0.025], colour);
}

fn lamp(mesh: &mut Mesh, is_lit: bool) {
    mesh.cylinder([0.0; 3], [0.05, 0.046], 0.014, [70, 66, 62]);
    mesh.cylinder([0.0, 0.0, 0.014], [0.007, 0.007], 0.12, [70, 66, 62]);
    let shade = if is_lit { [255, 246, 120] } else { [104, 96, 84] };
    mesh.cylinder([0.0, 0.0, 0.125], [0.056, 0.034], 0.075, shade);
}

/// The hand in the gripper's frame, whose z axis points out of the hand.
pub(super) fn hand() -> Mesh {
    let mut mesh = Mesh::default();
    mesh.cuboid([0.0, 0.0, -FINGER_M - HAND_HALF[2]], HAND_HALF, WHITE);
    let dark = [HAND_HALF[0] + 0.001, 0.088, 0.009];
    mesh.cuboid([0.0, 0.0, -FINGER_M - 0.012], dark, DARK);
    mesh
}

/// A finger in the gripper's frame, moved along y to its place by the caller; its inner face is at y = 0.
pub(super) fn finger(side: f32) -> Mesh {
    let mut mesh = Mesh::default();
    let half = (FINGER_M + FINGERTIP_M) / 2.0;
    mesh.cuboid(
        [0.0, side * FINGER_HALF[1], FINGERTIP_M - half],
        [FINGER_HALF[0], FINGER_HALF[1], half],
        FINGER,
    );
    mesh
}

/// Radius and colour of the tube from each joint to the next.
pub(super) const TUBES: [(f32, Colour); 6] =
    [(0.055, WHITE), (0.05, WHITE), (0.045, WHITE), (0.042, WHITE), (0.036, LIGHT), (0.034, LIGHT)];

/// A tube of unit length along z, to be stretched.
pub(super) fn tube(radius: f32, colour: Colour) -> Mesh {
    let mut mesh = Mesh::default();
    mesh.cylinder([0.0; 3], [radius; 2], 1.0, colour);
    mesh
}

/// A joint of the arm.
pub(super) fn joint(radius: f32) -> Mesh {
    let mut mesh = Mesh::default();
    mesh.sphere([0.0; 3], radius * 1.08, LIGHT);
    mesh
}
