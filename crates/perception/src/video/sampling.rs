//! Gray frames at a fixed step, and the last one.

use image::GrayImage;

use super::Video;
use super::decoder::{Decoder, Pixels, Wanted};
use super::limits::TimeLimit;
use super::process::Ending;
use super::reading::Reading;
use crate::error::{Error, Result};

/// How far before the promised last frame FFmpeg begins to hand over every frame.
const TAIL: usize = 3;

/// Hands the frames 0, `step`, 2·`step` … and the last one to `take`, in order, each with its
/// index, and returns how many frames the video has.
///
/// The video is decoded once. Which frame is the last one turns out at the end, so the few frames
/// around the end that the container promises are looked at too; only where that promise was too
/// high is the end looked for in a second pass.
///
/// # Errors
/// [`Error::Damaged`] where FFmpeg complains and frames are missing, [`Error::Decode`] where there
/// is no frame at all or FFmpeg gave up, [`Error::TooSlow`] where that took longer than `limit`, those
/// of [`probe`](super::probe()), and what `take` returns.
pub fn sample(
    video: &Video,
    step: usize,
    limit: TimeLimit,
    mut take: impl FnMut(usize, GrayImage) -> Result<()>,
) -> Result<usize> {
    let video = &video.described()?;
    let step = step.max(1);
    let tail = video.promised.map_or(0, |frames| frames.saturating_sub(TAIL));
    let mut wanted = (0..).filter(|n| n % step == 0 || *n >= tail);
    let mut last = 0;
    let mut untaken = None;
    let mut pass = decode(video, limit, format!("not(mod(n,{step}))+gte(n,{tail})"), |frame| {
        last = wanted.next().unwrap_or(usize::MAX);
        untaken = Some(frame);
        match last % step {
            0 => untaken.take().map_or(Ok(()), |frame| take(last, frame)),
            _ => Ok(()),
        }
    })?;
    if pass.given == 0 {
        return Err(Error::Decode { path: video.path.clone(), reason: pass.ending.reason() });
    }
    if last < tail {
        pass = decode(video, limit, format!("gt(n,{last})"), |frame| {
            untaken = Some(frame);
            Ok(())
        })?;
        last += pass.given;
    }
    check_whole(video, last + 1, &pass.ending)?;
    if let Some(frame) = untaken {
        take(last, frame)?;
    }
    Ok(last + 1)
}

/// What [`sample`] does, from an excerpt of the video in which frames are left out that need not be
/// decoded for it. The frames are the same, bit for bit.
///
/// `None` where the file has no index for that, or next to all frames are needed, or something about
/// it turned out odd on the way: [`sample`] has the last word then, and what was taken does not count.
///
/// # Errors
/// [`Error::TooSlow`], [`Error::FfmpegMissing`], [`Error::FfmpegRun`], and what `take` returns.
pub fn sample_excerpt(
    video: &Video,
    step: usize,
    limit: TimeLimit,
    mut take: impl FnMut(usize, GrayImage) -> Result<()>,
) -> Result<Option<usize>> {
    let Some(index) = &video.index else { return Ok(None) };
    let count = index.frames();
    let mut indices: Vec<usize> = (0..count).step_by(step.max(1)).collect();
    if indices.last() != Some(&(count - 1)) {
        indices.push(count - 1);
    }
    let Some(excerpt) = index.excerpt(&video.path, &indices) else { return Ok(None) };
    let pixels = Pixels::Gray;
    let size = (video.width, video.height);
    let mut excerpt = Reading::start(video, excerpt, (size, pixels), limit)?;
    for index in indices {
        let Some(frame) = excerpt.next_frame()? else { return Ok(None) };
        let Some(frame) = GrayImage::from_raw(size.0, size.1, frame) else { return Ok(None) };
        take(index, frame)?;
    }
    Ok(excerpt.came_whole()?.then_some(count))
}

/// A pass over the video: how many frames it gave and how it ended.
struct Pass {
    given: usize,
    ending: Ending,
}

fn decode(
    video: &Video,
    limit: TimeLimit,
    select: String,
    mut take: impl FnMut(GrayImage) -> Result<()>,
) -> Result<Pass> {
    let (width, height) = (video.width, video.height);
    let wanted = Wanted { select, size: (width, height), pixels: Pixels::Gray, at_most: None };
    let mut decoder = Decoder::start(video, &wanted, limit)?;
    let mut given = 0;
    while let Some(pixels) = decoder.next_frame()? {
        let Some(frame) = GrayImage::from_raw(width, height, pixels) else { break };
        take(frame)?;
        given += 1;
    }
    Ok(Pass { given, ending: decoder.finish(&video.path)? })
}

/// Lets a video through that came whole, or that FFmpeg decoded without a complaint.
fn check_whole(video: &Video, frames: usize, ending: &Ending) -> Result<()> {
    let path = || video.path.clone();
    // A container's count may be one too high, and a cut file hides frames: that alone is no fault.
    let missing = video.promised.filter(|&promised| frames + 1 < promised);
    let complains = !ending.success || !ending.complaints.is_empty();
    match (missing, video.promised) {
        (Some(expected), _) if complains => {
            Err(Error::Damaged { path: path(), frames, expected, reason: ending.reason() })
        }
        (None, None) if !ending.success => {
            Err(Error::Decode { path: path(), reason: ending.reason() })
        }
        _ => {
            if complains {
                let (path, reason) = (video.path.display(), ending.reason());
                tracing::warn!("`{path}` came whole, but FFmpeg complains: {reason}");
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::video::{clips, probe};

    /// Indices and mean brightness of the sampled frames, and the count of frames.
    fn sampled(video: &Video, step: usize) -> (Vec<(usize, u8)>, usize) {
        let mut seen = Vec::new();
        let frames = sample(video, step, TimeLimit::default(), |index, frame| {
            seen.push((index, frame.get_pixel(frame.width() / 2, frame.height() / 2).0[0]));
            Ok(())
        });
        (seen, frames.unwrap())
    }

    #[test]
    fn every_step_and_the_last_frame_are_sampled() {
        let folder = tempfile::tempdir().unwrap();
        let path = clips::brightening(folder.path(), "a.mp4", 23);
        let (seen, frames) = sampled(&probe(&path).unwrap(), 10);
        assert_eq!(frames, 23);
        assert_eq!(seen.iter().map(|s| s.0).collect::<Vec<_>>(), [0, 10, 20, 22]);
        for (index, brightness) in seen {
            let wanted = clips::brightness(index);
            assert!(
                brightness.abs_diff(wanted) <= 3,
                "frame {index} is {brightness}, not {wanted}"
            );
        }
    }

    #[test]
    fn a_last_frame_on_the_step_is_sampled_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = clips::brightening(folder.path(), "a.mp4", 21);
        let (seen, frames) = sampled(&probe(&path).unwrap(), 10);
        assert_eq!(frames, 21);
        assert_eq!(seen.iter().map(|s| s.0).collect::<Vec<_>>(), [0, 10, 20]);
    }

    #[test]
    fn the_last_frame_is_the_decoders_whatever_the_container_promises() {
        let folder = tempfile::tempdir().unwrap();
        let path = clips::brightening(folder.path(), "a.mp4", 23);
        let video = probe(&path).unwrap().described().unwrap();
        let truth = sampled(&video, 10);
        for promised in [None, Some(0), Some(1), Some(12), Some(24), Some(40), Some(1000)] {
            let video = Video { promised, ..video.clone() };
            assert_eq!(sampled(&video, 10), truth, "with {promised:?} promised");
        }
    }

    #[test]
    fn a_video_that_breaks_off_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = clips::truncated(folder.path(), "short.mp4");
        let error =
            sample(&probe(&path).unwrap(), 10, TimeLimit::default(), |_, _| Ok(())).unwrap_err();
        assert!(matches!(&error, Error::Damaged { frames, expected, .. } if frames < expected));
        assert!(error.to_string().contains("short.mp4` is truncated or damaged"), "{error}");
    }

    #[test]
    fn a_frame_size_that_changes_on_the_way_keeps_the_count() {
        let folder = tempfile::tempdir().unwrap();
        let path = clips::changing_size(folder.path(), "a.h264", 10);
        let video = Video { promised: None, ..probe(&path).unwrap() };
        assert_eq!(
            sampled(&video, 6).0.iter().map(|s| s.0).collect::<Vec<_>>(),
            [0, 6, 12, 18, 19]
        );
    }

    #[test]
    fn a_picture_on_its_side_is_turned_upright() {
        let folder = tempfile::tempdir().unwrap();
        let path = clips::on_its_side(folder.path(), "a.mp4");
        let mut sizes = Vec::new();
        sample(&probe(&path).unwrap(), 10, TimeLimit::default(), |_, frame| {
            sizes.push(frame.dimensions());
            Ok(())
        })
        .unwrap();
        assert_eq!(sizes, [(clips::HEIGHT, clips::WIDTH); 2]);
    }
}
