//! Statements that need no video: sums of angles, comparisons, letters of choices.

use crate::ask::{letter, step_text};
use crate::catalogue::KINDS;
use crate::geometry::wrap_whole;
use crate::rationale::{Quadrant, choices_text};
use crate::rng::Rng;
use crate::trace::bearing_text;

/// A random line of drills.
pub(super) fn any(rng: &mut Rng) -> String {
    match rng.below(6) {
        0 | 1 => told_choices(rng),
        2 => repeated(rng, turn),
        3 => repeated(rng, place),
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

/// A turn as the rooms' captions tell it.
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

/// `left 150, right 30: left 120.` or `target left 90. left 120, off 30.`
fn place(rng: &mut Rng) -> String {
    let (a, b) = (angle(rng), angle(rng));
    let [first, second, sum] = [a, b, wrap_whole(a + b)].map(bearing_text);
    if rng.chance(0.5) {
        return format!("{first}, {second}: {sum}.");
    }
    format!("target {first}. {second}, off {}.", wrap_whole(a - b).abs())
}

/// `left 30 is ahead.`
fn quadrant(rng: &mut Rng) -> String {
    let bearing = angle(rng);
    format!("{} is {}.", bearing_text(bearing), Quadrant::of(f64::from(bearing)).place())
}

/// Which of some numbers or frames is the least or the first.
fn comparison(rng: &mut Rng) -> String {
    if rng.chance(0.3) {
        let frames = rng.sample(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], 2);
        let (a, b) = (frames[0].min(frames[1]), frames[0].max(frames[1]));
        return format!("frame {a} before frame {b}.");
    }
    let count = 2 + rng.below(3);
    let tens: Vec<i32> = (0..19).map(|tens| 10 * tens).collect();
    let numbers = rng.sample(&tens, count);
    let least = numbers.iter().min().copied().unwrap_or_default();
    let told: Vec<_> = numbers.iter().map(i32::to_string).collect();
    format!("least of {}: {least}.", told.join(", "))
}

/// Lettered choices, and which letter has which content.
fn told_choices(rng: &mut Rng) -> String {
    let (mut text, options) = choices(rng);
    text.push('\n');
    text.push_str(&choices_text(&options));
    let asked = 1 + rng.below(options.len());
    let mut order: Vec<usize> = (0..options.len()).collect();
    rng.shuffle(&mut order);
    for index in order.into_iter().take(asked) {
        text.push('\n');
        text.push_str(&told_choice(rng, index, &options[index]));
    }
    text
}

/// `Choices:` with their letters, and their contents alone.
pub(super) fn choices(rng: &mut Rng) -> (String, Vec<String>) {
    let options = contents(rng);
    let listed: Vec<_> = options
        .iter()
        .enumerate()
        .map(|(index, option)| format!("{}. {option}", letter(index)))
        .collect();
    (format!("Choices:\n{}", listed.join("\n")), options)
}

/// Says which letter `option` has.
pub(super) fn told_choice(rng: &mut Rng, index: usize, option: &str) -> String {
    match rng.below(3) {
        0 => format!("{} is {option}.", letter(index)),
        1 => format!("{option} is {}.", letter(index)),
        _ => format!("so {option}. {}", letter(index)),
    }
}

/// The contents of two to four choices.
fn contents(rng: &mut Rng) -> Vec<String> {
    let names: Vec<&str> = rng.sample(&KINDS, 4).into_iter().map(|kind| kind.name).collect();
    match rng.below(6) {
        0 => {
            let quadrants = rng.sample(&Quadrant::ALL, 4);
            quadrants.into_iter().map(|quadrant| quadrant.place().to_owned()).collect()
        }
        1 => {
            let quadrants = rng.sample(&Quadrant::ALL, 4);
            quadrants.into_iter().map(|quadrant| quadrant.action().to_owned()).collect()
        }
        2 => names.into_iter().map(step_text).collect(),
        3 => {
            let mut orders: Vec<String> = Vec::new();
            while orders.len() < 4 {
                let order = rng.sample(&names[..3], 3).join(", ");
                if !orders.contains(&order) {
                    orders.push(order);
                }
            }
            orders
        }
        4 => rng.sample(&["left".to_owned(), "right".to_owned()], 2),
        _ => {
            let count = 3 + rng.below(2);
            names.into_iter().take(count).map(str::to_owned).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(statement: fn(&mut Rng) -> String) -> Vec<String> {
        let mut rng = Rng::new(&[1]);
        (0..200).map(|_| statement(&mut rng)).collect()
    }

    #[test]
    fn a_left_turn_moves_things_to_the_right() {
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
    fn the_least_number_is_told() {
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

    #[test]
    fn letters_are_told_of_the_choices_that_have_them() {
        for text in texts(told_choices) {
            let options = text.lines().filter_map(|line| line.split_once(". "));
            let listed: Vec<(&str, &str)> = options.filter(|(first, _)| first.len() == 1).collect();
            assert!(listed.len() >= 2, "{text}");
            for (letter, option) in listed {
                for line in text.lines() {
                    if let Some(told) = line.strip_prefix(&format!("so {option}. ")) {
                        assert_eq!(told, letter, "{text}");
                    }
                }
            }
        }
    }
}
