//! The images given to the reference.

use image::{Rgb, RgbImage};

/// The image of `scripts/parity/make_vision_fixtures.py`.
pub(crate) fn test_image((width, height): (u32, u32), seed: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let red = (3 * x + y + seed * 31) % 256;
        let green = ((x / 7 + y / 5 + seed) % 2) * 150 + (x * y + seed) % 64;
        let noise = (u64::from(x) * 7919 + u64::from(y) * 104_729 + u64::from(seed) * 97) % 41;
        let blue = (2 * y + noise as u32 + 20) % 256;
        Rgb([red as u8, green as u8, blue as u8])
    })
}
