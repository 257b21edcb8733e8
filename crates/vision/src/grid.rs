//! The patch grid of an image, and the size that images are resized to.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The patch grid of an image or a video (`grid_thw`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Grid {
    /// Patches along time; 1 for an image.
    pub time: usize,
    /// Patches along the height.
    pub height: usize,
    /// Patches along the width.
    pub width: usize,
}

impl Grid {
    /// The number of patches.
    #[must_use]
    pub fn patches(&self) -> usize {
        self.time * self.height * self.width
    }

    /// The number of decoder tokens, with `merge` × `merge` patches per token.
    #[must_use]
    pub fn tokens(&self, merge: usize) -> usize {
        self.patches() / (merge * merge)
    }

    /// Time, height and width, in the order of `transformers`.
    #[must_use]
    pub fn thw(&self) -> [usize; 3] {
        [self.time, self.height, self.width]
    }
}

/// The limits on an image's pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PixelLimits {
    /// Smaller images are enlarged to this many pixels.
    pub min_pixels: usize,
    /// Larger images are reduced to this many pixels.
    pub max_pixels: usize,
}

/// The largest ratio of the longer to the shorter side.
const LARGEST_RATIO: f64 = 200.0;

/// The size that an image is resized to (`smart_resize` of Qwen2-VL's processor): multiples of `factor`, close to its
/// own size and aspect ratio, with pixels within the limits.
///
/// # Errors
/// [`Error::AspectRatio`] if one side is more than 200 times the other, or 0.
pub fn smart_resize(size: (u32, u32), factor: usize, limits: PixelLimits) -> Result<(u32, u32)> {
    resize_within(size, factor, limits, [1.0; 2])
}

/// The size that the frames of a clip are resized to (`smart_resize` of Qwen3-VL's video processor): as [`smart_resize`], with
/// the pixels of all `frames` within the limits. These count frames in multiples of `frames_per_patch` where they are
/// compared, and as they are where frames are scaled.
///
/// # Errors
/// As [`smart_resize`].
pub(crate) fn smart_resize_clip(
    (width, height): (u32, u32),
    factor: usize,
    limits: PixelLimits,
    (frames, frames_per_patch): (usize, usize),
) -> Result<(u32, u32)> {
    let (w, h, least) = (f64::from(width), f64::from(height), factor as f64);
    // Frames below a token are enlarged to one first.
    let size = match width > 0 && height > 0 && w.min(h) < least {
        true => {
            let by = (least / h).max(least / w);
            ((w * by) as u32, (h * by) as u32)
        }
        false => (width, height),
    };
    let (frames, patch) = (frames as f64, frames_per_patch as f64);
    resize_within(size, factor, limits, [(frames / patch).round_ties_even() * patch, frames])
}

/// Limits the product of sides and the first of `frames`; scales by the product of sides and the second.
fn resize_within(
    (width, height): (u32, u32),
    factor: usize,
    limits: PixelLimits,
    [compared, scaled]: [f64; 2],
) -> Result<(u32, u32)> {
    let (w, h) = (f64::from(width), f64::from(height));
    if width == 0 || height == 0 || w.max(h) / w.min(h) > LARGEST_RATIO {
        return Err(Error::AspectRatio { width, height });
    }
    let factor = factor as f64;
    let nearest = |side: f64| (side / factor).round_ties_even() * factor;
    let (mut to_w, mut to_h) = (nearest(w), nearest(h));
    let (least, most) = (limits.min_pixels as f64, limits.max_pixels as f64);
    if compared * to_w * to_h > most {
        let by = (scaled * h * w / most).sqrt();
        let below = |side: f64| ((side / by / factor).floor() * factor).max(factor);
        (to_w, to_h) = (below(w), below(h));
    } else if compared * to_w * to_h < least {
        let by = (least / (scaled * h * w)).sqrt();
        let above = |side: f64| (side * by / factor).ceil() * factor;
        (to_w, to_h) = (above(w), above(h));
    }
    Ok((to_w as u32, to_h as u32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: PixelLimits = PixelLimits { min_pixels: 3136, max_pixels: 12_845_056 };

    #[test]
    fn sizes_match_the_reference() {
        let text = include_str!("../tests/fixtures/smart_resize.json");
        let cases: Vec<[u32; 6]> = serde_json::from_str(text).unwrap();
        assert!(cases.len() > 40);
        for [width, height, min_pixels, max_pixels, to_width, to_height] in cases {
            let limits =
                PixelLimits { min_pixels: min_pixels as usize, max_pixels: max_pixels as usize };
            let found = smart_resize((width, height), 28, limits).unwrap();
            assert_eq!(found, (to_width, to_height), "{width} × {height} within {limits:?}");
        }
    }

    #[test]
    fn extreme_aspect_ratios_and_empty_images_are_rejected() {
        assert!(smart_resize((2000, 10), 28, LIMITS).is_ok());
        let message = smart_resize((2001, 10), 28, LIMITS).unwrap_err().to_string();
        assert!(message.contains("2001 × 10"), "{message}");
        assert!(smart_resize((0, 10), 28, LIMITS).is_err());
        assert!(smart_resize((0, 0), 28, LIMITS).is_err());
    }

    proptest! {
        #[test]
        fn sides_are_multiples_and_pixels_within_the_limits(
            width in 1..4000u32, height in 1..4000u32, least in 1..2000usize, more in 1..4000usize,
        ) {
            prop_assume!(width.max(height) <= 200 * width.min(height));
            // The sides of an enlarged image are rounded up, which may quadruple its pixels.
            let limits =
                PixelLimits { min_pixels: least * 784, max_pixels: (4 * least + more) * 784 };
            let (w, h) = smart_resize((width, height), 28, limits).unwrap();
            prop_assert!(w % 28 == 0 && h % 28 == 0 && w > 0 && h > 0);
            // A side of one token cannot shrink, whatever the limit.
            let is_ribbon = w.min(h) == 28;
            prop_assert!(is_ribbon || (w * h) as usize <= limits.max_pixels);
        }
    }
}
