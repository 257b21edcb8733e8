//! Lettered lists as in the prompts of robot questions, of positions or of directions, with contents that are made up.

use embodied_r_random::Rng;
use embodied_r_sim::arm::DIRECTIONS;
use embodied_r_sim::arm::statement::{lettered, near, number, position};
use embodied_r_sim::wording::letter;

use super::{Vector, made_up, sub};
use crate::corpus::Masked;

/// Least distance of two positions of a list in metres, as in robot questions.
const APART_M: f64 = 0.05;
/// How far off a position is of which the nearest in the list is asked for, along each axis in metres.
const OFF_M: f64 = 0.035;
/// How much nearer the nearest position is than the next one, in metres.
const CLEAR_M: f64 = 0.015;

/// Four positions with letters.
pub(super) struct PositionList(Vec<Vector>);

impl PositionList {
    pub(super) fn random(rng: &mut Rng) -> Self {
        let mut positions: Vec<Vector> = Vec::new();
        // Half of the lists have positions close to each other along some axes.
        let centre = rng.chance(0.5).then(|| made_up(rng));
        while positions.len() < 4 {
            let mut at = made_up(rng);
            if let Some(centre) = centre {
                for (value, centre) in at.iter_mut().zip(centre) {
                    if rng.chance(0.5) {
                        *value = centre + rng.between(-0.06, 0.06);
                    }
                }
            }
            if positions.iter().all(|other| norm(sub(*other, at)) >= APART_M) {
                positions.push(at);
            }
        }
        Self(positions)
    }

    /// A line `A 0.31 0.08 0.93` for each.
    pub(super) fn listed(&self) -> String {
        listed(&self.0.iter().map(|at| position(*at)).collect::<Vec<_>>())
    }

    /// `near 0.31 0.08 0.93: A.` for positions near those of the list.
    pub(super) fn lookups(&self, count: usize, rng: &mut Rng) -> Masked {
        let lookups = (0..count).map(|_| {
            let (at, letter) = self.query(rng);
            Masked::before_colon(near(at, letter), &position(at))
        });
        Masked::join(lookups, "\n")
    }

    /// A position near one of the list, and the letter of that.
    pub(super) fn query(&self, rng: &mut Rng) -> (Vector, char) {
        loop {
            let near = self.0[rng.below(self.0.len())];
            let reach = OFF_M * rng.unit() * rng.unit();
            let at = near.map(|value| value + rng.between(-reach, reach));
            let mut distances: Vec<(f64, usize)> = self
                .0
                .iter()
                .zip(0..)
                .map(|(other, index)| (norm(sub(*other, at)), index))
                .collect();
            distances.sort_by(|a, b| a.0.total_cmp(&b.0));
            if let [(first, index), (second, _), ..] = distances[..]
                && second - first >= CLEAR_M
            {
                return (at, letter(index));
            }
        }
    }
}

/// Fraction of lists of numbers that have several in an option, and how many at most.
const SEVERAL: f64 = 0.6;
const MOST_NUMBERS: usize = 6;
/// Least options of a list of numbers, and most if they have one number each, or several.
const LEAST_OPTIONS: usize = 2;
const MOST_OPTIONS: usize = 8;
const MOST_OPTIONS_OF_SEVERAL: usize = 6;
/// How often each number is looked up, if options have one each.
const ROUNDS: usize = 4;

/// Options of one number each, or of several, with letters; no number occurs twice.
pub(super) struct NumberList {
    options: Vec<Vec<String>>,
    separator: &'static str,
    rounds: usize,
}

impl NumberList {
    pub(super) fn random(rng: &mut Rng) -> Self {
        let (most, most_options, rounds) = match rng.chance(SEVERAL) {
            true => (MOST_NUMBERS, MOST_OPTIONS_OF_SEVERAL, 1),
            false => (1, MOST_OPTIONS, ROUNDS),
        };
        let count = LEAST_OPTIONS + rng.below(most_options - LEAST_OPTIONS + 1);
        let mut options: Vec<Vec<String>> = Vec::new();
        for _ in 0..count {
            let mut option = Vec::new();
            let length = 1 + rng.below(most);
            while option.len() < length {
                let number = number(made_up(rng)[rng.below(3)]);
                if !options.iter().flatten().chain(&option).any(|other| *other == number) {
                    option.push(number);
                }
            }
            options.push(option);
        }
        // As in phrases, or as in positions.
        Self { options, separator: if rng.chance(0.5) { ", " } else { " " }, rounds }
    }

    /// A line `A 0.31 0.08` or `A 0.31, 0.08` for each option.
    pub(super) fn listed(&self) -> String {
        let options = self.options.iter().map(|numbers| numbers.join(self.separator));
        listed(&options.collect::<Vec<_>>())
    }

    /// `near 0.31: A.` or `near 0.31 A.` for every number, in rounds in random order. Without the colon the letter follows at
    /// once on what it is looked up by.
    pub(super) fn lookups(&self, rng: &mut Rng) -> Vec<String> {
        let options = self.options.iter().enumerate();
        let numbers: Vec<(&str, char)> = options
            .flat_map(|(index, numbers)| numbers.iter().map(move |it| (it.as_str(), letter(index))))
            .collect();
        let order: Vec<(&str, char)> =
            (0..self.rounds).flat_map(|_| rng.sample(&numbers, numbers.len())).collect();
        let lookup = |(number, letter): (&str, char)| {
            let colon = if rng.chance(0.5) { ":" } else { "" };
            format!("near {number}{colon} {letter}.")
        };
        order.into_iter().map(lookup).collect()
    }
}

/// The length of a vector.
fn norm([x, y, z]: Vector) -> f64 {
    (x * x + y * y + z * z).sqrt()
}

/// A direction along an axis, of which there are two, and whether it is slight; `None` if the axis does not move.
type Command = Option<(usize, bool)>;

/// Four phrases of directions with letters: the combinations of two changes of a phrase.
pub(super) struct PhraseList(Vec<String>);

impl PhraseList {
    pub(super) fn random(rng: &mut Rng) -> Self {
        loop {
            let commands: [Command; 3] = std::array::from_fn(|_| command(rng));
            let [first, second] = [rng.below(3), rng.below(3)];
            let edits = [changed(commands[first], rng), changed(commands[second], rng)];
            let phrases: Vec<String> = (0..4)
                .filter_map(|index| {
                    let mut commands = commands;
                    if index & 1 != 0 {
                        commands[first] = edits[0];
                    }
                    if index & 2 != 0 {
                        commands[second] = edits[1];
                    }
                    phrase(commands)
                })
                .collect();
            let mut distinct = phrases.clone();
            distinct.sort_unstable();
            distinct.dedup();
            if distinct.len() == 4 {
                rng.shuffle(&mut distinct);
                return Self(distinct);
            }
        }
    }

    /// A line `A slightly forward, down` for each.
    pub(super) fn listed(&self) -> String {
        listed(&self.0)
    }

    /// `slightly forward, down: A.` for some of the list, each once, in random order.
    pub(super) fn lookups(&self, count: usize, rng: &mut Rng) -> Masked {
        let options: Vec<(&String, char)> = self.0.iter().zip((0..).map(letter)).collect();
        let lookups = rng.sample(&options, count).into_iter();
        let lookups =
            lookups.map(|(phrase, letter)| Masked::before_colon(lettered(phrase, letter), phrase));
        Masked::join(lookups.collect::<Vec<_>>(), "\n")
    }

    /// A phrase of the list and its letter.
    pub(super) fn query(&self, rng: &mut Rng) -> (&str, char) {
        let index = rng.below(self.0.len());
        (&self.0[index], letter(index))
    }
}

fn command(rng: &mut Rng) -> Command {
    rng.chance(0.8).then(|| (rng.below(2), rng.chance(0.5)))
}

/// Another command of the axis.
fn changed(command: Command, rng: &mut Rng) -> Command {
    match (command, rng.below(3)) {
        (Some((sign, is_slight)), 0) => Some((1 - sign, is_slight)),
        (Some((sign, is_slight)), 1) => Some((sign, !is_slight)),
        (Some(_), _) => None,
        (None, _) => Some((rng.below(2), rng.chance(0.5))),
    }
}

/// `None` if no axis moves as far as the one that moves most.
fn phrase(commands: [Command; 3]) -> Option<String> {
    let has_full = commands.iter().flatten().any(|(_, is_slight)| !is_slight);
    let words = commands.iter().zip(DIRECTIONS).filter_map(|(command, names)| {
        let (sign, is_slight) = (*command)?;
        Some(format!("{}{}", if is_slight { "slightly " } else { "" }, names[sign]))
    });
    has_full.then(|| words.collect::<Vec<_>>().join(", "))
}

fn listed(options: &[String]) -> String {
    let lines = options.iter().enumerate();
    lines
        .map(|(index, option)| format!("{} {option}", letter(index)))
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_position_has_the_letter() {
        let mut rng = Rng::new(&[3]);
        for _ in 0..200 {
            let list = PositionList::random(&mut rng);
            let (at, letter) = list.query(&mut rng);
            let distance = |index: usize| norm(sub(list.0[index], at));
            let nearest = (0..4).min_by(|a, b| distance(*a).total_cmp(&distance(*b))).unwrap();
            assert_eq!(letter, ['A', 'B', 'C', 'D'][nearest]);
        }
    }

    #[test]
    fn phrases_of_a_list_differ_by_two_changes() {
        let mut rng = Rng::new(&[4]);
        for _ in 0..200 {
            let list = PhraseList::random(&mut rng);
            let (phrase, letter) = list.query(&mut rng);
            assert!(list.listed().lines().any(|line| line == format!("{letter} {phrase}")));
            assert_eq!(list.0.len(), 4);
        }
    }
}
