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

/// The direction from a corner to the centre of brightness of the disc around it, as the cosine and
/// sine of its angle.
#[inline(always)]
pub(super) fn orientation(plane: &Plane, column: usize, row: usize) -> (f32, f32) {
    let (mut across, mut down) = (0i32, 0i32);
    for y in -RADIUS..=RADIUS {
        let half = ((RADIUS * RADIUS - y * y) as f32).sqrt() as isize;
        let start = (row as isize + y) * plane.width as isize + column as isize - half;
        let line = &plane.pixels[start as usize..][..2 * half as usize + 1];
        let mut sum = 0;
        for (pixel, x) in line.iter().zip(-half as i32..) {
            across += x * i32::from(*pixel);
            sum += i32::from(*pixel);
        }
        down += y as i32 * sum;
    }
    let (across, down) = (across as f32, down as f32);
    let length = across.hypot(down);
    if length > 0.0 { (across / length, down / length) } else { (1.0, 0.0) }
}

/// Compares the pairs around a corner of the blurred plane, turned by the corner's orientation.
#[inline(always)]
pub(super) fn describe(
    blurred: &Plane,
    column: usize,
    row: usize,
    (cos, sin): (f32, f32),
) -> Descriptor {
    let middle = (row * blurred.width + column) as isize;
    // Nearest pixel, without the call that `round` is: places lie within 16 pixels of the corner.
    let nearest = |offset: f32| (offset + 16.5) as i32 as isize - 16;
    let pixel = |(x, y): (f32, f32)| {
        let across = nearest(x * cos - y * sin);
        let down = nearest(x * sin + y * cos);
        blurred.pixels[(middle + down * blurred.width as isize + across) as usize]
    };
    let mut answers = [0u64; 4];
    for (word, pairs) in answers.iter_mut().zip(pattern().chunks_exact(64)) {
        for (bit, (first, second)) in pairs.iter().enumerate() {
            *word |= u64::from(pixel(*first) < pixel(*second)) << bit;
        }
    }
    Descriptor(answers)
}

/// Two places, each right and down from the corner.
type Pair = ((f32, f32), (f32, f32));

/// The places, drawn once from a normal distribution: always the same ones.
fn pattern() -> &'static [Pair; PAIRS] {
    static PATTERN: OnceLock<[Pair; PAIRS]> = OnceLock::new();
    PATTERN.get_or_init(|| {
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
    })
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
        let (cos, sin) = orientation(&plane(|x, y| 120.0 + 2.0 * x + 2.0 * y), 30, 30);
        assert!((cos - 0.5f32.sqrt()).abs() < 0.01 && (sin - 0.5f32.sqrt()).abs() < 0.01);
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
