//! Practice without a video: one sum of angles, one comparison of numbers, the name of one direction.

use crate::caption_trace::bearing_text;
use crate::catalogue::KINDS;
use crate::geometry::Quadrant;
use crate::geometry::wrap_whole;
use crate::rng::Rng;
use crate::statement::Statement;

/// A multiple of 10 within (-180, 180].
pub(super) fn angle(rng: &mut Rng) -> i32 {
    wrap_whole(10 * rng.below(36) as i32)
}

/// A random rotation as between two key frames.
pub(super) fn rotation(rng: &mut Rng) -> i32 {
    wrap_whole(30 * (1 + rng.below(11)) as i32)
}

/// `rotate left 60`
pub(super) fn rotation_text(turn_deg: i32) -> String {
    let side = if turn_deg > 0 { "left" } else { "right" };
    format!("rotate {side} {}", turn_deg.abs())
}

/// `left 30 - left 60 = right 30.`: what a bearing becomes by one rotation.
pub(super) fn sum(rng: &mut Rng) -> String {
    let before_deg = angle(rng);
    let turn_deg = if rng.chance(0.1) { 0 } else { rotation(rng) };
    let [before, turn, after] =
        [before_deg, turn_deg, wrap_whole(before_deg - turn_deg)].map(bearing_text);
    format!("{before} - {turn} = {after}.")
}

/// `left 30 is ahead.`
pub(super) fn quadrant(rng: &mut Rng) -> String {
    let bearing = angle(rng);
    format!("{} is {}.", bearing_text(bearing), Quadrant::of(f64::from(bearing)).direction())
}

/// `lamp 60, bed 20: least bed.`: the smallest of two or three angles or small numbers of objects that are not in `room`.
pub(super) fn comparison(room: &[String], rng: &mut Rng) -> String {
    let unit = if rng.chance(0.5) { 10 } else { 1 };
    let numbers: Vec<usize> = (0..if unit == 1 { 10 } else { 19 }).collect();
    let others: Vec<String> = KINDS.iter().map(|kind| kind.name.to_owned()).collect();
    let others: Vec<String> = others.into_iter().filter(|name| !room.contains(name)).collect();
    let count = 2 + rng.below(2);
    let numbers = rng.sample(&numbers, count).into_iter().map(|number| unit * number);
    least(rng.sample(&others, count).into_iter().zip(numbers).collect())
}

/// `lamp 3, bed 2: least bed.`
pub(super) fn least(firsts: Vec<(String, usize)>) -> String {
    let least = firsts.iter().min_by_key(|(_, number)| *number);
    let name = least.map(|(name, _)| name.clone()).unwrap_or_default();
    format!("{}.", Statement::Least { firsts, name })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(statement: fn(&mut Rng) -> String) -> Vec<String> {
        let mut rng = Rng::new(&[1]);
        (0..2000).map(|_| statement(&mut rng)).collect()
    }

    #[test]
    fn a_left_rotation_moves_objects_to_the_right() {
        let mut found = 0;
        for text in texts(sum) {
            for (start, after) in [
                ("left 30 - left 60 = ", "right 30."),
                ("ahead - right 90 = ", "left 90."),
                ("left 120 - ahead = ", "left 120."),
            ] {
                if let Some(rest) = text.strip_prefix(start) {
                    assert_eq!(rest, after);
                    found += 1;
                }
            }
        }
        assert!(found > 0);
    }

    #[test]
    fn a_comparison_gives_the_smaller_angle() {
        for text in texts(|rng| comparison(&[], rng)) {
            let (pairs, least) = text.split_once(": least ").unwrap();
            let angle = |pair: &str| pair.rsplit(' ').next().unwrap().parse::<i32>().unwrap();
            let smallest = pairs.split(", ").min_by_key(|pair| angle(pair)).unwrap();
            assert_eq!(smallest.split(' ').next(), least.strip_suffix('.'), "{text}");
        }
    }
}
