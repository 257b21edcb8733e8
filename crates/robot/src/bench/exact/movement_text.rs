//! The directions that a text about a movement names.
//!
//! A text is read clause by clause. Words about a place ("toward the button on the left"), a rotation, or the gripper are
//! no directions; "slightly" holds for the next direction of its clause, or else for the last.

use std::collections::{BTreeMap, BTreeSet};

use super::{Direction, Named};
use crate::movement::Amount;

/// The directions that a text names, and those that it denies.
#[derive(Debug, Default, PartialEq)]
pub(super) struct MovementText {
    pub(super) named: Named,
    pub(super) denied: BTreeSet<Direction>,
}

/// Words beside a verb: "move left", "to the left".
const ADVERBS: [(Direction, &[&str]); 6] = [
    (Direction::Forward, &["forward", "forwards", "front"]),
    (Direction::Backward, &["backward", "backwards", "back"]),
    (Direction::Right, &["right", "rightward", "rightwards"]),
    (Direction::Left, &["left", "leftward", "leftwards"]),
    (Direction::Up, &["up", "upward", "upwards", "higher"]),
    (Direction::Down, &["down", "downward", "downwards"]),
];

/// Stems of verbs with a direction of their own.
const VERBS: [(Direction, &[&str]); 4] = [
    (Direction::Forward, &["advanc"]),
    (Direction::Backward, &["retreat", "retract", "revers", "withdr"]),
    (Direction::Up, &["rais", "lift", "ascend", "ris", "elevat", "climb"]),
    (Direction::Down, &["lower", "descend", "sink"]),
];

/// What is left of a verb after its stem.
const ENDINGS: [&str; 9] = ["", "e", "s", "es", "ed", "ing", "aw", "awing", "ion"];

const SLIGHT: [&str; 11] = [
    "slightly",
    "marginally",
    "somewhat",
    "barely",
    "small",
    "tiny",
    "nudge",
    "nudging",
    "a little",
    "a bit",
    "a touch",
];
const DENIALS: [&str; 8] =
    ["not", "no", "never", "without", "avoid", "avoiding", "instead of", "rather than"];
/// Stems of words for rotations.
const ROTATIONS: [&str; 6] = ["rotat", "turn", "twist", "spin", "roll", "tilt"];
/// What follows is a place, unless it is a direction or the camera.
const PREPOSITIONS: [&str; 17] = [
    "to", "toward", "towards", "onto", "above", "over", "at", "near", "beside", "by", "under",
    "below", "until", "from", "on", "behind", "in",
];
const ARTICLES: [&str; 7] = ["the", "its", "your", "a", "very", "that", "it"];
/// They join words, or clauses.
const JOINTS: [&str; 3] = ["and", "or", ","];
/// They begin a clause.
const CUTS: [&str; 12] =
    ["then", "but", "while", "with", "before", "after", "instead", ".", ";", ":", "!", "?"];
/// What can be right or left without moving there.
const SIDED: [&str; 4] = ["arm", "gripper", "finger", "wrist"];
/// "right above" is no direction.
const AFTER_RIGHT: [&str; 12] = [
    "above", "over", "below", "now", "away", "next", "before", "after", "until", "at", "on", "onto",
];
/// "go back up" returns.
const AFTER_RETURN: [&str; 7] = ["up", "down", "to", "toward", "towards", "into", "over"];

impl MovementText {
    /// Reads a text, in any case.
    pub(super) fn read(text: &str) -> Self {
        let words = words(text);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (mut reader, mut rest) = (Reader::default(), words.as_slice());
        while !rest.is_empty() {
            rest = &rest[reader.take(rest).clamp(1, rest.len())..];
        }
        reader.end_clause();
        Self { named: reader.found.into_iter().collect(), denied: reader.denied }
    }
}

/// Words and punctuation, in lower case.
fn words(text: &str) -> Vec<String> {
    let text = text.to_lowercase().replace('\u{2019}', "'").replace("n't", " not");
    let mut words = vec![String::new()];
    for c in text.chars() {
        if c.is_alphanumeric() {
            if let Some(word) = words.last_mut() {
                word.push(c);
            }
        } else {
            let mark = if ".,;:!?".contains(c) { c.to_string() } else { String::new() };
            words.extend([mark, String::new()]);
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// What is known at a word.
#[derive(Default)]
struct Reader {
    found: BTreeMap<Direction, Amount>,
    denied: BTreeSet<Direction>,
    is_denied: bool,
    is_rotation: bool,
    clause: Clause,
}

/// The state of a clause.
#[derive(Default)]
struct Clause {
    /// Whether it has a word.
    has_words: bool,
    /// "slightly", which waits for a direction.
    is_slight: bool,
    /// Its last direction.
    last: Option<Direction>,
    /// Whether the words are about a place.
    is_place: bool,
    /// What happens to a height.
    height: Option<Direction>,
}

impl Reader {
    /// Takes the first of the `words`, which are not empty; returns how many it has taken.
    fn take(&mut self, words: &[&str]) -> usize {
        let (word, next) = (words[0], words.get(1).copied().unwrap_or_default());
        let denial = starting(&DENIALS, words);
        if JOINTS.contains(&word) || (CUTS.contains(&word) && denial.is_none()) {
            self.end_clause();
            // "not left or up" goes on, "not left, move up" does not.
            let goes_on = JOINTS.contains(&word) && direction_after(&words[1..]).is_some();
            self.is_denied &= goes_on;
            self.is_rotation &= goes_on;
            return 1;
        }
        let is_first = !std::mem::replace(&mut self.clause.has_words, true);
        if let Some(count) = starting(&SLIGHT, words) {
            self.clause.is_slight = true;
            return count;
        }
        if let Some(count) = denial {
            self.is_denied = (word, next) != ("not", "only");
            return count;
        }
        match word {
            "increase" | "increasing" => self.clause.height = Some(Direction::Up),
            "decrease" | "decreasing" | "reduce" | "reducing" => {
                self.clause.height = Some(Direction::Down);
            }
            "height" => self.clause.height.into_iter().for_each(|height| self.add(height)),
            "back" if is_first && next == "up" => {
                self.add(Direction::Backward);
                return 2;
            }
            "back" if !is_first && AFTER_RETURN.contains(&next) => {}
            "right" | "left" if SIDED.contains(&next) => {}
            "right" if AFTER_RIGHT.contains(&next) => {}
            _ if has_stem(word, &ROTATIONS) => self.is_rotation = true,
            _ if self.clause.is_place => {}
            "approach" | "approaching" => return self.place(words, Direction::Forward),
            "from" => return self.place(words, Direction::Backward),
            _ if PREPOSITIONS.contains(&word) => return self.place(words, Direction::Forward),
            _ => adverb(word).or_else(|| verb(word)).into_iter().for_each(|it| self.add(it)),
        }
        1
    }

    /// Takes a preposition: before a direction it says nothing, otherwise a place follows; the camera as a place is the
    /// direction `camera`.
    fn place(&mut self, words: &[&str], camera: Direction) -> usize {
        let articles = words[1..].iter().take_while(|word| ARTICLES.contains(word)).count();
        match words.get(1 + articles).copied() {
            Some("to") if matches!(words[0], "over" | "on") => return 1,
            Some("camera" | "viewer") => self.add(camera),
            Some(word) if adverb(word).is_some() => return 1 + articles,
            _ => {}
        }
        self.clause.is_place = true;
        1
    }

    fn add(&mut self, direction: Direction) {
        if self.is_rotation {
            return;
        }
        if self.is_denied {
            self.denied.insert(direction);
            return;
        }
        match std::mem::take(&mut self.clause.is_slight) {
            true => _ = self.found.insert(direction, Amount::Slight),
            false => _ = self.found.entry(direction).or_insert(Amount::Full),
        }
        self.clause.last = Some(direction);
    }

    fn end_clause(&mut self) {
        let Clause { is_slight, last, .. } = std::mem::take(&mut self.clause);
        if let (true, Some(last)) = (is_slight, last) {
            self.found.insert(last, Amount::Slight);
        }
    }
}

/// The number of words of the phrase that `words` begin with.
fn starting(phrases: &[&str], words: &[&str]) -> Option<usize> {
    let begins = |phrase: &&&str| {
        let mut words = words.iter();
        phrase.split(' ').all(|word| words.next() == Some(&word))
    };
    phrases.iter().find(begins).map(|phrase| phrase.split(' ').count())
}

/// The adverb that follows joints and articles.
fn direction_after(words: &[&str]) -> Option<Direction> {
    let is_small = |word: &&&str| {
        JOINTS.contains(*word) || CUTS.contains(*word) || ARTICLES.contains(*word) || **word == "to"
    };
    words.iter().find(|word| !is_small(word)).and_then(|word| adverb(word))
}

fn adverb(word: &str) -> Option<Direction> {
    let (direction, _) = ADVERBS.iter().find(|(_, words)| words.contains(&word))?;
    Some(*direction)
}

fn verb(word: &str) -> Option<Direction> {
    let (direction, _) = VERBS.iter().find(|(_, stems)| has_stem(word, stems))?;
    Some(*direction)
}

fn has_stem(word: &str, stems: &[&str]) -> bool {
    let rest = |stem: &&str| word.strip_prefix(*stem);
    stems.iter().filter_map(rest).any(|rest| ENDINGS.contains(&rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn reads(text: &str, named: &[(Direction, Amount)], denied: &[Direction]) {
        let expected = MovementText {
            named: named.iter().copied().collect(),
            denied: denied.iter().copied().collect(),
        };
        assert_eq!(MovementText::read(text), expected, "{text}");
    }

    use Amount::{Full, Slight};
    use Direction::{Backward, Down, Forward, Left, Right, Up};

    #[test]
    fn a_place_is_no_direction() {
        reads("Descend toward the cup on the left.", &[(Down, Full)], &[]);
        reads("Move to the right of the lid", &[(Right, Full)], &[]);
        reads("move away from the camera", &[(Backward, Full)], &[]);
        reads("move to the camera", &[(Forward, Full)], &[]);
        reads("lift it right above the box", &[(Up, Full)], &[]);
    }

    #[test]
    fn slightly_holds_for_the_next_direction_of_its_clause_or_else_the_last() {
        reads("slightly left and down", &[(Left, Slight), (Down, Full)], &[]);
        reads("left a bit, lower the arm", &[(Left, Slight), (Down, Full)], &[]);
    }

    #[test]
    fn a_denial_or_a_rotation_goes_on_in_a_list_of_directions() {
        reads("Do not move left, right, or up.", &[], &[Left, Right, Up]);
        reads("Do not move left, but move up.", &[(Up, Full)], &[Left]);
        reads("Not only down but also left", &[(Down, Full), (Left, Full)], &[]);
        reads("Turn right and left, and raise the arm", &[(Up, Full)], &[]);
    }
}
