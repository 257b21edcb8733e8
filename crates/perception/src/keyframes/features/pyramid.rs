//! The picture in ever smaller sizes.

use image::GrayImage;

/// How much smaller each level is than the one before.
const STEP: f64 = 1.2;
/// Levels at most.
const LEVELS: usize = 8;
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
    scale_x: f64,
    scale_y: f64,
}

impl Level {
    pub(super) fn to_picture_x(&self, column: f64) -> f64 {
        (column + 0.5) * self.scale_x - 0.5
    }

    pub(super) fn to_picture_y(&self, row: f64) -> f64 {
        (row + 0.5) * self.scale_y - 0.5
    }

    /// Pixels of the picture to a pixel of this level.
    pub(super) fn scale(&self) -> f64 {
        self.scale_x.max(self.scale_y)
    }
}

/// The picture itself and its smaller levels; none where it is too small for a corner.
#[inline(always)]
pub(super) fn build(picture: &GrayImage) -> Vec<Level> {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let mut levels: Vec<Level> = Vec::with_capacity(LEVELS);
    for index in 0..LEVELS {
        let factor = STEP.powi(index as i32);
        let size = |side: usize| (side as f64 / factor).round() as usize;
        let (w, h) = (size(width), size(height));
        if w.min(h) < SHORTEST {
            break;
        }
        let plane = match levels.last() {
            None => Plane { width, height, pixels: picture.as_raw().clone() },
            Some(larger) => larger.plane.resized(w, h),
        };
        let (scale_x, scale_y) = (width as f64 / w as f64, height as f64 / h as f64);
        levels.push(Level { plane, scale_x, scale_y });
    }
    levels
}

/// How many of `total` features each level may give, in proportion to its side.
pub(super) fn shares(levels: &[Level], total: usize) -> Vec<usize> {
    let sum: f64 = levels.iter().map(|level| level.scale().recip()).sum();
    let share = |level: &Level| (total as f64 / level.scale() / sum).round() as usize;
    levels.iter().map(share).collect()
}

/// Bits of the fractions by which neighbours are mixed.
const BITS: u32 = 11;

impl Plane {
    /// The plane in another size, each pixel mixed from the four around its place.
    #[inline(always)]
    fn resized(&self, width: usize, height: usize) -> Self {
        let columns = mixes(self.width, width);
        let mut pixels = Vec::with_capacity(width * height);
        for (top, weight) in mixes(self.height, height) {
            let upper = &self.pixels[top * self.width..][..self.width];
            let lower = &self.pixels[(top + 1).min(self.height - 1) * self.width..][..self.width];
            pixels.extend(columns.iter().map(|&(left, across)| {
                let right = (left + 1).min(self.width - 1);
                let mix = |row: &[u8]| {
                    u32::from(row[left]) * ((1 << BITS) - across) + u32::from(row[right]) * across
                };
                let sum = (mix(upper) >> 2) * ((1 << BITS) - weight) + (mix(lower) >> 2) * weight;
                ((sum + (1 << (2 * BITS - 3))) >> (2 * BITS - 2)) as u8
            }));
        }
        Self { width, height, pixels }
    }

    /// The plane under a Gaussian of 7 × 7 pixels and a deviation of 2, so that one noisy pixel does
    /// not decide a comparison.
    #[inline(always)]
    pub(super) fn blurred(&self) -> Self {
        // exp(-x² / 8) over its sum, in 1/256.
        const WEIGHTS: [u16; 7] = [18, 34, 49, 54, 49, 34, 18];
        let (width, height) = (self.width, self.height);
        let mut down = vec![0u8; width];
        let mut pixels = vec![0u8; width * height];
        for row in 0..height {
            let rows: [&[u8]; 7] = std::array::from_fn(|tap| {
                let at = (row + tap).saturating_sub(3).min(height - 1);
                &self.pixels[at * width..][..width]
            });
            for (column, mixed) in down.iter_mut().enumerate() {
                let mut sum = 128u16;
                for (row, weight) in rows.iter().zip(WEIGHTS) {
                    sum += u16::from(row[column]) * weight;
                }
                *mixed = (sum >> 8) as u8;
            }
            let out = &mut pixels[row * width..][..width];
            out.copy_from_slice(&down);
            for (window, mixed) in down.windows(7).zip(&mut out[3..]) {
                let mut sum = 128u16;
                for (pixel, weight) in window.iter().zip(WEIGHTS) {
                    sum += u16::from(*pixel) * weight;
                }
                *mixed = (sum >> 8) as u8;
            }
        }
        Self { width, height, pixels }
    }
}

/// For each of `to` places the first of the two among `from` that it lies between, and the second
/// one's share.
fn mixes(from: usize, to: usize) -> Vec<(usize, u32)> {
    let scale = from as f64 / to as f64;
    let mix = |place: usize| {
        let at = ((place as f64 + 0.5) * scale - 0.5).clamp(0.0, (from - 1) as f64);
        let first = at.floor();
        (first as usize, ((at - first) * f64::from(1 << BITS)).round() as u32)
    };
    (0..to).map(mix).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_shrink_by_a_fifth_until_they_are_too_small() {
        let levels = build(&GrayImage::new(120, 100));
        let sizes: Vec<_> = levels.iter().map(|l| (l.plane.width, l.plane.height)).collect();
        assert_eq!(sizes, [(120, 100), (100, 83), (83, 69), (69, 58), (58, 48)]);
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
            let place = level.to_picture_x(middle as f64);
            assert!((f64::from(gray) - place).abs() <= 1.1, "{gray} at {place}");
        }
    }

    #[test]
    fn blurring_keeps_an_even_plane_even() {
        let plane = Plane { width: 20, height: 9, pixels: vec![255; 180] };
        assert_eq!(plane.blurred().pixels, vec![255; 180]);
    }
}
