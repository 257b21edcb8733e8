//! Lines of statements of random kinds.

use embodied_r_random::Rng;

use super::lists::{PhraseList, PositionList};
use super::made_up;
use super::statement::{
    at_height, direction, displacement, lettered, named, near, note, number, place, position,
    rounded,
};
use crate::arm::space::{Vector, sub};
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

    /// Kinds that follow each other in a rationale.
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
enum Stated {
    /// One that follows from the frame or the list.
    Seen(String),
    /// One at a height that is made up.
    At(String, String),
    /// One from a value that is made up.
    From(String, String),
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
            let Some(line) = self.line(kind, subject, rng) else { continue };
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
        (Masked::first(format!("{} {statement}", note(&value)), &value), letter)
    }

    /// A step without a note before; `None` if it needs a context that the page lacks.
    pub(super) fn step(&self, kind: Practice, rng: &mut Rng) -> Option<String> {
        Some(match self.stated(kind, None, rng)? {
            Stated::Seen(text) | Stated::At(_, text) | Stated::From(_, text) => text,
        })
    }

    /// A line; `None` if it needs a context that the page lacks.
    fn line(&self, kind: Practice, subject: Option<&str>, rng: &mut Rng) -> Option<Masked> {
        Some(match self.stated(kind, subject, rng)? {
            Stated::Seen(text) => Masked::none(text),
            Stated::At(height, text) => {
                let from = text.find(", at").unwrap_or_default();
                Masked::first_after(text, from, &height)
            }
            Stated::From(value, text) => noted(&value, text, rng),
        })
    }

    fn stated(&self, kind: Practice, subject: Option<&str>, rng: &mut Rng) -> Option<Stated> {
        Some(match kind {
            Practice::Place => {
                let (name, at) = self.thing(subject, rng)?;
                Stated::Seen(place(name, at))
            }
            Practice::Height => {
                let (name, at) = self.thing(subject, rng)?;
                let height = made_up(rng)[2];
                Stated::At(number(height), at_height(name, at, height))
            }
            Practice::Hand => Stated::Seen(format!("{}.", self.hand.as_ref()?)),
            Practice::Relation => Stated::Seen(format!("{}.", rng.pick(&self.relations)?)),
            Practice::Displacement => {
                let (name, from) = *self.things.first()?;
                let to = self.destination(from, rng);
                Stated::From(position(to), displacement(name, from, to))
            }
            Practice::Direction => {
                let way = made_up_displacement(rng);
                Stated::From(position(way), named(way))
            }
            Practice::Near => {
                let (at, letter) = self.positions.as_ref()?.query(rng);
                Stated::From(position(at), near(at, letter))
            }
            Practice::Letter => {
                let (phrase, letter) = self.phrases.as_ref()?.query(rng);
                Stated::From(phrase.to_owned(), lettered(phrase, letter))
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

/// A step from a value, often after a note of that value. The value is made up where it is said first.
fn noted(value: &str, step: String, rng: &mut Rng) -> Masked {
    if rng.chance(NOTED) {
        return Masked::first(format!("{} {step}", note(value)), value);
    }
    // A displacement says first where it starts.
    let from = step.find(", to ").map_or(0, |at| at + ", to".len());
    Masked::first_after(step, from, value)
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
