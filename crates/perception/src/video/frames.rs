//! Decoding frames by index, in color.

use std::path::Path;

use image::RgbImage;

use super::Video;
use super::decoder::{Decoder, PixelFormat, TrackSelection};
use super::excerpt_decoder::{ExcerptDecoder, any_of};
use super::limits::Limits;
use super::probe::probe_within;
use crate::error::{Error, Result};

/// The frames `indices` of the video at `path`, in the given order.
///
/// The video is decoded once, up to the last of them. Frames whose longer side exceeds `max_side` are
/// scaled down to it.
///
/// # Errors
/// Those of [`probe`](super::probe()); [`Error::NoSuchFrame`] if the video ends before an index, [`Error::Decode`] if it
/// cannot be decoded that far, [`Error::DecodeTimeout`] and [`Error::DecodeInterrupted`] by `limits`.
pub fn frames(
    path: &Path,
    indices: &[usize],
    max_side: Option<u32>,
    limits: &Limits,
) -> Result<Vec<RgbImage>> {
    let mut sorted = indices.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    if sorted.is_empty() {
        return Ok(Vec::new());
    }
    let limits = &limits.started();
    let video = probe_within(path, limits)?;
    let decoded = map_frames(&video, &sorted, max_side, limits, Ok)?;
    let lookup = |index: &usize| sorted.binary_search(index).ok().and_then(|at| decoded.get(at));
    Ok(indices.iter().filter_map(lookup).cloned().collect())
}

/// Calls `map` with each frame of the ascending indices `sorted`, as [`frames`] gives them, one after the other.
///
/// # Errors
/// As [`frames`], and those of `map`.
pub(crate) fn map_frames<T>(
    video: &Video,
    sorted: &[usize],
    max_side: Option<u32>,
    limits: &Limits,
    mut map: impl FnMut(RgbImage) -> Result<T>,
) -> Result<Vec<T>> {
    let size = fit_within((video.width, video.height), max_side);
    match from_excerpt(video, sorted, size, limits, &mut map)? {
        Some(mapped) => Ok(mapped),
        None => from_whole(&video.with_ffprobe(limits)?, sorted, max_side, limits, &mut map),
    }
}

/// The frames of the ascending indices `sorted`, decoding only the frames that they depend on; `None` if
/// that is not possible.
fn from_excerpt<T>(
    video: &Video,
    sorted: &[usize],
    size: (u32, u32),
    limits: &Limits,
    map: &mut impl FnMut(RgbImage) -> Result<T>,
) -> Result<Option<Vec<T>>> {
    let excerpt = video.index.as_ref().and_then(|index| index.excerpt(&video.path, sorted));
    let Some(excerpt) = excerpt else { return Ok(None) };
    let mut decoder = ExcerptDecoder::start(video, excerpt, (size, PixelFormat::Rgb), limits)?;
    let mut decoded = Vec::with_capacity(sorted.len());
    while decoded.len() < sorted.len() {
        let Some(pixels) = decoder.next_frame()? else { return Ok(None) };
        let frame = RgbImage::from_raw(size.0, size.1, pixels);
        decoded.extend(frame.map(&mut *map).transpose()?);
    }
    Ok(decoder.finish()?.then_some(decoded))
}

/// As [`from_excerpt`], decoding all frames up to the last of them.
fn from_whole<T>(
    video: &Video,
    sorted: &[usize],
    max_side: Option<u32>,
    limits: &Limits,
    map: &mut impl FnMut(RgbImage) -> Result<T>,
) -> Result<Vec<T>> {
    let size = fit_within((video.width, video.height), max_side);
    let selection = TrackSelection {
        select: any_of(sorted),
        size,
        format: PixelFormat::Rgb,
        max_frames: Some(sorted.len()),
    };
    let mut decoder = Decoder::start(video, &selection, limits)?;
    let mut decoded = Vec::with_capacity(sorted.len());
    while decoded.len() < sorted.len() {
        let Some(pixels) = decoder.next_frame()? else { break };
        let frame = RgbImage::from_raw(size.0, size.1, pixels);
        decoded.extend(frame.map(&mut *map).transpose()?);
    }
    if let Some(&index) = sorted.get(decoded.len()) {
        let path = video.path.clone();
        let exit = decoder.finish(&path)?;
        return Err(match exit.success && exit.errors.is_empty() {
            true => Error::NoSuchFrame { path, index },
            false => Error::Decode { path, reason: exit.reason() },
        });
    }
    Ok(decoded)
}

/// `(width, height)`, scaled down if needed so that neither exceeds `max_side`.
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
    fn frames_are_returned_in_the_requested_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = clips::brightening(folder.path(), "a.mp4", 30);
        let requested = [20, 3, 3, 29, 0];
        let frames = frames(&path, &requested, None, &Limits::default()).unwrap();
        assert_eq!(frames.len(), requested.len());
        for (frame, index) in frames.iter().zip(requested) {
            assert_eq!(frame.dimensions(), (clips::WIDTH, clips::HEIGHT));
            let gray = frame.get_pixel(40, 30).0[1];
            assert!(gray.abs_diff(clips::brightness(index)) <= 3, "frame {index} is {gray}");
        }
    }

    #[test]
    fn many_frames_are_decoded_in_one_pass() {
        let folder = tempfile::tempdir().unwrap();
        let path = clips::brightening(folder.path(), "a.mp4", 2000);
        let odd: Vec<usize> = (0..1000).map(|i| 2 * i + 1).collect();
        assert_eq!(frames(&path, &odd, Some(16), &Limits::default()).unwrap().len(), odd.len());
    }

    #[test]
    fn a_frame_beyond_the_end_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = clips::brightening(folder.path(), "a.mp4", 5);
        let error = frames(&path, &[1, 7], None, &Limits::default()).unwrap_err();
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
