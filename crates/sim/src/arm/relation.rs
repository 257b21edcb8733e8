//! Movements and spatial relations in words, from the camera's point of view.
//!
//! Forward is towards the camera (positive x), right is the camera's right (positive y), up is away from the ground
//! (positive z).

use super::scene::Scene;
use super::space::{Vector, sub};

/// Axes that move less are left out of a movement, in metres.
pub const MOVEMENT_EPSILON_M: f64 = 0.005;

/// Part of the largest displacement up to which a movement is "slightly".
const SLIGHT: f64 = 0.5;

/// Words for both directions of each axis, the positive one first.
pub const DIRECTIONS: [[&str; 2]; 3] = [["forward", "backward"], ["right", "left"], ["up", "down"]];

/// The directions of a movement, such as `slightly forward`, in order of the axes. An axis that moves at most half as far
/// as the one that moves most is "slightly"; one that moves less than [`MOVEMENT_EPSILON_M`] is left out.
#[must_use]
pub fn directions(displacement_m: [f64; 3]) -> Vec<String> {
    directions_above(displacement_m, MOVEMENT_EPSILON_M)
}

/// [`directions`] without the axes that move less than `epsilon_m`.
pub(crate) fn directions_above(displacement_m: [f64; 3], epsilon_m: f64) -> Vec<String> {
    let largest = displacement_m.iter().fold(0.0, |most: f64, part| most.max(part.abs()));
    let moves = displacement_m.iter().zip(DIRECTIONS);
    moves
        .filter(|(part, _)| part.abs() >= epsilon_m)
        .map(|(part, [positive, negative])| {
            let slightly = if part.abs() <= SLIGHT * largest { "slightly " } else { "" };
            format!("{slightly}{}", if *part > 0.0 { positive } else { negative })
        })
        .collect()
}

/// A movement as a sentence: `Slightly move forward, move left, and move down.`
#[must_use]
pub fn movement_sentence(displacement_m: [f64; 3]) -> String {
    let commands: Vec<String> = directions(displacement_m)
        .iter()
        .map(|direction| match direction.strip_prefix("slightly ") {
            Some(direction) => format!("slightly move {direction}"),
            None => format!("move {direction}"),
        })
        .collect();
    let sentence = match commands.as_slice() {
        [] => "stay there".to_owned(),
        [first, second] => format!("{first} and {second}"),
        [start @ .., last] if !start.is_empty() => format!("{}, and {last}", start.join(", ")),
        commands => commands.concat(),
    };
    let mut letters = sentence.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters).chain(['.']).collect()
}

/// How a thing lies relative to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// Farther to the left in the image.
    LeftOf,
    /// Farther to the right in the image.
    RightOf,
    /// Nearer to the camera.
    InFrontOf,
    /// Farther from the camera.
    Behind,
    /// Vertically above.
    Above,
    /// Vertically below.
    Below,
}

/// Least displacement of a clear relation in metres.
const CLEAR_M: f64 = 0.05;
/// Largest horizontal displacement of what is above another, in metres.
const ABOVE_M: f64 = 0.03;
/// How many times as large as the other horizontal displacement that of a clear relation is.
const CLEAR_RATIO: f64 = 1.6;

impl Relation {
    /// The words, such as `left of`.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::LeftOf => "left of",
            Self::RightOf => "right of",
            Self::InFrontOf => "in front of",
            Self::Behind => "behind",
            Self::Above => "above",
            Self::Below => "below",
        }
    }

    /// The relation of a thing to another that lies at `displacement` from it: from the other to the thing. `None` if no
    /// single relation is clear.
    pub(crate) fn of(displacement: Vector) -> Option<Self> {
        let [x, y, z] = displacement;
        let (along, across) = (x.abs(), y.abs());
        if x.hypot(y) <= ABOVE_M {
            let is_clear = z.abs() >= CLEAR_M;
            return is_clear.then_some(if z > 0.0 { Self::Above } else { Self::Below });
        }
        if along >= CLEAR_M && along >= CLEAR_RATIO * across {
            return Some(if x > 0.0 { Self::InFrontOf } else { Self::Behind });
        }
        if across >= CLEAR_M && across >= CLEAR_RATIO * along {
            return Some(if y > 0.0 { Self::RightOf } else { Self::LeftOf });
        }
        None
    }
}

/// The gripper and the objects of a scene with their positions in metres: of the gripper the point between its
/// fingertips, of an object its middle.
#[must_use]
pub fn things(scene: &Scene) -> Vec<(&'static str, [f64; 3])> {
    let objects = scene.bodies.iter().map(|body| (body.kind.name(), body.middle()));
    std::iter::once(("gripper", scene.gripper_position())).chain(objects).collect()
}

/// All clear relations between the things of a scene: the subject, the relation and the object of each.
#[must_use]
pub fn relations(scene: &Scene) -> Vec<(&'static str, Relation, &'static str)> {
    let things = things(scene);
    let pairs =
        things.iter().flat_map(|subject| things.iter().map(move |object| (subject, object)));
    pairs
        .filter(|(subject, object)| subject.0 != object.0)
        .filter_map(|((subject, at), (object, from))| {
            Relation::of(sub(*at, *from)).map(|relation| (*subject, relation, *object))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn movements_are_worded_as_in_the_paper() {
        let sentence = movement_sentence([0.04, -0.02, -0.1]);
        assert_eq!(sentence, "Slightly move forward, slightly move left, and move down.");
        assert_eq!(movement_sentence([-0.1, 0.004, 0.0]), "Move backward.");
        assert_eq!(movement_sentence([0.0, 0.1, 0.08]), "Move right and move up.");
        assert_eq!(movement_sentence([0.0; 3]), "Stay there.");
    }

    #[test]
    fn half_of_the_largest_displacement_is_slight() {
        assert_eq!(directions([0.1, 0.05, -0.051]), ["forward", "slightly right", "down"]);
    }

    #[test]
    fn relations_need_a_clear_direction() {
        assert_eq!(Relation::of([0.1, 0.02, 0.3]), Some(Relation::InFrontOf));
        assert_eq!(Relation::of([-0.02, -0.1, 0.0]), Some(Relation::LeftOf));
        assert_eq!(Relation::of([0.1, 0.1, 0.0]), None);
        assert_eq!(Relation::of([0.04, 0.0, 0.0]), None);
        assert_eq!(Relation::of([0.01, -0.01, 0.1]), Some(Relation::Above));
        assert_eq!(Relation::of([0.01, -0.01, 0.02]), None);
    }

    #[test]
    fn a_relation_is_the_other_way_round_from_the_other_thing() {
        let opposite = [
            (Relation::LeftOf, Relation::RightOf),
            (Relation::InFrontOf, Relation::Behind),
            (Relation::Above, Relation::Below),
        ];
        for displacement in [[0.0, -0.2, 0.1], [0.2, 0.1, -0.1], [0.0, 0.02, 0.2]] {
            let there = Relation::of(displacement).unwrap();
            let back = Relation::of(displacement.map(|part| -part)).unwrap();
            assert!(opposite.contains(&(there, back)), "{there:?} {back:?}");
        }
    }
}
