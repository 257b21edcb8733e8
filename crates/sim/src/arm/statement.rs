//! Statements of one step, in the words of worked answers and of pretraining text.
//!
//! Positions and displacements are in metres along x, y and z; texts have two decimals.

use crate::arm::relation::directions_above;
use crate::arm::space::sub;

/// Axes that move less than this are left out of directions in pretraining text and worked answers, in metres: more than
/// a small model misreads. Robot questions for worked answers need the same.
pub const EPSILON_M: f64 = 0.02;

/// A number with two decimals, never `-0.00`.
#[must_use]
pub fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    if text == "-0.00" { "0.00".to_owned() } else { text }
}

/// A position or a displacement: `0.31 -0.08 0.80`.
#[must_use]
pub fn position(position: [f64; 3]) -> String {
    position.map(number).join(" ")
}

/// Rounded to what its text says.
#[must_use]
pub fn rounded(position: [f64; 3]) -> [f64; 3] {
    position.map(|value| (value * 100.0).round() / 100.0)
}

/// `red cup 0.31 -0.08 0.80.`
#[must_use]
pub fn place(name: &str, at: [f64; 3]) -> String {
    format!("{name} {}.", position(at))
}

/// `red cup 0.31 -0.08 0.80, at 0.93: 0.31 -0.08 0.93.`: the same place at another height.
#[must_use]
pub fn at_height(name: &str, at: [f64; 3], height: f64) -> String {
    let [x, y, _] = at;
    format!("{name} {}, at {}: {}.", position(at), number(height), position([x, y, height]))
}

/// `gripper 0.27 -0.11 1.15, to 0.31 0.08 0.93: 0.04 0.19 -0.22.`: the displacement.
#[must_use]
pub fn displacement(name: &str, from: [f64; 3], to: [f64; 3]) -> String {
    let way = sub(rounded(to), rounded(from));
    format!("{name} {}, to {}: {}.", position(from), position(to), position(way))
}

/// The directions of a displacement that is rounded to centimetres: `slightly forward, right, down`.
#[must_use]
pub fn direction(displacement: [f64; 3]) -> String {
    // A hundredth of a millimetre keeps what is rounded to the bound on its side.
    directions_above(displacement, EPSILON_M - 1e-5).join(", ")
}

/// `move 0.04 0.19 -0.22: slightly forward, right, down.`: the directions of a displacement.
#[must_use]
pub fn named(displacement: [f64; 3]) -> String {
    format!("move {}: {}.", position(displacement), direction(displacement))
}

/// `near 0.31 0.08 0.93: B.`: the option nearest to a position.
#[must_use]
pub fn near(at: [f64; 3], letter: char) -> String {
    format!("near {}: {letter}.", position(at))
}

/// `slightly forward, right, down: D.`: the letter of directions.
#[must_use]
pub fn lettered(phrase: &str, letter: char) -> String {
    format!("{phrase}: {letter}.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_follow_from_what_they_say() {
        let (from, to) = ([0.274, -0.111, 1.154], [0.306, 0.079, 0.931]);
        assert_eq!(place("gripper", from), "gripper 0.27 -0.11 1.15.");
        assert_eq!(
            at_height("red cup", to, 1.0),
            "red cup 0.31 0.08 0.93, at 1.00: 0.31 0.08 1.00."
        );
        let way = displacement("gripper", from, to);
        assert_eq!(way, "gripper 0.27 -0.11 1.15, to 0.31 0.08 0.93: 0.04 0.19 -0.22.");
        assert_eq!(
            named([0.04, 0.19, -0.22]),
            "move 0.04 0.19 -0.22: slightly forward, right, down."
        );
        assert_eq!(near(to, 'B'), "near 0.31 0.08 0.93: B.");
    }

    #[test]
    fn numbers_have_two_decimals_and_zero_has_no_sign() {
        assert_eq!([0.254, -0.111, -0.001].map(number), ["0.25", "-0.11", "0.00"]);
    }

    #[test]
    fn two_centimetres_are_a_direction() {
        assert_eq!(direction(sub(rounded([0.27, 0.0, 0.0]), rounded([0.25, 0.0, 0.0]))), "forward");
        assert_eq!(direction([0.1, 0.01, -0.02]), "forward, slightly down");
        assert_eq!(direction([0.01, 0.0, 0.01]), "");
    }
}
