//! Chosen frames in colour.

use std::path::Path;

use image::RgbImage;

use super::decoder::{Decoder, Pixels, Wanted};
use super::probe;
use crate::error::{Error, Result};

/// The frames `indices` of the video at `path`, in the order asked for.
///
/// The video is decoded once, up to the last of them. Where `max_side` is given, frames whose longer
/// side exceeds it are scaled down to it.
///
/// # Errors
/// Those of [`probe`]; [`Error::NoSuchFrame`] where the video ends before an index,
/// [`Error::Decode`] where it cannot be decoded that far.
pub fn frames(path: &Path, indices: &[usize], max_side: Option<u32>) -> Result<Vec<RgbImage>> {
    let mut order = indices.to_vec();
    order.sort_unstable();
    order.dedup();
    if order.is_empty() {
        return Ok(Vec::new());
    }
    let video = probe(path)?;
    let size = fit_within((video.width, video.height), max_side);
    let wanted =
        Wanted { select: any_of(&order), size, pixels: Pixels::Rgb, at_most: Some(order.len()) };
    let mut decoder = Decoder::start(&video, &wanted)?;
    let mut decoded = Vec::with_capacity(order.len());
    while decoded.len() < order.len() {
        let Some(pixels) = decoder.next_frame()? else { break };
        decoded.extend(RgbImage::from_raw(size.0, size.1, pixels));
    }
    if let Some(&index) = order.get(decoded.len()) {
        let ending = decoder.finish()?;
        let path = path.to_owned();
        return Err(match ending.success && ending.complaints.is_empty() {
            true => Error::NoSuchFrame { path, index },
            false => Error::Decode { path, reason: ending.reason() },
        });
    }
    let place = |index: &usize| order.binary_search(index).ok().and_then(|at| decoded.get(at));
    Ok(indices.iter().filter_map(place).cloned().collect())
}

/// `(width, height)` scaled down, where it must be, so that neither exceeds `max_side`.
#[must_use]
pub fn fit_within((width, height): (u32, u32), max_side: Option<u32>) -> (u32, u32) {
    let longer = width.max(height);
    let Some(max_side) = max_side.filter(|side| longer > *side) else { return (width, height) };
    let scaled = |side: u32| {
        let side = f64::from(side) * f64::from(max_side) / f64::from(longer);
        (side.round() as u32).max(1)
    };
    (scaled(width), scaled(height))
}

/// FFmpeg expression that is true at the sorted `indices`, with one term for each run of them.
fn any_of(indices: &[usize]) -> String {
    let term = |run: &[usize]| match run {
        [] => "0".to_owned(),
        [only] => format!("eq(n,{only})"),
        [first, .., last] => format!("between(n,{first},{last})"),
    };
    let mut terms: Vec<String> = indices.chunk_by(|a, b| a + 1 == *b).map(term).collect();
    // Added in pairs, since FFmpeg refuses sums of many terms: it nests them one in another.
    while terms.len() > 1 {
        terms = terms.chunks(2).map(|pair| format!("({})", pair.join("+"))).collect();
    }
    terms.pop().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::video::clips;

    #[test]
    fn frames_come_in_the_order_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = clips::brightening(folder.path(), "a.mp4", 30);
        let asked = [20, 3, 3, 29, 0];
        let frames = frames(&path, &asked, None).unwrap();
        assert_eq!(frames.len(), asked.len());
        for (frame, index) in frames.iter().zip(asked) {
            assert_eq!(frame.dimensions(), (clips::WIDTH, clips::HEIGHT));
            let gray = frame.get_pixel(40, 30).0[1];
            assert!(gray.abs_diff(clips::brightness(index)) <= 3, "frame {index} is {gray}");
        }
    }

    #[test]
    fn a_long_list_of_frames_is_one_pass() {
        let folder = tempfile::tempdir().unwrap();
        let path = clips::brightening(folder.path(), "a.mp4", 2000);
        let odd: Vec<usize> = (0..1000).map(|i| 2 * i + 1).collect();
        assert_eq!(frames(&path, &odd, Some(16)).unwrap().len(), odd.len());
    }

    #[test]
    fn a_frame_past_the_end_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = clips::brightening(folder.path(), "a.mp4", 5);
        let error = frames(&path, &[1, 7], None).unwrap_err();
        assert!(matches!(error, Error::NoSuchFrame { index: 7, .. }), "{error}");
    }

    #[test]
    fn scaling_keeps_the_proportions_and_never_enlarges() {
        assert_eq!(fit_within((1920, 1080), Some(640)), (640, 360));
        assert_eq!(fit_within((1080, 1920), Some(640)), (360, 640));
        assert_eq!(fit_within((320, 240), Some(640)), (320, 240));
        assert_eq!(fit_within((5000, 1), Some(100)), (100, 1));
        assert_eq!(fit_within((5, 7), None), (5, 7));
    }

    #[test]
    fn runs_of_frames_are_one_term() {
        assert_eq!(any_of(&[0, 4, 5, 6, 9]), "((eq(n,0)+between(n,4,6))+(eq(n,9)))");
    }
}
