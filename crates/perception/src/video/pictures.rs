//! Chosen frames in colour.

use std::path::Path;

use image::RgbImage;

use super::decoder::{Decoder, Pixels, Wanted};
use super::limits::TimeLimit;
use super::reading::{Reading, any_of};
use super::{Video, probe};
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
    let decoded = match from_excerpt(&video, &order, size)? {
        Some(decoded) => decoded,
        None => from_whole(&video.described()?, &order, max_side)?,
    };
    let place = |index: &usize| order.binary_search(index).ok().and_then(|at| decoded.get(at));
    Ok(indices.iter().filter_map(place).cloned().collect())
}

/// The frames of the ascending indices `order`, with no other frames decoded than they need; `None`
/// where that is not possible.
fn from_excerpt(video: &Video, order: &[usize], size: (u32, u32)) -> Result<Option<Vec<RgbImage>>> {
    let excerpt = video.index.as_ref().and_then(|index| index.excerpt(&video.path, order));
    let Some(excerpt) = excerpt else { return Ok(None) };
    let mut reading = Reading::start(video, excerpt, (size, Pixels::Rgb), TimeLimit::default())?;
    let mut decoded = Vec::with_capacity(order.len());
    while decoded.len() < order.len() {
        let Some(pixels) = reading.next_frame()? else { return Ok(None) };
        decoded.extend(RgbImage::from_raw(size.0, size.1, pixels));
    }
    Ok(reading.came_whole()?.then_some(decoded))
}

/// The same, with all frames decoded up to the last of them.
fn from_whole(video: &Video, order: &[usize], max_side: Option<u32>) -> Result<Vec<RgbImage>> {
    let size = fit_within((video.width, video.height), max_side);
    let wanted =
        Wanted { select: any_of(order), size, pixels: Pixels::Rgb, at_most: Some(order.len()) };
    let mut decoder = Decoder::start(video, &wanted, TimeLimit::default())?;
    let mut decoded = Vec::with_capacity(order.len());
    while decoded.len() < order.len() {
        let Some(pixels) = decoder.next_frame()? else { break };
        decoded.extend(RgbImage::from_raw(size.0, size.1, pixels));
    }
    if let Some(&index) = order.get(decoded.len()) {
        let path = video.path.clone();
        let ending = decoder.finish(&path)?;
        return Err(match ending.success && ending.complaints.is_empty() {
            true => Error::NoSuchFrame { path, index },
            false => Error::Decode { path, reason: ending.reason() },
        });
    }
    Ok(decoded)
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
}
