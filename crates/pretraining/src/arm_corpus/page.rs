//! Lines of statements of random kinds.

use embodied_r_random::Rng;
use embodied_r_sim::arm::statement::{
    at_height, direction, displacement, lettered, named, near, number, place, position, rounded,
};

use super::lists::{PhraseList, PositionList};
use super::{Vector, made_up, sub};
use crate::corpus::Masked;

/// Fraction of steps from a value that a note states before.
const NOTED: f64 = 0.9;
/// Fraction of lines after the first that are about the prompt's subjects.
const SUBJECT_BETWEEN: f64 = 0.4;

/// A kind of line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Practice {
    /// Where a thing is.
    Place,
    /// A thing's place at another height.
    Height,
    /// What the gripper does.
    Hand,
    /// How a thing lies to another.
    Relation,
    /// The displacement from a thing to a position.
    Displacement,
    /// The directions of a displacement.
    Direction,
    /// The letter of the nearest position.
    Near,
    /// The letter of directions.
    Letter,
}

impl Practice {
    /// All kinds with their weights.
    pub(super) const LINES: [(Self, usize); 8] = [
        (Self::Place, 5),
        (Self::Height, 4),
        (Self::Hand, 2),
        (Self::Relation, 3),
        (Self::Displacement, 7),
        (Self::Direction, 4),
        (Self::Near, 7),
        (Self::Letter, 7),
    ];

    /// Kinds that follow each other in a rationale. A place before what the gripper does is left out: both are read from the
    /// frame, and neither prepares the other.
    const RATIONALES: [(Self, Self); 8] = [
        (Self::Hand, Self::Relation),
        (Self::Hand, Self::Height),
        (Self::Relation, Self::Height),
        (Self::Height, Self::Displacement),
        (Self::Height, Self::Near),
        (Self::Displacement, Self::Direction),
        (Self::Direction, Self::Letter),
        (Self::Place, Self::Near),
    ];

    /// Whether this kind may follow on `before`: it is another kind, and the two are no part of a rationale.
    fn may_follow(self, before: Option<Self>) -> bool {
        before.is_none_or(|before| before != self && !Self::RATIONALES.contains(&(before, self)))
    }
}

/// A step.
struct Step {
    text: String,
    /// What it says before its colon that is made up.
    made_up: Option<String>,
    /// Whether a note may state that before.
    is_notable: bool,
}

impl Step {
    /// A step that follows from the frame or the list.
    fn seen(text: String) -> Self {
        Self { text, made_up: None, is_notable: false }
    }

    /// A step from a value that is made up.
    fn from(value: String, text: String) -> Self {
        Self { text, made_up: Some(value), is_notable: true }
    }

    /// The step, often after a note. What is made up is masked where it is said first.
    fn line(self, rng: &mut Rng) -> Masked {
        let Self { text, made_up, is_notable } = self;
        match made_up {
            None => text.into(),
            Some(value) if is_notable && rng.chance(NOTED) => after_note(&value, &text),
            Some(value) => Masked::before_colon(text, &value),
        }
    }
}

/// A note of a made-up value, `noted 0.31 0.08 0.93.`, then a step from it.
fn after_note(value: &str, step: &str) -> Masked {
    Masked::first(format!("noted {value}. {step}"), value)
}

/// What the lines of a document are about.
#[derive(Default)]
pub(super) struct Page {
    /// The gripper, then the objects, with their positions.
    pub(super) things: Vec<(&'static str, Vector)>,
    pub(super) hand: Option<String>,
    pub(super) relations: Vec<String>,
    pub(super) positions: Option<PositionList>,
    pub(super) phrases: Option<PhraseList>,
    /// The things that the first line and some others are about, in turn.
    pub(super) subjects: Vec<&'static str>,
}

impl Page {
    /// Lines of random kinds with `words` words or more in all; kinds that lack their context are left out.
    pub(super) fn lines(
        &self,
        words: usize,
        practice: &[(Practice, usize)],
        rng: &mut Rng,
    ) -> Vec<Masked> {
        let kinds: Vec<Practice> = practice
            .iter()
            .flat_map(|(kind, weight)| std::iter::repeat_n(*kind, *weight))
            .collect();
        let mut turns = self.subjects.iter().cycle().peekable();
        let (mut lines, mut count, mut before) = (Vec::new(), 0, None);
        while count < words {
            let is_next = lines.is_empty() || rng.chance(SUBJECT_BETWEEN);
            let subject = turns.peek().copied().copied().filter(|_| is_next);
            let kind = match subject {
                Some(_) => rng.pick(&[Practice::Place, Practice::Height]).copied(),
                None => rng.pick(&kinds).copied(),
            };
            let Some(kind) = kind.filter(|kind| kind.may_follow(before)) else { continue };
            let Some(step) = self.stated(kind, subject, rng) else { continue };
            let line = step.line(rng);
            if subject.is_some() {
                turns.next();
            }
            count += line.text.split_whitespace().count();
            lines.push(line);
            before = Some(kind);
        }
        lines
    }

    /// A made-up position or directions, a statement of the letter that follows, and that letter.
    fn option(&self, rng: &mut Rng) -> Option<(String, String, char)> {
        if let Some(list) = &self.positions {
            let (at, letter) = list.query(rng);
            return Some((position(at), near(at, letter), letter));
        }
        let (phrase, letter) = self.phrases.as_ref()?.query(rng);
        Some((phrase.to_owned(), lettered(phrase, letter), letter))
    }

    /// A note of a made-up value, a lookup of that in the list, and its letter: no line before prepares it.
    pub(super) fn conclusion(&self, rng: &mut Rng) -> (Masked, char) {
        let Some((value, statement, letter)) = self.option(rng) else { return Default::default() };
        (after_note(&value, &statement), letter)
    }

    /// A step without a note before; `None` if it needs a context that the page lacks.
    pub(super) fn step(&self, kind: Practice, rng: &mut Rng) -> Option<String> {
        self.stated(kind, None, rng).map(|step| step.text)
    }

    /// A step of a kind about a thing; `None` if it needs a context that the page lacks.
    fn stated(&self, kind: Practice, subject: Option<&str>, rng: &mut Rng) -> Option<Step> {
        Some(match kind {
            Practice::Place => {
                let (name, at) = self.thing(subject, rng)?;
                Step::seen(place(name, at))
            }
            Practice::Height => {
                let (name, at) = self.thing(subject, rng)?;
                let height = made_up(rng)[2];
                Step {
                    text: at_height(name, at, height),
                    made_up: Some(number(height)),
                    is_notable: false,
                }
            }
            Practice::Hand => Step::seen(format!("{}.", self.hand.as_ref()?)),
            Practice::Relation => Step::seen(format!("{}.", rng.pick(&self.relations)?)),
            Practice::Displacement => {
                let (name, from) = *self.things.first()?;
                let to = self.destination(from, rng);
                Step::from(position(to), displacement(name, from, to))
            }
            Practice::Direction => {
                let way = made_up_displacement(rng);
                Step::from(position(way), named(way))
            }
            Practice::Near => {
                let (at, letter) = self.positions.as_ref()?.query(rng);
                Step::from(position(at), near(at, letter))
            }
            Practice::Letter => {
                let (phrase, letter) = self.phrases.as_ref()?.query(rng);
                Step::from(phrase.to_owned(), lettered(phrase, letter))
            }
        })
    }

    /// The named thing, or a random one. The gripper is drawn as often as two objects.
    fn thing(&self, name: Option<&str>, rng: &mut Rng) -> Option<(&'static str, Vector)> {
        let found = |name: &str| self.things.iter().find(|(other, _)| *other == name).copied();
        match name {
            Some(name) => found(name),
            None => {
                let drawn = rng.below(self.things.len() + 1);
                self.things.get(drawn.saturating_sub(1)).copied()
            }
        }
    }

    /// A made-up place to go to: anywhere, or above or below the gripper or an object.
    fn destination(&self, from: Vector, rng: &mut Rng) -> Vector {
        let mut to = made_up(rng);
        let above = match rng.below(4) {
            0 => Some(from),
            1 | 2 => self.thing(None, rng).map(|(_, at)| at),
            _ => None,
        };
        if let Some(above) = above {
            (0..2).for_each(|axis| to[axis] = above[axis] + rng.between(-0.012, 0.012));
        }
        to
    }
}

/// A displacement between two made-up positions, with a direction; some axes hardly move.
fn made_up_displacement(rng: &mut Rng) -> Vector {
    loop {
        let mut way = sub(rounded(made_up(rng)), rounded(made_up(rng)));
        for value in &mut way {
            if rng.chance(0.25) {
                *value = rng.between(-0.05, 0.05);
            }
        }
        if !direction(rounded(way)).is_empty() {
            return rounded(way);
        }
    }
}
