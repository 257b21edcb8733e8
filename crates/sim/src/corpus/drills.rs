//! Practice without a video: one sum of angles, one comparison of numbers, the name of one direction.

use crate::caption_trace::bearing_text;
use crate::catalogue::KINDS;
use crate::geometry::Quadrant;
use crate::geometry::wrap_whole;
use crate::rng::Rng;

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

/// `lamp 60, bed 20: least bed.` or `lamp frame 3, bed frame 1: bed, lamp.`: two or three objects that are not in `room`,
/// and the one of the smallest angle or their order by frame.
pub(super) fn comparison(room: &[String], rng: &mut Rng) -> String {
    let names: Vec<&str> = KINDS
        .iter()
        .map(|kind| kind.name)
        .filter(|name| room.iter().all(|other| other != name))
        .collect();
    let count = 2 + rng.below(2);
    let names = rng.sample(&names, count);
    let listed = |between: &str, unit: usize, numbers: &[usize]| {
        let item = |(name, number): (&&str, &usize)| format!("{name}{between}{}", unit * number);
        names.iter().zip(numbers).map(item).collect::<Vec<_>>().join(", ")
    };
    let by_number = |numbers: &[usize]| {
        let mut order: Vec<(usize, &str)> =
            numbers.iter().copied().zip(names.iter().copied()).collect();
        order.sort_unstable();
        order.into_iter().map(|(_, name)| name).collect::<Vec<_>>()
    };
    if rng.chance(0.3) {
        let tens = rng.sample(&(0..19).collect::<Vec<_>>(), count);
        let least = by_number(&tens).first().copied().unwrap_or_default();
        return format!("{}: least {least}.", listed(" ", 10, &tens));
    }
    let frames = rng.sample(&(0..9).collect::<Vec<_>>(), count);
    format!("{}: {}.", listed(" frame ", 1, &frames), by_number(&frames).join(", "))
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
    fn a_comparison_gives_the_smallest_angle_or_the_order_of_the_frames() {
        for text in texts(|rng| comparison(&[], rng)) {
            let (pairs, result) = text.trim_end_matches('.').split_once(": ").unwrap();
            let number = |pair: &&str| pair.rsplit(' ').next().unwrap().parse::<i32>().unwrap();
            let mut pairs: Vec<&str> = pairs.split(", ").collect();
            pairs.sort_by_key(number);
            let names: Vec<&str> =
                pairs.iter().map(|pair| pair.split(' ').next().unwrap()).collect();
            match result.strip_prefix("least ") {
                Some(least) => assert_eq!(least, names[0], "{text}"),
                None => assert_eq!(result, names.join(", "), "{text}"),
            }
        }
    }
}
