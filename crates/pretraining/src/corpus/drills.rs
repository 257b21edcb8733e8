//! Practice without a video: one sum of angles, the name of one direction.

use embodied_r_random::Rng;
use embodied_r_sim::wording::{Octant, bearing_text, wrap_whole};

/// A multiple of 10 within (-180, 180].
pub(super) fn angle(rng: &mut Rng) -> i32 {
    wrap_whole(10 * rng.below(36) as i32)
}

/// A random bearing within the field of view, in steps of ten degrees.
pub(super) fn visible_bearing(rng: &mut Rng) -> i32 {
    10 * rng.below(9) as i32 - 40
}

/// A random rotation as between two key frames.
pub(super) fn rotation(rng: &mut Rng) -> i32 {
    wrap_whole(30 * (1 + rng.below(11)) as i32)
}

/// A random rotation or move as between two key frames, and its angle.
fn movement(rng: &mut Rng) -> (String, i32) {
    if rng.chance(0.1) {
        return (format!("move forward {} m", 1 + rng.below(2)), 0);
    }
    let turn_deg = rotation(rng);
    (rotation_text(turn_deg), turn_deg)
}

/// `rotate left 60`
pub(super) fn rotation_text(turn_deg: i32) -> String {
    let side = if turn_deg > 0 { "left" } else { "right" };
    format!("rotate {side} {}", turn_deg.abs())
}

/// `left 30, rotate left 60: right 30.`: what a bearing becomes by one movement.
pub(super) fn sum(rng: &mut Rng) -> String {
    let bearing = angle(rng);
    let (movement, turn_deg) = movement(rng);
    let after = bearing_text(wrap_whole(bearing - turn_deg));
    format!("{}, {movement}: {after}.", bearing_text(bearing))
}

/// `left 30 is ahead left.`
pub(super) fn octant(rng: &mut Rng) -> String {
    let bearing = angle(rng);
    format!("{} is {}.", bearing_text(bearing), Octant::of(f64::from(bearing)).direction())
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
                ("left 30, rotate left 60: ", "right 30."),
                ("ahead, rotate right 90: ", "left 90."),
                ("left 120, move forward 1 m: ", "left 120."),
            ] {
                if let Some(rest) = text.strip_prefix(start) {
                    assert_eq!(rest, after);
                    found += 1;
                }
            }
        }
        assert!(found > 0);
    }
}
