//! Statements without a video: sums of angles, comparisons, letters of choices.

use super::choices::Choices;
use crate::caption_trace::bearing_text;
use crate::catalogue::KINDS;
use crate::geometry::wrap_whole;
use crate::rationale::{Quadrant, target_text};
use crate::rng::Rng;

/// A random line of drills.
pub(super) fn any(rng: &mut Rng) -> String {
    match rng.below(6) {
        0 | 1 => lettered_choices(rng),
        2 => repeated(rng, turn),
        3 => repeated(rng, direction),
        4 => repeated(rng, comparison),
        _ => repeated(rng, quadrant),
    }
}

fn repeated(rng: &mut Rng, statement: fn(&mut Rng) -> String) -> String {
    let count = 2 + rng.below(4);
    (0..count).map(|_| statement(rng)).collect::<Vec<_>>().join(" ")
}

/// A multiple of 10 within (-180, 180].
fn angle(rng: &mut Rng) -> i32 {
    wrap_whole(10 * rng.below(36) as i32)
}

/// A random rotation as in captions.
fn rotation(rng: &mut Rng) -> i32 {
    wrap_whole(30 * (1 + rng.below(11)) as i32)
}

/// `left 30, rotate left 60: right 30.`
fn turn(rng: &mut Rng) -> String {
    let (bearing, turn) = (angle(rng), rotation(rng));
    let side = if turn > 0 { "left" } else { "right" };
    let after = bearing_text(wrap_whole(bearing - turn));
    format!("{}, rotate {side} {}: {after}.", bearing_text(bearing), turn.abs())
}

/// `target left 150, right 30: left 120. lamp left 90, off 30.`
fn direction(rng: &mut Rng) -> String {
    let (target_statement, target) = target_text(angle(rng), angle(rng));
    let direction = angle(rng);
    let name = rng.pick(&KINDS).map_or("", |kind| kind.name);
    let off = wrap_whole(direction - target).abs();
    format!("{target_statement} {name} {}, off {off}.", bearing_text(direction))
}

/// `left 30 is ahead.`
fn quadrant(rng: &mut Rng) -> String {
    let bearing = angle(rng);
    format!("{} is {}.", bearing_text(bearing), Quadrant::of(f64::from(bearing)).direction())
}

/// The smallest of some numbers.
fn comparison(rng: &mut Rng) -> String {
    let count = 2 + rng.below(3);
    let tens: Vec<i32> = (0..19).map(|tens| 10 * tens).collect();
    let numbers = rng.sample(&tens, count);
    let least = numbers.iter().min().copied().unwrap_or_default();
    let listed: Vec<_> = numbers.iter().map(i32::to_string).collect();
    format!("least of {}: {least}.", listed.join(", "))
}

/// Lettered choices, then the letters of some.
fn lettered_choices(rng: &mut Rng) -> String {
    let choices = Choices::of_anything(rng);
    format!("{}\n{}", choices.listed(), choices.with_some_letters(rng))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(statement: fn(&mut Rng) -> String) -> Vec<String> {
        let mut rng = Rng::new(&[1]);
        (0..200).map(|_| statement(&mut rng)).collect()
    }

    #[test]
    fn a_left_rotation_moves_objects_to_the_right() {
        for text in texts(turn) {
            if let Some(rest) = text.strip_prefix("left 30, rotate left 60: ") {
                assert_eq!(rest, "right 30.");
            }
            if let Some(rest) = text.strip_prefix("ahead, rotate right 90: ") {
                assert_eq!(rest, "left 90.");
            }
        }
    }

    #[test]
    fn a_comparison_gives_the_smallest_number() {
        for text in texts(comparison) {
            let Some((numbers, least)) =
                text.strip_prefix("least of ").and_then(|rest| rest.split_once(": "))
            else {
                continue;
            };
            let least: i32 = least.trim_end_matches('.').parse().unwrap();
            let all = numbers.split(", ").map(|number| number.parse::<i32>().unwrap());
            assert_eq!(all.min(), Some(least), "{text}");
        }
    }
}
