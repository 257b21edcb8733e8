//! Sampling gray frames at a fixed step, plus the last one.

use image::GrayImage;

use crate::Video;
use crate::decoder::{Decoder, PixelFormat, TrackSelection};
use crate::error::{Error, Result};
use crate::excerpt_decoder::ExcerptDecoder;
use crate::limits::Limits;
use crate::process::ExitReport;

/// Frames before the expected end from which FFmpeg outputs every frame.
const TAIL: usize = 3;

/// Calls `take` with the frames 0, `step`, 2·`step` … and the last one, in order, each with its index,
/// and returns the number of frames.
///
/// The video is decoded once. The last frame is known only at the end, so the frames around the end
/// expected from the container are output too. A second pass is needed only if that end was too high.
///
/// # Errors
/// [`Error::Damaged`] if FFmpeg reports errors and frames are missing, [`Error::Decode`] if there is no
/// frame at all or FFmpeg fails, [`Error::DecodeTimeout`] and [`Error::DecodeInterrupted`] by `limits`, those of
/// [`probe`](super::probe()) and of `take`.
pub fn sample<E: From<Error>>(
    video: &Video,
    step: usize,
    limits: &Limits,
    mut take: impl FnMut(usize, GrayImage) -> Result<(), E>,
) -> Result<usize, E> {
    let limits = &limits.started();
    let video = &video.with_ffprobe(limits)?;
    let step = step.max(1);
    let tail = video.expected_frames.map_or(0, |frames| frames.saturating_sub(TAIL));
    let mut expected = (0..).filter(|n| n % step == 0 || *n >= tail);
    let mut last = 0;
    let mut pending = None;
    let mut pass = decode(video, limits, format!("not(mod(n,{step}))+gte(n,{tail})"), |frame| {
        last = expected.next().unwrap_or(usize::MAX);
        pending = Some(frame);
        match last % step {
            0 => pending.take().map_or(Ok(()), |frame| take(last, frame)),
            _ => Ok(()),
        }
    })?;
    if pass.frames == 0 {
        let path = video.path.clone();
        return Err(Error::Decode { path, reason: pass.exit.reason() }.into());
    }
    if last < tail {
        pass = decode(video, limits, format!("gt(n,{last})"), |frame| {
            pending = Some(frame);
            Ok::<_, Error>(())
        })?;
        last += pass.frames;
    }
    check_whole(video, last + 1, &pass.exit)?;
    if let Some(frame) = pending {
        take(last, frame)?;
    }
    Ok(last + 1)
}

/// The number of frames of a video: that of its index, or else of the decoder, which runs over the whole video.
///
/// # Errors
/// As [`sample`].
pub fn count_frames(video: &Video, limits: &Limits) -> Result<usize> {
    match &video.index {
        Some(index) => Ok(index.frames()),
        // Only the first and the last frames are converted.
        None => sample(video, usize::MAX >> 16, limits, |_, _| Ok(())),
    }
}

/// As [`sample`], but decodes an excerpt without the frames that the sampled ones do not depend on. The
/// frames are bit-identical.
///
/// `None` if the file has no usable index, if nearly all frames are needed, or if the excerpt does not
/// match its index; then discard the frames and call [`sample`].
///
/// # Errors
/// [`Error::DecodeTimeout`], [`Error::DecodeInterrupted`], [`Error::FfmpegMissing`], [`Error::FfmpegRun`], and those of `take`.
pub fn sample_excerpt<E: From<Error>>(
    video: &Video,
    step: usize,
    limits: &Limits,
    mut take: impl FnMut(usize, GrayImage) -> Result<(), E>,
) -> Result<Option<usize>, E> {
    let Some(index) = &video.index else { return Ok(None) };
    let count = index.frames();
    let mut indices: Vec<usize> = (0..count).step_by(step.max(1)).collect();
    if indices.last() != Some(&(count - 1)) {
        indices.push(count - 1);
    }
    let Some(excerpt) = index.excerpt(&video.path, &indices) else { return Ok(None) };
    let format = PixelFormat::Gray;
    let size = (video.width, video.height);
    let mut excerpt = ExcerptDecoder::start(video, excerpt, (size, format), limits)?;
    for index in indices {
        let Some(frame) = excerpt.next_frame()? else { return Ok(None) };
        let Some(frame) = GrayImage::from_raw(size.0, size.1, frame) else { return Ok(None) };
        take(index, frame)?;
    }
    Ok(excerpt.finish()?.then_some(count))
}

/// A decoding pass: the number of output frames and the process's exit.
struct Pass {
    frames: usize,
    exit: ExitReport,
}

fn decode<E: From<Error>>(
    video: &Video,
    limits: &Limits,
    select: String,
    mut take: impl FnMut(GrayImage) -> Result<(), E>,
) -> Result<Pass, E> {
    let (width, height) = (video.width, video.height);
    let selection = TrackSelection {
        select,
        size: (width, height),
        format: PixelFormat::Gray,
        max_frames: None,
    };
    let mut decoder = Decoder::start(video, &selection, limits)?;
    let mut frames = 0;
    while let Some(pixels) = decoder.next_frame()? {
        let Some(frame) = GrayImage::from_raw(width, height, pixels) else { break };
        take(frame)?;
        frames += 1;
    }
    Ok(Pass { frames, exit: decoder.finish(&video.path)? })
}

/// Fails if frames are missing and FFmpeg reported errors.
fn check_whole(video: &Video, frames: usize, exit: &ExitReport) -> Result<()> {
    let path = || video.path.clone();
    // A container's count may be one too high, and edit lists hide frames: that alone is no error.
    let missing = video.expected_frames.filter(|&expected_frames| frames + 1 < expected_frames);
    let has_errors = !exit.success || !exit.errors.is_empty();
    match (missing, video.expected_frames) {
        (Some(expected), _) if has_errors => {
            Err(Error::Damaged { path: path(), frames, expected, reason: exit.reason() })
        }
        (None, None) if !exit.success => Err(Error::Decode { path: path(), reason: exit.reason() }),
        _ => {
            if has_errors {
                let (path, reason) = (video.path.display(), exit.reason());
                tracing::warn!("`{path}` is complete, but FFmpeg reports errors: {reason}");
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clips, probe};

    /// Indices and brightness of the sampled frames, and the number of frames.
    fn sampled(video: &Video, step: usize) -> (Vec<(usize, u8)>, usize) {
        let mut sampled_frames = Vec::new();
        let frames = sample(video, step, &Limits::default(), |index, frame| {
            sampled_frames
                .push((index, frame.get_pixel(frame.width() / 2, frame.height() / 2).0[0]));
            Ok::<_, Error>(())
        });
        (sampled_frames, frames.unwrap())
    }

    #[test]
    fn every_step_and_the_last_frame_are_sampled() {
        let folder = tempfile::tempdir().unwrap();
        let path = clips::brightening(folder.path(), "a.mp4", 23);
        let (sampled_frames, frames) = sampled(&probe(&path).unwrap(), 10);
        assert_eq!(frames, 23);
        assert_eq!(sampled_frames.iter().map(|s| s.0).collect::<Vec<_>>(), [0, 10, 20, 22]);
        for (index, brightness) in sampled_frames {
            let expected = clips::brightness(index);
            assert!(
                brightness.abs_diff(expected) <= 3,
                "frame {index} is {brightness}, not {expected}"
            );
        }
    }

    #[test]
    fn a_last_frame_on_the_step_is_sampled_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = clips::brightening(folder.path(), "a.mp4", 21);
        let (sampled_frames, frames) = sampled(&probe(&path).unwrap(), 10);
        assert_eq!(frames, 21);
        assert_eq!(sampled_frames.iter().map(|s| s.0).collect::<Vec<_>>(), [0, 10, 20]);
    }

    #[test]
    fn the_last_frame_is_the_decoders_not_the_containers() {
        let folder = tempfile::tempdir().unwrap();
        let path = clips::brightening(folder.path(), "a.mp4", 23);
        let video = probe(&path).unwrap().with_ffprobe(&Limits::default()).unwrap();
        let truth = sampled(&video, 10);
        for expected_frames in [None, Some(0), Some(1), Some(12), Some(24), Some(40), Some(1000)] {
            let video = Video { expected_frames, ..video.clone() };
            assert_eq!(sampled(&video, 10), truth, "with {expected_frames:?} expected frames");
        }
    }

    #[test]
    fn a_truncated_video_is_rejected_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = clips::truncated(folder.path(), "short.mp4");
        let error =
            sample(&probe(&path).unwrap(), 10, &Limits::default(), |_, _| Ok::<_, Error>(()))
                .unwrap_err();
        assert!(matches!(&error, Error::Damaged { frames, expected, .. } if frames < expected));
        assert!(error.to_string().contains("short.mp4` is truncated or corrupt"), "{error}");
    }

    #[test]
    fn a_change_of_frame_size_keeps_the_frame_count() {
        let folder = tempfile::tempdir().unwrap();
        let path = clips::changing_size(folder.path(), "a.h264", 10);
        let video = Video { expected_frames: None, ..probe(&path).unwrap() };
        assert_eq!(
            sampled(&video, 6).0.iter().map(|s| s.0).collect::<Vec<_>>(),
            [0, 6, 12, 18, 19]
        );
    }

    #[test]
    fn rotation_metadata_is_applied() {
        let folder = tempfile::tempdir().unwrap();
        let path = clips::rotated(folder.path(), "a.mp4");
        let mut sizes = Vec::new();
        sample(&probe(&path).unwrap(), 10, &Limits::default(), |_, frame| {
            sizes.push(frame.dimensions());
            Ok::<_, Error>(())
        })
        .unwrap();
        assert_eq!(sizes, [(clips::HEIGHT, clips::WIDTH); 2]);
    }
}
