//! Antialiased bicubic resizing, bit-identical to Pillow, whose output models are trained on.
//!
//! Rows and columns are filtered separately, each rounded to bytes. The kernel widens with the downscaling factor, and
//! weights are multiples of 2⁻²².

use image::{Rgb, RgbImage};
use multiversion::multiversion;
use rayon::prelude::*;

/// Fractional bits of a weight.
const BITS: u32 = 22;

/// The kernel's radius in pixels at the original size.
const SUPPORT: f64 = 2.0;

/// Bytes per pixel.
const CHANNELS: usize = 3;

/// `image`, resized; width and height are positive.
#[must_use]
pub(crate) fn bicubic(image: &RgbImage, width: u32, height: u32) -> RgbImage {
    let (from_width, from_height) = image.dimensions();
    let narrower = from_width.saturating_sub(width);
    let lower = from_height.saturating_sub(height);
    // The order of Pillow 13; earlier versions always start with the rows, and differ by a level in places.
    match lower > 2 * narrower {
        true => resize_rows(&resize_columns(image, height), width),
        false => resize_columns(&resize_rows(image, width), height),
    }
}

/// Keys' cubic kernel with a = -1/2 (Keys 1981).
fn kernel(x: f64) -> f64 {
    let x = x.abs();
    if x < 1.0 {
        (1.5 * x - 2.5) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5
    } else {
        0.0
    }
}

/// The input pixels of an output pixel, and their weights.
struct Taps {
    first: usize,
    weights: Vec<i32>,
}

/// The taps of each of `to` output pixels over `from` input pixels.
fn taps(from: u32, to: u32) -> Vec<Taps> {
    let scale = f64::from(from) / f64::from(to);
    let stretch = scale.max(1.0);
    let support = SUPPORT * stretch;
    let taps_of = |index: u32| {
        let middle = (f64::from(index) + 0.5) * scale;
        let first = ((middle - support + 0.5) as i64).max(0);
        let end = ((middle + support + 0.5) as i64).min(i64::from(from));
        let weight = |at: i64| kernel((at as f64 - middle + 0.5) * (1.0 / stretch));
        let weights: Vec<f64> = (first..end).map(weight).collect();
        let sum: f64 = weights.iter().sum();
        let whole = |weight: &f64| (weight / sum * f64::from(1 << BITS)).round() as i32;
        Taps { first: first as usize, weights: weights.iter().map(whole).collect() }
    };
    (0..to).map(taps_of).collect()
}

fn resize_rows(image: &RgbImage, width: u32) -> RgbImage {
    let (from, height) = image.dimensions();
    if from == width {
        return image.clone();
    }
    let taps = taps(from, width);
    let mut resized = RgbImage::new(width, height);
    let rows = resized.par_chunks_mut(width as usize * CHANNELS);
    rows.zip(image.par_chunks(from as usize * CHANNELS)).for_each(|(to, from)| {
        for (to, taps) in to.as_chunks_mut::<CHANNELS>().0.iter_mut().zip(&taps) {
            let mut sums = [1i32 << (BITS - 1); CHANNELS];
            let pixels = from[taps.first * CHANNELS..].as_chunks::<CHANNELS>().0;
            for (pixel, weight) in pixels.iter().zip(&taps.weights) {
                for (sum, channel) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(*channel) * weight;
                }
            }
            *to = sums.map(rounded);
        }
    });
    resized
}

fn resize_columns(image: &RgbImage, height: u32) -> RgbImage {
    let (width, from) = image.dimensions();
    if from == height {
        return image.clone();
    }
    let (taps, width_bytes) = (taps(from, height), width as usize * CHANNELS);
    let mut resized = RgbImage::from_pixel(width, height, Rgb([0; CHANNELS]));
    let rows = resized.par_chunks_mut(width_bytes).zip(&taps);
    rows.for_each_init(
        || vec![0i32; width_bytes],
        |sums, (to, taps)| {
            sums.fill(1 << (BITS - 1));
            let rows = image.chunks(width_bytes).skip(taps.first);
            for (row, weight) in rows.zip(&taps.weights) {
                accumulate(sums, row, *weight);
            }
            for (to, sum) in to.iter_mut().zip(&*sums) {
                *to = rounded(*sum);
            }
        },
    );
    resized
}

#[multiversion(targets = "simd")]
fn accumulate(sums: &mut [i32], row: &[u8], weight: i32) {
    for (sum, byte) in sums.iter_mut().zip(row) {
        *sum += i32::from(*byte) * weight;
    }
}

/// A weighted sum as a byte; the rounding half was added before.
fn rounded(sum: i32) -> u8 {
    (sum >> BITS).clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn image(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| {
            let noise = (x * 7919 + y * 104_729) % 251;
            Rgb([noise as u8, (x * 5) as u8, (255 - y * 3 % 256) as u8])
        })
    }

    #[test]
    fn the_same_size_is_the_identity() {
        assert_eq!(bicubic(&image(31, 17), 31, 17), image(31, 17));
    }

    /// Checksums from Pillow 13 for the same image (`scripts/parity/make_vision_fixtures.py`).
    #[test]
    fn resized_images_match_pillow_bit_for_bit() {
        let text = include_str!("../tests/fixtures/resize.json");
        let cases: Vec<[u32; 5]> = serde_json::from_str(text).unwrap();
        assert!(cases.len() >= 8);
        for [width, height, to_width, to_height, sum] in cases {
            let resized = bicubic(&image(width, height), to_width, to_height);
            assert_eq!(
                crc32fast::hash(&resized),
                sum,
                "{width} × {height} to {to_width} × {to_height}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_uniform_image_stays_uniform(
            width in 1..90u32, height in 1..90u32, to in (1..120u32, 1..120u32), gray in any::<u8>(),
        ) {
            let uniform = RgbImage::from_pixel(width, height, Rgb([gray; 3]));
            let resized = bicubic(&uniform, to.0, to.1);
            prop_assert_eq!(resized.dimensions(), to);
            prop_assert!(resized.iter().all(|byte| byte.abs_diff(gray) <= 1));
        }
    }
}
