//! The image pyramid.

use image::GrayImage;

/// Scale factor between levels: two steps of 6:5. ORB uses one step; homographies are as accurate with half
/// of the pixels.
const STEP: f64 = 1.44;
/// Maximum number of levels.
const MAX_LEVELS: usize = 5;
/// Margin without corners, so that their patches lie inside the plane.
pub(super) const BORDER: usize = 18;
/// Minimum side of a level; a shorter one has no room for a patch.
const MIN_SIDE: usize = 2 * BORDER + 8;

/// A gray plane in row-major order.
#[derive(Debug, Clone)]
pub(super) struct Plane {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) pixels: Vec<u8>,
}

/// A level of the pyramid and its scale.
pub(super) struct Level {
    pub(super) plane: Plane,
    scale: f64,
}

impl Level {
    /// Maps a column or a row of the level to the image.
    pub(super) fn to_image(&self, position: f64) -> f64 {
        (position + 0.5) * self.scale - 0.5
    }

    /// Image pixels per pixel of this level.
    pub(super) fn scale(&self) -> f64 {
        self.scale
    }
}

/// The image and its downscaled levels; none if it is too small for a corner.
#[inline(always)]
pub(super) fn build(image: &GrayImage) -> Vec<Level> {
    let (width, height) = (image.width() as usize, image.height() as usize);
    let mut levels: Vec<Level> = Vec::with_capacity(MAX_LEVELS);
    for index in 0..MAX_LEVELS {
        let plane = match levels.last() {
            None => Plane { width, height, pixels: image.as_raw().clone() },
            Some(larger) => larger.plane.downscaled().downscaled(),
        };
        if plane.width.min(plane.height) < MIN_SIDE {
            break;
        }
        levels.push(Level { plane, scale: STEP.powi(index as i32) });
    }
    levels
}

/// The number of features of each level out of `total`, proportional to its side.
pub(super) fn feature_counts(levels: &[Level], total: usize) -> Vec<usize> {
    let sum: f64 = levels.iter().map(|level| level.scale().recip()).sum();
    let share = |level: &Level| (total as f64 / level.scale() / sum).round() as usize;
    levels.iter().map(share).collect()
}

/// Interpolation weights of the right neighbor for each of five output pixels from six input pixels, in
/// 1/128. The sixth entry is unused.
const WEIGHTS_6_TO_5: [u16; 6] = [13, 38, 64, 90, 115, 0];

/// Pixels interpolated at once: a multiple of six that suits SIMD widths.
const BLOCK: usize = 96;

/// Interpolates `first` and `second`, with the second one's weight `weight` in 1/128.
#[inline(always)]
fn lerp(first: u8, second: u8, weight: u16) -> u8 {
    ((u16::from(first) * (128 - weight) + u16::from(second) * weight + 64) >> 7) as u8
}

/// The downscaled length of a side of `length` pixels.
fn downscaled_side(length: usize) -> usize {
    length / 6 * 5 + (length % 6).saturating_sub(1)
}

impl Plane {
    /// The plane downscaled by 6:5 with bilinear interpolation.
    #[inline(always)]
    fn downscaled(&self) -> Self {
        let (width, height) = (downscaled_side(self.width), downscaled_side(self.height));
        let weights: [u16; BLOCK] = std::array::from_fn(|i| WEIGHTS_6_TO_5[i % 6]);
        // Padding for whole blocks, and for the right neighbor of each pixel.
        let padded = self.width.next_multiple_of(BLOCK);
        let mut down = vec![0u8; padded + 1];
        let mut across = vec![0u8; padded + 2];
        let mut pixels = vec![0u8; width * height + 8];
        for row in 0..height {
            let from = row / 5 * 6 + row % 5;
            let upper = &self.pixels[from * self.width..][..self.width];
            let lower = &self.pixels[(from + 1) * self.width..][..self.width];
            let weight = WEIGHTS_6_TO_5[row % 5];
            for (to, (upper, lower)) in down.iter_mut().zip(upper.iter().zip(lower)) {
                *to = lerp(*upper, *lower, weight);
            }
            for start in (0..padded).step_by(BLOCK) {
                let (left, right) = (&down[start..][..BLOCK], &down[start + 1..][..BLOCK]);
                let to = &mut across[start..][..BLOCK];
                for i in 0..BLOCK {
                    to[i] = lerp(left[i], right[i], weights[i]);
                }
            }
            // Copying eight pixels is one instruction; the three extra ones are overwritten next.
            let out = &mut pixels[row * width..][..width + 8];
            for (to, from) in (0..width).step_by(5).zip((0..padded).step_by(6)) {
                out[to..to + 8].copy_from_slice(&across[from..from + 8]);
            }
        }
        pixels.truncate(width * height);
        Self { width, height, pixels }
    }

    /// The plane blurred by a 7 × 7 Gaussian with σ = 2, so that descriptors are robust to noise.
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

/// Convolves seven lines with a Gaussian, exp(-x² / 8) normalized, in 1/256.
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
    fn a_small_image_has_no_levels() {
        assert!(build(&GrayImage::new(20, 500)).is_empty());
    }

    #[test]
    fn levels_are_aligned_with_the_image() {
        let ramp = GrayImage::from_fn(240, 120, |x, _| image::Luma([x as u8]));
        for level in build(&ramp) {
            let middle = level.plane.width / 2;
            let gray = level.plane.pixels[5 * level.plane.width + middle];
            let position = level.to_image(middle as f64);
            assert!((f64::from(gray) - position).abs() <= 1.1, "{gray} at {position}");
        }
    }

    #[test]
    fn blurring_keeps_a_uniform_plane() {
        let plane = Plane { width: 20, height: 9, pixels: vec![255; 180] };
        assert_eq!(plane.blurred().pixels, vec![255; 180]);
    }
}
