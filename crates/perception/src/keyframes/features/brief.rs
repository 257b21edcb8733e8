//! What a corner looks like, turned upright: 256 comparisons of brightness.

use std::sync::OnceLock;

use super::super::random::Random;
use super::pyramid::Plane;

/// Radius of the disc that describes a corner.
const RADIUS: isize = 15;

/// Pairs of places that are compared.
const PAIRS: usize = 256;

/// Deviation of the places from the middle, a fifth of the disc's width as in BRIEF (Calonder et
/// al. 2010).
const DEVIATION: f32 = 31.0 / 5.0;

/// What the places are drawn from.
const SEED: u64 = 741_863;

/// The 256 answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Descriptor(pub [u64; 4]);

impl Descriptor {
    /// In how many answers two descriptors differ.
    #[inline(always)]
    #[must_use]
    pub fn distance(&self, other: &Self) -> u32 {
        let mut bits = 0;
        for (a, b) in self.0.iter().zip(other.0) {
            bits += (a ^ b).count_ones();
        }
        bits
    }
}

/// Directions that are told apart, a full turn in all.
const TURNS: usize = 128;

/// Pixels that hold a line of the disc.
const LANES: usize = 32;

/// The disc: all bits where a pixel lies inside.
const DISC: [[u8; LANES]; 2 * RADIUS as usize + 1] = {
    let mut disc = [[0; LANES]; 2 * RADIUS as usize + 1];
    let mut at = 0;
    while at < disc.len() * disc.len() {
        let (line, column) = (at / disc.len(), at % disc.len());
        let (x, y) = (column as isize - RADIUS, line as isize - RADIUS);
        if x * x + y * y <= RADIUS * RADIUS {
            disc[line][column] = u8::MAX;
        }
        at += 1;
    }
    disc
};

/// The direction from a corner to the centre of brightness of the disc around it, as the nearest of
/// [`TURNS`].
#[inline(always)]
pub(super) fn orientation(plane: &Plane, column: usize, row: usize) -> usize {
    let radius = RADIUS as usize;
    let mut start = (row - radius) * plane.width + column - radius;
    let mut columns = [0i16; LANES];
    let mut down_lanes = [0i32; LANES];
    for (inside, y) in DISC.iter().zip(-RADIUS as i16..) {
        let line = &plane.pixels[start..start + LANES];
        for i in 0..LANES {
            let pixel = i16::from(line[i] & inside[i]);
            columns[i] += pixel;
            down_lanes[i] += i32::from(y * pixel);
        }
        start += plane.width;
    }
    let (mut across, mut down) = (0, 0);
    for i in 0..LANES {
        across += (i as i32 - RADIUS as i32) * i32::from(columns[i]);
        down += down_lanes[i];
    }
    let turn = (down as f32).atan2(across as f32) / std::f32::consts::TAU * TURNS as f32;
    (turn.round() as isize).rem_euclid(TURNS as isize) as usize
}

/// Pixels from one line to the next in the copy of a corner's surroundings.
const LINE: usize = 64;

/// Compares the pairs around a corner of the blurred plane, turned by the corner's orientation.
#[inline(always)]
pub(super) fn describe(blurred: &Plane, column: usize, row: usize, turn: usize) -> Descriptor {
    const SIDE: usize = 2 * RADIUS as usize + 3;
    // Places in a copy are the same whatever the plane's width.
    let mut around = [0u8; SIDE * LINE];
    let first = (row - SIDE / 2) * blurred.width + column - SIDE / 2;
    for (line, to) in around.chunks_exact_mut(LINE).enumerate() {
        to[..SIDE].copy_from_slice(&blurred.pixels[first + line * blurred.width..][..SIDE]);
    }
    let mut answers = [0u64; 4];
    for (word, pairs) in answers.iter_mut().zip(turned_pairs(turn).chunks_exact(64)) {
        for (bit, [first, second]) in pairs.iter().enumerate() {
            let pixel = |place: u16| around.get(usize::from(place)).copied().unwrap_or_default();
            *word |= u64::from(pixel(*first) < pixel(*second)) << bit;
        }
    }
    Descriptor(answers)
}

/// Where the pairs lie in the copy of a corner's surroundings, with the pattern turned.
fn turned_pairs(turn: usize) -> &'static [[u16; 2]; PAIRS] {
    static TURNED: OnceLock<Vec<[[u16; 2]; PAIRS]>> = OnceLock::new();
    let turned = TURNED.get_or_init(|| {
        let pattern = pattern();
        let turn = |turn: usize| {
            let (sin, cos) = (turn as f32 / TURNS as f32 * std::f32::consts::TAU).sin_cos();
            let place = |(x, y): (f32, f32)| {
                let nearest = |offset: f32| (offset.round() as isize + RADIUS + 1) as u16;
                nearest(x * sin + y * cos) * LINE as u16 + nearest(x * cos - y * sin)
            };
            pattern.map(|(first, second)| [place(first), place(second)])
        };
        (0..TURNS).map(turn).collect()
    });
    &turned[turn % TURNS]
}

/// Two places, each right and down from the corner.
type Pair = ((f32, f32), (f32, f32));

/// The places, drawn from a normal distribution: always the same ones.
fn pattern() -> [Pair; PAIRS] {
    let mut random = Random::new(SEED);
    let mut normal = move || {
        let (u, v) = (random.unit().max(f64::MIN_POSITIVE), random.unit());
        ((-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
    };
    let mut place = move || loop {
        let (x, y) = (DEVIATION * normal(), DEVIATION * normal());
        if x.hypot(y) <= RADIUS as f32 {
            return (x, y);
        }
    };
    std::array::from_fn(|_| (place(), place()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plane(gray: impl Fn(f64, f64) -> f64) -> Plane {
        let pixels = (0..61 * 61).map(|i| gray((i % 61) as f64 - 30.0, (i / 61) as f64 - 30.0));
        Plane { width: 61, height: 61, pixels: pixels.map(|gray| gray as u8).collect() }
    }

    #[test]
    fn the_orientation_points_to_the_bright_side() {
        assert_eq!(orientation(&plane(|x, y| 120.0 + 2.0 * x + 2.0 * y), 30, 30), TURNS / 8);
        assert_eq!(orientation(&plane(|x, _| 120.0 - 2.0 * x), 30, 30), TURNS / 2);
    }

    #[test]
    fn a_turned_corner_looks_the_same() {
        let texture = |x: f64, y: f64| {
            120.0
                + 40.0 * (x / 5.0).sin() * (y / 7.0 + 1.0).cos()
                + 2.0 * x
                + 10.0 * (y / 4.0).sin()
        };
        let (cos, sin) = (0.6, 0.8);
        let upright = plane(texture);
        let turned = plane(|x, y| texture(x * cos + y * sin, y * cos - x * sin));
        let describe = |plane: &Plane| describe(plane, 30, 30, orientation(plane, 30, 30));
        let distance = describe(&upright).distance(&describe(&turned));
        assert!(distance < 40, "{distance} answers differ");
    }

    #[test]
    fn the_distance_counts_differing_answers() {
        let a = Descriptor([0, u64::MAX, 1, 0]);
        let b = Descriptor([0b101, u64::MAX, 0, 0]);
        assert_eq!(a.distance(&b), 3);
    }
}
