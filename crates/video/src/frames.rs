//! Decoding frames by index, in color.

use std::path::Path;

use image::RgbImage;

use crate::Video;
use crate::decoder::{Decoder, PixelFormat, TrackSelection};
use crate::error::{Error, Result};
use crate::excerpt_decoder::{ExcerptDecoder, any_of};
use crate::limits::Limits;
use crate::probe::probe_within;

/// Bytes of the frames that wait in [`for_each_frame`].
pub const BATCH_BYTES: usize = 128 << 20;

/// The number of these frames: an excerpt's filter has up to as many terms, of some ten bytes each.
const BATCH_FRAMES: usize = 4096;

/// The longest expression of a filter: Linux limits an argument to 128 KiB.
const MAX_SELECT_BYTES: usize = 100_000;

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
    let decoded = map_frames(&video, &sorted, max_side, limits, Ok::<_, Error>)?;
    let lookup = |index: &usize| sorted.binary_search(index).ok().and_then(|at| decoded.get(at));
    Ok(indices.iter().filter_map(lookup).cloned().collect())
}

/// Calls `each` once with each frame of the ascending indices `sorted`, at full size, one after the other.
///
/// Frames that an excerpt gives are passed on once it is known to be intact, so up to [`BATCH_BYTES`] of them wait.
///
/// # Errors
/// As [`frames`], and those of `each`.
pub fn for_each_frame<E: From<Error>>(
    video: &Video,
    sorted: &[usize],
    limits: &Limits,
    mut each: impl FnMut(RgbImage) -> Result<(), E>,
) -> Result<(), E> {
    let size = (video.width, video.height);
    let frame_bytes = 3 * (size.0 as usize * size.1 as usize).max(1);
    let mut rest = sorted;
    while !rest.is_empty() {
        let most = (BATCH_BYTES / frame_bytes).clamp(1, BATCH_FRAMES);
        let (batch, later) = rest.split_at(most.min(rest.len()));
        let Some(frames) = from_excerpt(video, batch, size, limits, &mut Ok::<_, E>)? else {
            let video = video.with_ffprobe(limits)?;
            return from_whole(&video, rest, None, limits, &mut each).map(drop);
        };
        frames.into_iter().try_for_each(&mut each)?;
        rest = later;
    }
    Ok(())
}

/// Calls `map` with each frame of the ascending indices `sorted`, as [`frames`] gives them, one after the other; again from
/// the first one if an excerpt turns out not to be intact.
///
/// # Errors
/// As [`frames`], and those of `map`.
pub fn map_frames<T, E: From<Error>>(
    video: &Video,
    sorted: &[usize],
    max_side: Option<u32>,
    limits: &Limits,
    mut map: impl FnMut(RgbImage) -> Result<T, E>,
) -> Result<Vec<T>, E> {
    let size = fit_within((video.width, video.height), max_side);
    match from_excerpt(video, sorted, size, limits, &mut map)? {
        Some(mapped) => Ok(mapped),
        None => from_whole(&video.with_ffprobe(limits)?, sorted, max_side, limits, &mut map),
    }
}

/// The frames of the ascending indices `sorted`, decoding only the frames that they depend on; `None` if
/// that is not possible.
fn from_excerpt<T, E: From<Error>>(
    video: &Video,
    sorted: &[usize],
    size: (u32, u32),
    limits: &Limits,
    map: &mut impl FnMut(RgbImage) -> Result<T, E>,
) -> Result<Option<Vec<T>>, E> {
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
fn from_whole<T, E: From<Error>>(
    video: &Video,
    sorted: &[usize],
    max_side: Option<u32>,
    limits: &Limits,
    map: &mut impl FnMut(RgbImage) -> Result<T, E>,
) -> Result<Vec<T>, E> {
    let size = fit_within((video.width, video.height), max_side);
    let (Some(&first), Some(&last)) = (sorted.first(), sorted.last()) else {
        return Ok(Vec::new());
    };
    // Too many terms for an argument: all frames up to the last are converted.
    let (select, converted) = match any_of(sorted) {
        terms if terms.len() <= MAX_SELECT_BYTES => (terms, sorted.to_vec()),
        _ => (format!("between(n,{first},{last})"), (first..=last).collect()),
    };
    let max_frames = Some(converted.len());
    let selection = TrackSelection { select, size, format: PixelFormat::Rgb, max_frames };
    let mut decoder = Decoder::start(video, &selection, limits)?;
    let mut decoded = Vec::with_capacity(sorted.len());
    for index in converted {
        let Some(pixels) = decoder.next_frame()? else { break };
        if sorted.get(decoded.len()) == Some(&index) {
            let frame = RgbImage::from_raw(size.0, size.1, pixels);
            decoded.extend(frame.map(&mut *map).transpose()?);
        }
    }
    if let Some(&index) = sorted.get(decoded.len()) {
        let path = video.path.clone();
        let exit = decoder.finish(&path)?;
        let error = match exit.success && exit.errors.is_empty() {
            true => Error::NoSuchFrame { path, index },
            false => Error::Decode { path, reason: exit.reason() },
        };
        return Err(error.into());
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
    use crate::clips;

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
    fn each_frame_is_passed_on_once_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = clips::brightening(folder.path(), "a.mp4", 30);
        let video = crate::probe(&path).unwrap();
        for wanted in [vec![2, 3, 20], (0..30).collect()] {
            let mut seen = Vec::new();
            for_each_frame(&video, &wanted, &Limits::default(), |frame| {
                seen.push(frame.get_pixel(40, 30).0[1]);
                Ok::<_, Error>(())
            })
            .unwrap();
            assert_eq!(seen.len(), wanted.len());
            for (gray, index) in seen.iter().zip(wanted) {
                assert!(gray.abs_diff(clips::brightness(index)) <= 3, "frame {index} is {gray}");
            }
        }
    }

    #[test]
    fn any_number_of_frames_is_decoded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.mp4");
        let source = "-f lavfi -i testsrc2=s=16x16:r=10 -frames:v 24000 -pix_fmt yuv420p";
        clips::ffmpeg(&format!("{source} -c:v libx264 -preset ultrafast -g 2"), &path);
        let video = crate::probe(&path).unwrap();
        let limits = Limits::default();
        let every = |step: usize| (0..24_000).step_by(step).collect::<Vec<usize>>();
        let few = frames(&path, &[0, 7998, 8001], None, &limits).unwrap();
        for step in [2, 3] {
            let mut images = Vec::new();
            for_each_frame(&video, &every(step), &limits, |frame| {
                images.push(frame);
                Ok::<_, Error>(())
            })
            .unwrap();
            assert_eq!(images.len(), 24_000_usize.div_ceil(step));
            assert_eq!((&images[0], &images[7998 / step]), (&few[0], &few[1]));
        }
        // Of the whole file, which a single excerpt of so many frames falls back to.
        let video = video.with_ffprobe(&limits).unwrap();
        let whole = from_whole(&video, &every(3), None, &limits, &mut Ok::<_, Error>).unwrap();
        assert_eq!((whole.len(), &whole[8001 / 3]), (8000, &few[2]));
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
