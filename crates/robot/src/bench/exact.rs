//! Scores by rules, from what is true of a simulated scene.

mod movement_text;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::movement::{Amount, Movement, Sign};
use movement_text::MovementText;

/// What is true of the scene of a question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Facts {
    /// Of a movement: how far the gripper is to move, in metres.
    Movement {
        /// Along the axes of the world: x toward the camera, y to its right, z up.
        displacement: Displacement,
    },
    /// Of a spatial question: how `subject` lies relative to `object`.
    Spatial {
        /// Such as `left of`; several, joined by `and`.
        relation: String,
        /// The thing that the answer is about.
        subject: String,
        /// The thing that it is related to.
        object: String,
    },
}

/// A displacement in metres.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Displacement {
    /// Toward the camera.
    pub x: f64,
    /// To the camera's right.
    pub y: f64,
    /// Up.
    pub z: f64,
}

/// A direction that an answer names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Direction {
    Forward,
    Backward,
    Right,
    Left,
    Up,
    Down,
}

/// Words for relations, by their directions; those of several words come first.
const DIRECTIONS: [(&str, Direction); 36] = [
    ("away from the camera", Direction::Backward),
    ("toward the camera", Direction::Forward),
    ("towards the camera", Direction::Forward),
    ("away from camera", Direction::Backward),
    ("toward camera", Direction::Forward),
    ("towards camera", Direction::Forward),
    ("in front of", Direction::Forward),
    ("to the front", Direction::Forward),
    ("on top of", Direction::Up),
    ("forward", Direction::Forward),
    ("forwards", Direction::Forward),
    ("front", Direction::Forward),
    ("backward", Direction::Backward),
    ("backwards", Direction::Backward),
    ("back", Direction::Backward),
    ("behind", Direction::Backward),
    ("right", Direction::Right),
    ("rightward", Direction::Right),
    ("rightwards", Direction::Right),
    ("left", Direction::Left),
    ("leftward", Direction::Left),
    ("leftwards", Direction::Left),
    ("up", Direction::Up),
    ("upward", Direction::Up),
    ("upwards", Direction::Up),
    ("above", Direction::Up),
    ("raise", Direction::Up),
    ("on", Direction::Up),
    ("over", Direction::Up),
    ("down", Direction::Down),
    ("downward", Direction::Down),
    ("downwards", Direction::Down),
    ("below", Direction::Down),
    ("under", Direction::Down),
    ("beneath", Direction::Down),
    ("lower", Direction::Down),
];

/// Words after which a relation is denied.
const DENIALS: [&str; 4] = ["not", "no", "without", "never"];

impl Direction {
    fn opposite(self) -> Self {
        match self {
            Self::Forward => Self::Backward,
            Self::Backward => Self::Forward,
            Self::Right => Self::Left,
            Self::Left => Self::Right,
            Self::Up => Self::Down,
            Self::Down => Self::Up,
        }
    }
}

/// The score from 0 to 3 of `answer`, in the judge's scale. Axes that are to move less than `epsilon` metres need not be
/// named.
///
/// 3: the same set of directions, and "slightly" at the same ones. 2: the same set of directions. 1: at least one of them,
/// none opposite or denied, but one missing or added. 0: anything else. Of a spatial question, an answer that names the
/// things the other way round is read so.
pub fn exact_score(facts: &Facts, answer: &str, epsilon: f64) -> u8 {
    match facts {
        Facts::Movement { displacement: Displacement { x, y, z } } => {
            let truth = Movement::between([0.0; 3], [*x, *y, *z], epsilon);
            let truth = truth.map(named_in).unwrap_or_default();
            let MovementText { named, denied } = MovementText::read(answer);
            let is_denied = truth.iter().any(|(direction, _)| denied.contains(direction));
            compare(&truth, &(!is_denied).then_some(named))
        }
        Facts::Spatial { relation, subject, object } => {
            let mut found = named(answer);
            if is_inverted(answer, subject, object) {
                let invert =
                    |(direction, amount): (Direction, Amount)| (direction.opposite(), amount);
                found = found.map(|found| found.into_iter().map(invert).collect());
            }
            compare(&named(relation).unwrap_or_default(), &found)
        }
    }
}

type Named = BTreeSet<(Direction, Amount)>;

/// The directions of a movement.
fn named_in(movement: Movement) -> Named {
    let axes = [
        (Direction::Forward, Direction::Backward),
        (Direction::Right, Direction::Left),
        (Direction::Up, Direction::Down),
    ];
    let commands = movement.commands().into_iter().zip(axes);
    let named = commands.filter_map(|(command, (positive, negative))| {
        let command = command?;
        let direction = if command.sign == Sign::Positive { positive } else { negative };
        Some((direction, command.amount))
    });
    named.collect()
}

fn compare(truth: &Named, found: &Option<Named>) -> u8 {
    let Some(found) = found else { return 0 };
    let directions = |set: &Named| set.iter().map(|(it, _)| *it).collect::<BTreeSet<_>>();
    let (wanted, given) = (directions(truth), directions(found));
    if truth == found {
        3
    } else if wanted == given {
        2
    } else if wanted.iter().any(|it| given.contains(&it.opposite())) {
        0
    } else {
        u8::from(!wanted.is_disjoint(&given))
    }
}

/// The words of a text in lower case, each with a space before it, and one at the end.
fn normalized(text: &str) -> String {
    let lower = text.to_lowercase();
    let words = lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.fold(" ".to_owned(), |mut text, word| {
        text.push_str(word);
        text.push(' ');
        text
    })
}

/// The relations that a text names; `None` if it denies one. "slightly" says nothing about a relation.
fn named(text: &str) -> Option<Named> {
    let text = normalized(text);
    let mut rest = text.as_str();
    let mut found = Named::new();
    let starts =
        |rest: &str, words: &str| rest.strip_prefix(words).is_some_and(|it| it.starts_with(' '));
    let mut is_denied = false;
    while let Some(next) = rest.strip_prefix(' ').filter(|next| !next.is_empty()) {
        let mut taken = next.find(' ').unwrap_or(next.len());
        if DENIALS.iter().any(|denial| starts(next, denial)) {
            is_denied = true;
        } else if let Some((words, direction)) =
            DIRECTIONS.iter().find(|(words, _)| starts(next, words))
        {
            if is_denied {
                return None;
            }
            found.insert((*direction, Amount::Full));
            taken = words.len();
        }
        rest = &next[taken..];
    }
    Some(found)
}

/// Whether a text names `object` before `subject`.
fn is_inverted(text: &str, subject: &str, object: &str) -> bool {
    let text = normalized(text);
    let at = |name: &str| text.find(&normalized(name));
    matches!((at(subject), at(object)), (Some(subject), Some(object)) if object < subject)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn movement(x: f64, y: f64, z: f64) -> Facts {
        Facts::Movement { displacement: Displacement { x, y, z } }
    }

    fn spatial(relation: &str) -> Facts {
        let (subject, object) = ("red cup".to_owned(), "button".to_owned());
        Facts::Spatial { relation: relation.to_owned(), subject, object }
    }

    #[track_caller]
    fn scores(facts: &Facts, answers: &[(&str, u8)]) {
        for (answer, expected) in answers {
            assert_eq!(exact_score(facts, answer, 0.005), *expected, "{answer}");
        }
    }

    #[test]
    fn movements_are_compared_by_their_directions() {
        scores(
            &movement(0.04, -0.02, -0.1),
            &[
                ("Slightly move forward, slightly move left, and move down.", 3),
                ("Move a little towards the camera and to the left a bit, lower the arm", 3),
                ("move forward, left and down", 2),
                ("move down", 1),
                ("move down and right", 0),
                ("move up", 0),
                ("do not move down", 0),
                ("grasp the cup", 0),
                ("", 0),
            ],
        );
    }

    #[test]
    fn axes_that_hardly_move_need_not_be_named() {
        scores(&movement(0.004, 0.0, 0.2), &[("Up.", 3), ("Up and forward", 1)]);
    }

    #[test]
    fn relations_are_compared_either_way_round() {
        scores(
            &spatial("left of"),
            &[
                ("The red cup is to the left of the button.", 3),
                ("left", 3),
                ("The button is right of the red cup.", 3),
                ("The button is left of the red cup.", 0),
                ("The red cup is slightly left of the button", 3),
                ("It is not left of the button", 0),
                ("behind", 0),
                ("left and behind", 1),
            ],
        );
        scores(&spatial("left of and behind"), &[("behind and left", 3), ("behind", 1)]);
        scores(&spatial("in front of"), &[("in front", 3), ("the cup is closer", 0)]);
        scores(&spatial("above"), &[("over the button", 3), ("on top of it", 3), ("under it", 0)]);
    }

    #[test]
    fn facts_are_read_by_their_fields() {
        let text = r#"{"displacement": {"x": 0.1, "y": 0, "z": -0.2}}"#;
        assert_eq!(serde_json::from_str::<Facts>(text).unwrap(), movement(0.1, 0.0, -0.2));
        let text = r#"{"relation": "above", "subject": "red cup", "object": "button"}"#;
        assert_eq!(serde_json::from_str::<Facts>(text).unwrap(), spatial("above"));
    }
}
