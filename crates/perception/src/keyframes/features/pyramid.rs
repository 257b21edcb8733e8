//! The picture in ever smaller sizes.

use image::GrayImage;

/// How much smaller each level is than the one before: two steps of six pixels to five. ORB takes one;
/// homographies come out as true with half of the pixels.
const STEP: f64 = 1.44;
/// Levels at most.
const LEVELS: usize = 5;
/// Sides shorter than this hold no described corner.
const SHORTEST: usize = 2 * super::corners::BORDER + 8;

/// A gray plane, row by row.
#[derive(Debug, Clone)]
pub(super) struct Plane {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) pixels: Vec<u8>,
}

/// A level of the pyramid and how it lies over the picture.
pub(super) struct Level {
    pub(super) plane: Plane,
    scale: f64,
}

impl Level {
    /// Where a column or a row of the level lies in the picture.
    pub(super) fn to_picture(&self, place: f64) -> f64 {
        (place + 0.5) * self.scale - 0.5
    }

    /// Pixels of the picture to a pixel of this level.
    pub(super) fn scale(&self) -> f64 {
        self.scale
    }
}

/// The picture itself and its smaller levels; none where it is too small for a corner.
#[inline(always)]
pub(super) fn build(picture: &GrayImage) -> Vec<Level> {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let mut levels: Vec<Level> = Vec::with_capacity(LEVELS);
    for index in 0..LEVELS {
        let plane = match levels.last() {
            None => Plane { width, height, pixels: picture.as_raw().clone() },
            Some(larger) => larger.plane.shrunk().shrunk(),
        };
        if plane.width.min(plane.height) < SHORTEST {
            break;
        }
        levels.push(Level { plane, scale: STEP.powi(index as i32) });
    }
    levels
}

/// How many of `total` features each level may give, in proportion to its side.
pub(super) fn shares(levels: &[Level], total: usize) -> Vec<usize> {
    let sum: f64 = levels.iter().map(|level| level.scale().recip()).sum();
    let share = |level: &Level| (total as f64 / level.scale() / sum).round() as usize;
    levels.iter().map(share).collect()
}

/// Six pixels become five: the share of the right one of the two neighbours that each of the five
/// lies between, in 1/128. The sixth place is left out.
const SHARES: [u16; 6] = [13, 38, 64, 90, 115, 0];

/// Pixels that are mixed at once: a multiple of six that vectors divide well.
const AT_ONCE: usize = 96;

/// `first` and `second` mixed, with the second one's `share` in 1/128.
#[inline(always)]
fn mixed(first: u8, second: u8, share: u16) -> u8 {
    ((u16::from(first) * (128 - share) + u16::from(second) * share + 64) >> 7) as u8
}

/// What is left of a side of `length` pixels.
fn shrunk_side(length: usize) -> usize {
    length / 6 * 5 + (length % 6).saturating_sub(1)
}

impl Plane {
    /// The plane with five pixels for six, each mixed from the four around its place.
    #[inline(always)]
    fn shrunk(&self) -> Self {
        let (width, height) = (shrunk_side(self.width), shrunk_side(self.height));
        let shares: [u16; AT_ONCE] = std::array::from_fn(|i| SHARES[i % 6]);
        // Room for whole blocks, and for a neighbour to the right of each pixel.
        let padded = self.width.next_multiple_of(AT_ONCE);
        let mut down = vec![0u8; padded + 1];
        let mut across = vec![0u8; padded + 2];
        let mut pixels = vec![0u8; width * height + 8];
        for row in 0..height {
            let from = row / 5 * 6 + row % 5;
            let upper = &self.pixels[from * self.width..][..self.width];
            let lower = &self.pixels[(from + 1) * self.width..][..self.width];
            let share = SHARES[row % 5];
            for (to, (upper, lower)) in down.iter_mut().zip(upper.iter().zip(lower)) {
                *to = mixed(*upper, *lower, share);
            }
            for start in (0..padded).step_by(AT_ONCE) {
                let (left, right) = (&down[start..][..AT_ONCE], &down[start + 1..][..AT_ONCE]);
                let to = &mut across[start..][..AT_ONCE];
                for i in 0..AT_ONCE {
                    to[i] = mixed(left[i], right[i], shares[i]);
                }
            }
            // Eight are copied, as that is one step; the three too many are overwritten next.
            let out = &mut pixels[row * width..][..width + 8];
            for (to, from) in (0..width).step_by(5).zip((0..padded).step_by(6)) {
                out[to..to + 8].copy_from_slice(&across[from..from + 8]);
            }
        }
        pixels.truncate(width * height);
        Self { width, height, pixels }
    }

    /// The plane under a Gaussian of 7 × 7 pixels and a deviation of 2, so that one noisy pixel does
    /// not decide a comparison.
    #[inline(always)]
    pub(super) fn blurred(&self) -> Self {
        let (width, height) = (self.width, self.height);
        let mut down = vec![0u8; width];
        let mut pixels = vec![0u8; width * height];
        for row in 0..height {
            let line = |tap: usize| {
                let at = (row + tap).saturating_sub(3).min(height - 1);
                &self.pixels[at * width..][..width]
            };
            let lines = [line(0), line(1), line(2), line(3), line(4), line(5), line(6)];
            blur(lines, &mut down[..width]);
            let out = &mut pixels[row * width..][..width];
            out.copy_from_slice(&down);
            let inner = width - 6;
            let line = |tap: usize| &down[tap..][..inner];
            let lines = [line(0), line(1), line(2), line(3), line(4), line(5), line(6)];
            blur(lines, &mut out[3..][..inner]);
        }
        Self { width, height, pixels }
    }
}

/// Pixels mixed from seven lines, by exp(-x² / 8) over its sum, in 1/256.
#[inline(always)]
fn blur([a, b, c, d, e, f, g]: [&[u8]; 7], mixed: &mut [u8]) {
    const WEIGHTS: [u16; 4] = [18, 34, 49, 54];
    let count = mixed.len();
    let (a, b, c, d) = (&a[..count], &b[..count], &c[..count], &d[..count]);
    let (e, f, g) = (&e[..count], &f[..count], &g[..count]);
    for i in 0..count {
        let sum = (u16::from(a[i]) + u16::from(g[i])) * WEIGHTS[0]
            + (u16::from(b[i]) + u16::from(f[i])) * WEIGHTS[1]
            + (u16::from(c[i]) + u16::from(e[i])) * WEIGHTS[2]
            + u16::from(d[i]) * WEIGHTS[3];
        mixed[i] = ((sum + 128) >> 8) as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_shrink_by_a_third_until_they_are_too_small() {
        let levels = build(&GrayImage::new(120, 100));
        let sizes: Vec<_> = levels.iter().map(|l| (l.plane.width, l.plane.height)).collect();
        assert_eq!(sizes, [(120, 100), (83, 69), (57, 47)]);
    }

    #[test]
    fn a_small_picture_has_no_levels() {
        assert!(build(&GrayImage::new(20, 500)).is_empty());
    }

    #[test]
    fn a_level_lies_over_the_picture_without_a_shift() {
        let ramp = GrayImage::from_fn(240, 120, |x, _| image::Luma([x as u8]));
        for level in build(&ramp) {
            let middle = level.plane.width / 2;
            let gray = level.plane.pixels[5 * level.plane.width + middle];
            let place = level.to_picture(middle as f64);
            assert!((f64::from(gray) - place).abs() <= 1.1, "{gray} at {place}");
        }
    }

    #[test]
    fn blurring_keeps_an_even_plane_even() {
        let plane = Plane { width: 20, height: 9, pixels: vec![255; 180] };
        assert_eq!(plane.blurred().pixels, vec![255; 180]);
    }
}
