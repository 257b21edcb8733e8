//! Movements in words: one command for each axis that moves, such as "slightly move left and move down".

use std::fmt::Write as _;

use crate::demonstration::Position;
use crate::robot::Robot;

/// The share of the largest displacement up to which a command is "slightly".
const SLIGHT: f64 = 0.5;

/// The command of one axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Command {
    /// The direction along the axis.
    pub sign: Sign,
    /// How far.
    pub amount: Amount,
}

/// A direction along an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sign {
    /// Towards larger coordinates.
    Positive,
    /// Towards smaller coordinates.
    Negative,
}

/// How far an axis moves beside the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Amount {
    /// More than half as far as the one that moves most.
    Full,
    /// At most half as far.
    Slight,
}

/// The commands of the three axes; `None` where nothing moves. At least one is [`Amount::Full`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Movement([Option<Command>; 3]);

/// How a movement is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wording {
    /// As in the paper: "slightly move forward, slightly move left, and move down".
    Sentence,
    /// In fewer tokens: "slightly forward, slightly left, down".
    Compact,
}

impl Movement {
    /// The movement from one position to another. Axes that move less than `epsilon` metres are left out; `None` if all
    /// do.
    pub fn between(from: Position, to: Position, epsilon: f64) -> Option<Self> {
        let delta = [to[0] - from[0], to[1] - from[1], to[2] - from[2]];
        let largest = delta.iter().fold(0.0, |largest: f64, d| largest.max(d.abs()));
        Self::new(delta.map(|d| {
            let sign = if d > 0.0 { Sign::Positive } else { Sign::Negative };
            let amount = if d.abs() <= SLIGHT * largest { Amount::Slight } else { Amount::Full };
            (d != 0.0 && d.abs() >= epsilon).then_some(Command { sign, amount })
        }))
    }

    /// The movement of these commands; `None` if none is [`Amount::Full`], which no displacement gives.
    pub fn new(commands: [Option<Command>; 3]) -> Option<Self> {
        let is_full = |command: &Option<Command>| {
            command.is_some_and(|command| command.amount == Amount::Full)
        };
        commands.iter().any(is_full).then_some(Self(commands))
    }

    /// The commands of the axes.
    pub fn commands(&self) -> [Option<Command>; 3] {
        self.0
    }

    /// The movement in words of `robot`.
    pub fn text(&self, robot: &Robot, wording: Wording) -> String {
        let phrases: Vec<String> = self
            .0
            .iter()
            .zip(&robot.axes)
            .filter_map(|(command, axis)| {
                let command = (*command)?;
                let direction = match command.sign {
                    Sign::Positive => &axis.forward,
                    Sign::Negative => &axis.backward,
                };
                let slightly = if command.amount == Amount::Slight { "slightly " } else { "" };
                let r#move = if wording == Wording::Sentence { "move " } else { "" };
                Some(format!("{slightly}{move}{direction}"))
            })
            .collect();
        match (wording, phrases.as_slice()) {
            (Wording::Compact, phrases) => phrases.join(", "),
            (Wording::Sentence, [first, second]) => format!("{first} and {second}"),
            (Wording::Sentence, [start @ .., last]) if !start.is_empty() => {
                let mut text = start.join(", ");
                // A string takes all that is written to it.
                let _ = write!(text, ", and {last}");
                text
            }
            (Wording::Sentence, phrases) => phrases.concat(),
        }
    }

    /// The sets of four options that this movement is in. Two independent edits make a set: a sign, "slightly", or the
    /// presence of an axis. It is the same whichever of the four is the answer.
    pub(crate) fn option_sets(&self) -> Vec<[Self; 4]> {
        let mut sets = Vec::new();
        let mut add = |edit: &dyn Fn(usize) -> [Option<Command>; 3]| {
            let set = [0, 1, 2, 3].map(|index| Self::new(edit(index)));
            if let [Some(a), Some(b), Some(c), Some(d)] = set {
                sets.push([a, b, c, d]);
            }
        };
        for first in 0..3 {
            if let Some(Command { sign, amount }) = self.0[first] {
                // Both edits are of the same axis.
                add(&|index| {
                    let mut commands = self.0;
                    let sign = if index & 1 == 0 { sign } else { sign.flipped() };
                    let amount = if index & 2 == 0 { amount } else { amount.flipped() };
                    commands[first] = Some(Command { sign, amount });
                    commands
                });
            }
            for second in first + 1..3 {
                for a in edits(self.0[first]) {
                    for b in edits(self.0[second]) {
                        add(&|index| {
                            let mut commands = self.0;
                            if index & 1 != 0 {
                                commands[first] = a;
                            }
                            if index & 2 != 0 {
                                commands[second] = b;
                            }
                            commands
                        });
                    }
                }
            }
        }
        sets
    }
}

impl Sign {
    fn flipped(self) -> Self {
        match self {
            Self::Positive => Self::Negative,
            Self::Negative => Self::Positive,
        }
    }
}

impl Amount {
    fn flipped(self) -> Self {
        match self {
            Self::Full => Self::Slight,
            Self::Slight => Self::Full,
        }
    }
}

/// What one edit makes of an axis's command. Each can be undone by another one.
fn edits(command: Option<Command>) -> Vec<Option<Command>> {
    match command {
        Some(Command { sign, amount }) => vec![
            Some(Command { sign: sign.flipped(), amount }),
            Some(Command { sign, amount: amount.flipped() }),
            None,
        ],
        None => [Sign::Positive, Sign::Negative]
            .into_iter()
            .flat_map(|sign| [Amount::Full, Amount::Slight].map(|amount| Command { sign, amount }))
            .map(Some)
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn text(to: Position) -> Option<String> {
        let movement = Movement::between([0.0; 3], to, 0.005)?;
        Some(movement.text(&Robot::default(), Wording::Sentence))
    }

    #[test]
    fn a_movement_has_a_command_per_axis_that_moves() {
        let cases = [
            ([0.1, 0.0, 0.0], "move forward"),
            ([0.0, 0.1, -0.1], "move right and move down"),
            ([0.05, -0.04, -0.1], "slightly move forward, slightly move left, and move down"),
            ([-0.1, 0.0049, 0.0], "move backward"),
            ([-0.1, 0.005, 0.0], "move backward and slightly move right"),
            ([0.0, 0.0, 0.2], "move up"),
        ];
        for (to, expected) in cases {
            assert_eq!(text(to).as_deref(), Some(expected), "{to:?}");
        }
        assert_eq!(text([0.004, -0.004, 0.0]), None);
        assert_eq!(text([0.0; 3]), None);
        // An axis that does not move has no command whatever the bound is.
        let movement = Movement::between([0.0; 3], [0.1, 0.0, 0.0], 0.0).unwrap();
        assert_eq!(movement.commands()[1..], [None, None]);
    }

    #[test]
    fn at_half_of_the_largest_displacement_a_command_is_slight() {
        assert_eq!(text([0.5, 1.0, 0.0]).unwrap(), "slightly move forward and move right");
        assert_eq!(text([0.51, 1.0, 0.0]).unwrap(), "move forward and move right");
    }

    #[test]
    fn the_compact_wording_leaves_out_the_verb() {
        let movement = Movement::between([0.0; 3], [0.05, -0.04, -0.1], 0.0).unwrap();
        let text = movement.text(&Robot::default(), Wording::Compact);
        assert_eq!(text, "slightly forward, slightly left, down");
    }

    fn command() -> impl Strategy<Value = Option<Command>> {
        let sign = prop_oneof![Just(Sign::Positive), Just(Sign::Negative)];
        let amount = prop_oneof![Just(Amount::Full), Just(Amount::Slight)];
        prop::option::of((sign, amount).prop_map(|(sign, amount)| Command { sign, amount }))
    }

    #[test]
    fn slightly_is_an_edit_beside_one_of_another_axis() {
        let movement = Movement::between([0.0; 3], [1.0, 1.0, 0.0], 0.1).unwrap();
        let text = |it: Movement| it.text(&Robot::default(), Wording::Compact);
        let expected = [
            "forward, right",
            "backward, right",
            "forward, slightly right",
            "backward, slightly right",
        ];
        assert!(movement.option_sets().into_iter().any(|set| set.map(text) == expected));
    }

    /// The number of axes in which two movements differ.
    fn differing(a: &Movement, b: &Movement) -> usize {
        a.0.iter().zip(&b.0).filter(|(a, b)| a != b).count()
    }

    proptest! {
        #[test]
        fn an_option_set_is_the_same_from_each_of_its_members(
            commands in [command(), command(), command()],
        ) {
            let Some(movement) = Movement::new(commands) else { return Ok(()) };
            let as_set = |options: &[Movement; 4]| options.iter().copied().collect::<BTreeSet<_>>();
            for set in movement.option_sets() {
                prop_assert_eq!(set[0], movement);
                prop_assert_eq!(as_set(&set).len(), 4);
                for member in set {
                    let others: Vec<_> = member.option_sets().iter().map(as_set).collect();
                    prop_assert!(others.contains(&as_set(&set)));
                    // Two of the others are one edit away, and none is more than two axes away.
                    prop_assert!(set.iter().all(|other| differing(&member, other) <= 2));
                }
            }
        }

        #[test]
        fn a_movement_names_the_axes_that_move(delta in [-1.0f64..1.0, -1.0f64..1.0, -1.0f64..1.0]) {
            let movement = Movement::between([0.0; 3], delta, 0.1);
            prop_assert_eq!(movement.is_some(), delta.iter().any(|d| d.abs() >= 0.1));
            for (command, d) in movement.iter().flat_map(|it| it.0.iter().zip(delta)) {
                prop_assert_eq!(command.is_some(), d.abs() >= 0.1);
                let sign = command.map(|command| command.sign == Sign::Positive);
                prop_assert!(sign.is_none_or(|positive| positive == (d > 0.0)));
            }
        }
    }
}
