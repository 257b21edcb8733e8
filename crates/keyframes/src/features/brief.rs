//! Rotated BRIEF descriptors: 256 intensity comparisons, aligned to the corner's orientation.

use std::sync::OnceLock;

use embodied_r_random::{Rng, normal};

use super::pyramid::Plane;

/// Radius of a corner's patch.
const RADIUS: isize = 15;

/// Compared pairs of points.
const PAIRS: usize = 256;

/// Standard deviation of the points around the center, a fifth of the patch size as in BRIEF (Calonder
/// et al. 2010).
const SIGMA: f32 = 31.0 / 5.0;

/// Seed of the sampling pattern.
const SEED: u64 = 741_863;

/// A binary descriptor of 256 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Descriptor(pub [u64; 4]);

impl Descriptor {
    /// The Hamming distance of two descriptors.
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

/// Orientation bins of a full circle.
const BINS: usize = 128;

/// SIMD lanes that hold a row of the patch.
const LANES: usize = 32;

/// Mask of the circular patch: all bits set inside.
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

/// The orientation of a corner by its intensity centroid, as one of [`BINS`].
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
    let bin = (down as f32).atan2(across as f32) / std::f32::consts::TAU * BINS as f32;
    (bin.round() as isize).rem_euclid(BINS as isize) as usize
}

/// Row stride of the copied patch.
const LINE: usize = 64;

/// Describes a corner of the blurred plane, with the pattern rotated to orientation `bin`.
#[inline(always)]
pub(super) fn describe(blurred: &Plane, column: usize, row: usize, bin: usize) -> Descriptor {
    const SIDE: usize = 2 * RADIUS as usize + 3;
    // In a copy with a fixed stride the pattern's offsets do not depend on the plane's width.
    let mut around = [0u8; SIDE * LINE];
    let first = (row - SIDE / 2) * blurred.width + column - SIDE / 2;
    for (line, to) in around.chunks_exact_mut(LINE).enumerate() {
        to[..SIDE].copy_from_slice(&blurred.pixels[first + line * blurred.width..][..SIDE]);
    }
    let mut bits = [0u64; 4];
    for (word, pairs) in bits.iter_mut().zip(rotated_pairs(bin).chunks_exact(64)) {
        for (bit, [first, second]) in pairs.iter().enumerate() {
            let pixel = |point: u16| around.get(usize::from(point)).copied().unwrap_or_default();
            *word |= u64::from(pixel(*first) < pixel(*second)) << bit;
        }
    }
    Descriptor(bits)
}

/// Offsets of the pattern's pairs in the copied patch, rotated to orientation `bin`.
fn rotated_pairs(bin: usize) -> &'static [[u16; 2]; PAIRS] {
    static ROTATED: OnceLock<Vec<[[u16; 2]; PAIRS]>> = OnceLock::new();
    let rotated = ROTATED.get_or_init(|| {
        let pattern = pattern();
        let rotate = |bin: usize| {
            let (sin, cos) = (bin as f32 / BINS as f32 * std::f32::consts::TAU).sin_cos();
            let point = |(x, y): (f32, f32)| {
                let nearest = |offset: f32| (offset.round() as isize + RADIUS + 1) as u16;
                nearest(x * sin + y * cos) * LINE as u16 + nearest(x * cos - y * sin)
            };
            pattern.map(|(first, second)| [point(first), point(second)])
        };
        (0..BINS).map(rotate).collect()
    });
    &rotated[bin % BINS]
}

/// Two points, as offsets from the corner.
type Pair = ((f32, f32), (f32, f32));

/// The sampling pattern, drawn from a normal distribution with a fixed seed.
fn pattern() -> [Pair; PAIRS] {
    let mut random = Rng::seeded(SEED);
    let mut offset = move || {
        let (u, v) = (random.unit().max(f64::MIN_POSITIVE), random.unit());
        SIGMA * normal(u, v) as f32
    };
    let mut point = move || loop {
        let (x, y) = (offset(), offset());
        if x.hypot(y) <= RADIUS as f32 {
            return (x, y);
        }
    };
    std::array::from_fn(|_| (point(), point()))
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
        assert_eq!(orientation(&plane(|x, y| 120.0 + 2.0 * x + 2.0 * y), 30, 30), BINS / 8);
        assert_eq!(orientation(&plane(|x, _| 120.0 - 2.0 * x), 30, 30), BINS / 2);
    }

    #[test]
    fn descriptors_are_rotation_invariant() {
        let texture = |x: f64, y: f64| {
            120.0
                + 40.0 * (x / 5.0).sin() * (y / 7.0 + 1.0).cos()
                + 2.0 * x
                + 10.0 * (y / 4.0).sin()
        };
        let (cos, sin) = (0.6, 0.8);
        let upright = plane(texture);
        let rotated = plane(|x, y| texture(x * cos + y * sin, y * cos - x * sin));
        let describe = |plane: &Plane| describe(plane, 30, 30, orientation(plane, 30, 30));
        let distance = describe(&upright).distance(&describe(&rotated));
        assert!(distance < 40, "{distance} bits differ");
    }

    #[test]
    fn the_distance_counts_differing_bits() {
        let a = Descriptor([0, u64::MAX, 1, 0]);
        let b = Descriptor([0b101, u64::MAX, 0, 0]);
        assert_eq!(a.distance(&b), 3);
    }
}
