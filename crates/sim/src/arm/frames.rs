//! Random frames with true descriptions and the positions of what is in them, for pretraining a vision-language model.

use embodied_r_random::Rng;

use super::camera::image_position;
use super::chain::reach;
use super::demonstration::demonstration;
use super::objects::Kind;
use super::relation::{directions, relations, things};
use super::scene::Scene;
use super::script::closed_m;
use super::space::{Rotation, Transform, sub};
use super::statement::position;
use super::task::Task;
use super::{OPEN_M, TABLE_CENTRE};

/// Part of the frames that are moments of demonstrations. The others have the gripper anywhere above the objects.
const DEMONSTRATED: f64 = 0.6;
/// Poses of the gripper that are tried until the arm reaches one.
const ATTEMPTS: u64 = 20;

/// A thing in a frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Located {
    /// Its class: 0 is the gripper, others are 1 + [`Kind::index`].
    pub class: usize,
    /// Its name.
    pub name: &'static str,
    /// Its position in metres: of the gripper the point between its fingertips, of an object its middle.
    pub position_m: [f64; 3],
    /// Where it is in the image: fractions of the frame from the left and from the top, in [0, 1).
    pub at: [f64; 2],
}

/// Number of classes of [`Located`].
#[must_use]
pub const fn classes() -> usize {
    1 + Kind::ALL.len()
}

/// Scene `index` of `seed`: the objects of a random task, and the arm as in a demonstration of it or anywhere above them.
#[must_use]
pub fn random_scene(seed: u64, index: u64) -> Scene {
    let mut rng = Rng::new(&[seed, index, 53]);
    let task = Task::ALL[rng.below(Task::ALL.len())];
    // Other episodes than those of data sets and of the bench.
    let demonstration = demonstration(seed, task, (1 << 33) + index);
    let frame = rng.below(demonstration.steps.len());
    let moment = demonstration.steps.get(frame).map(|step| step.scene.clone());
    let mut scene = moment.unwrap_or_else(|| Scene {
        joints: super::chain::READY,
        opening_m: OPEN_M,
        bodies: Vec::new(),
        held: None,
    });
    if rng.chance(DEMONSTRATED) {
        return scene;
    }
    if let Some(joints) = (0..ATTEMPTS).find_map(|_| reach(&pose(&mut rng))) {
        let gripper = scene.gripper();
        scene.joints = joints;
        match scene.held {
            Some(held) => {
                let moved = scene.gripper().then_after(&gripper.inverse());
                if let Some(body) = scene.bodies.get_mut(held) {
                    body.pose = moved.then_after(&body.pose);
                }
            }
            None => scene.opening_m = if rng.chance(0.5) { OPEN_M } else { closed_m(None) },
        }
    }
    scene
}

/// A pose of the gripper above the objects.
fn pose(rng: &mut Rng) -> Transform {
    let position = [
        rng.between(0.08, 0.44),
        rng.between(-0.32, 0.32),
        TABLE_CENTRE[2] + rng.between(0.2, 0.45),
    ];
    let tilt = Rotation::about_y(rng.between(-0.06, 0.06));
    let yaw = Rotation::about_z(rng.between(-0.5, 0.5));
    Transform { rotation: yaw.then_after(&tilt).then_after(&Rotation::DOWN), position }
}

/// What is in a scene, with positions in frames whose ratio of width to height is `aspect`; the gripper is the first.
/// Things outside the frame are left out.
#[must_use]
pub fn located(scene: &Scene, aspect: f64) -> Vec<Located> {
    let classes = std::iter::once(0).chain(scene.bodies.iter().map(|body| 1 + body.kind.index()));
    let located = classes.zip(things(scene)).map(|(class, (name, position_m))| Located {
        class,
        name,
        position_m,
        at: image_position(position_m, aspect),
    });
    located.filter(|thing| thing.at.iter().all(|part| (0.0..1.0).contains(part))).collect()
}

/// True sentences about a scene, each about one fact:
///
/// - positions: `gripper 0.25 -0.11 0.98`, `red cup 0.31 0.08 0.80`, in metres with two decimals;
/// - the gripper: `gripper open`, `gripper closed` or `gripper holding red cup`;
/// - clear relations: `red cup left of bin`, `gripper above phone`;
/// - the way from the gripper to each object: `red cup from gripper: slightly forward, left, down`.
#[must_use]
pub fn descriptions(scene: &Scene) -> Vec<String> {
    let things = things(scene);
    let mut sentences: Vec<String> =
        things.iter().map(|(name, at)| format!("{name} {}", position(*at))).collect();
    sentences.push(hand(scene));
    let relations = relations(scene).into_iter();
    sentences.extend(
        relations
            .map(|(subject, relation, object)| format!("{subject} {} {object}", relation.words())),
    );
    let Some(((_, gripper), objects)) = things.split_first() else { return sentences };
    for (name, at) in objects {
        let way = directions(sub(*at, *gripper)).join(", ");
        if !way.is_empty() {
            sentences.push(format!("{name} from gripper: {way}"));
        }
    }
    sentences
}

/// What the gripper does: `gripper open`, `gripper closed` or `gripper holding red cup`.
#[must_use]
pub fn hand(scene: &Scene) -> String {
    match scene.held_body() {
        Some(body) => format!("gripper holding {}", body.kind.name()),
        None if scene.is_open() => "gripper open".to_owned(),
        None => "gripper closed".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arm::Renderer;

    #[test]
    fn descriptions_state_the_positions_of_all_things() {
        for index in 0..40 {
            let scene = random_scene(5, index);
            let sentences = descriptions(&scene);
            let position = |name: &str| -> Vec<f64> {
                let start = format!("{name} ");
                let numbers = sentences.iter().find_map(|sentence| {
                    let rest = sentence.strip_prefix(&start)?;
                    rest.split(' ').map(|word| word.parse().ok()).collect::<Option<Vec<f64>>>()
                });
                numbers.unwrap_or_else(|| panic!("no position of {name} in {sentences:?}"))
            };
            for (name, at) in things(&scene) {
                let stated = position(name);
                assert!(stated.iter().zip(at).all(|(a, b)| (a - b).abs() <= 0.005 + 1e-9));
            }
        }
    }

    #[test]
    fn what_is_held_is_at_the_fingertips() {
        let holding = |scene: &Scene| {
            let held = scene.held_body()?;
            let sentence = format!("gripper holding {}", held.kind.name());
            assert!(descriptions(scene).contains(&sentence));
            let apart = sub(held.middle(), scene.gripper_position());
            Some(apart[0].hypot(apart[1]) < 0.02 && apart[2].abs() < 0.03)
        };
        let found: Vec<bool> =
            (0..120).filter_map(|index| holding(&random_scene(5, index))).collect();
        assert!(found.len() > 15 && found.iter().all(|near| *near), "{}", found.len());
    }

    #[test]
    fn located_things_differ_from_the_table_in_the_image() {
        let mut renderer = Renderer::new((224, 224));
        let mut drawn = 0;
        for index in 0..30 {
            let scene = random_scene(6, index);
            let with = renderer.draw(&scene);
            for thing in located(&scene, 1.0).iter().skip(1) {
                let mut without = scene.clone();
                without.bodies.retain(|body| body.kind.name() != thing.name);
                without.held = None;
                let without = renderer.draw(&without);
                let changed: Vec<usize> = (0..224 * 224)
                    .filter(|at| with[3 * at..3 * at + 3] != without[3 * at..3 * at + 3])
                    .collect();
                let [x, y] = thing.at.map(|part| (part * 224.0) as usize);
                // About 280 pixels are a metre.
                let radius = 6 + (280.0 * Kind::ALL[thing.class - 1].radius_m()) as usize;
                let is_near = |at: &&usize| {
                    (*at % 224).abs_diff(x) <= radius && (*at / 224).abs_diff(y) <= radius
                };
                // What the arm hides has no pixels.
                if changed.len() > 60 {
                    assert!(changed.iter().any(|at| is_near(&at)), "{index}: {thing:?}");
                    drawn += 1;
                }
            }
        }
        assert!(drawn > 60, "{drawn}");
    }

    #[test]
    fn scenes_follow_from_seed_and_index() {
        assert_eq!(random_scene(1, 2), random_scene(1, 2));
        assert_ne!(random_scene(1, 2), random_scene(1, 3));
        assert_ne!(random_scene(1, 2), random_scene(2, 2));
    }
}
