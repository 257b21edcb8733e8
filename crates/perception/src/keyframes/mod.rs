//! The few frames of a video that show something new.
//!
//! A frame is taken every second. It is a key frame where it shows too little of the last one: where
//! its outline, brought into that frame's view by a homography, covers less than a threshold of it
//! (Embodied-R, arXiv 2504.12680). Between 4 and 32 are chosen, the first and the last frame always.
//!
//! [`features`], [`matching`], [`homography`] and [`overlap`] are the steps of comparing two frames,
//! which [`compare`] does in one go; [`choice`] is the rule, [`contact_sheet`] draws what it chose.

pub mod choice;
pub mod compare;
pub mod contact_sheet;
pub mod features;
pub mod homography;
mod lettering;
pub mod matching;
pub mod overlap;
mod random;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

pub use choice::{Options, SampledFrame, Why};
use compare::View;

use crate::error::Result;
use crate::video::{self, Video};

/// A video's key frames and what they were chosen from.
#[derive(Debug, Clone, Serialize)]
pub struct Selection {
    /// Frames a second.
    pub fps: f64,
    /// How many frames the video has.
    pub frames: usize,
    /// The frames that were looked at: one a second, and the last one.
    pub sampled: Vec<SampledFrame>,
    /// The indices of the key frames, in order.
    pub keyframes: Vec<usize>,
}

/// Chooses the key frames of the video at `path`.
///
/// The video is decoded once; the frames' features are found on all cores meanwhile.
///
/// # Errors
/// [`Error::KeyframeOption`](crate::Error::KeyframeOption) about `options`, and those of
/// [`video::probe`] and [`video::sample`].
pub fn select(path: &Path, options: &Options) -> Result<Selection> {
    options.check()?;
    let video = video::probe(path)?;
    let (frames, views) = views(&video)?;
    let sampled = choice::choose(&views, options, |index| video.time_s(index));
    let keyframes = sampled.iter().filter(|frame| frame.kept).map(|frame| frame.index).collect();
    Ok(Selection { fps: video.fps.as_f64(), frames, sampled, keyframes })
}

/// How many frames the video has, and the views of those at each second and of the last, with their
/// indices, in order.
fn views(video: &Video) -> Result<(usize, Vec<(usize, View)>)> {
    let waiting = AtomicUsize::new(0);
    let most_waiting = 2 * rayon::current_num_threads();
    let views = Mutex::new(Vec::new());
    let keep = |index, view| {
        views.lock().unwrap_or_else(PoisonError::into_inner).push((index, view));
    };
    let frames = rayon::in_place_scope(|scope| {
        video::sample(video, video.frames_per_second(), |index, frame| {
            if waiting.load(Ordering::Relaxed) >= most_waiting {
                // The cores are behind: this thread helps, and the decoder waits.
                keep(index, View::of(&frame));
                return Ok(());
            }
            waiting.fetch_add(1, Ordering::Relaxed);
            let (keep, waiting) = (&keep, &waiting);
            scope.spawn(move |_| {
                keep(index, View::of(&frame));
                waiting.fetch_sub(1, Ordering::Relaxed);
            });
            Ok(())
        })
    })?;
    let mut views = views.into_inner().unwrap_or_else(PoisonError::into_inner);
    views.sort_by_key(|(index, _)| *index);
    Ok((frames, views))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use crate::video::clips;

    #[test]
    fn a_still_video_keeps_four_frames_spread_evenly() {
        let folder = tempfile::tempdir().unwrap();
        let path = clips::standing(folder.path(), "still.mp4", 75);
        let selection = select(&path, &Options::default()).unwrap();
        assert_eq!((selection.fps, selection.frames), (10.0, 75));
        let sampled: Vec<_> = selection.sampled.iter().map(|f| f.index).collect();
        assert_eq!(sampled, [0, 10, 20, 30, 40, 50, 60, 70, 74]);
        assert_eq!(selection.keyframes, [0, 30, 50, 74]);
        let overlaps = selection.sampled[1..].iter().map(|f| f.overlap.unwrap());
        assert!(overlaps.into_iter().all(|overlap| overlap > 0.98));
    }

    #[test]
    fn a_steady_pan_keeps_a_frame_each_time_that_half_of_it_has_passed() {
        let folder = tempfile::tempdir().unwrap();
        // 60 pixels a second across a frame of 320: less than half is left after 3 s.
        let path = clips::panning(folder.path(), "pan.mp4", 100);
        let selection = select(&path, &Options::default()).unwrap();
        assert_eq!(selection.keyframes, [0, 30, 60, 90, 99]);
        for frame in &selection.sampled[1..] {
            let since = [90, 60, 30, 0].into_iter().find(|key| *key < frame.index).unwrap();
            let wanted = 1.0 - 6.0 * (frame.index - since) as f64 / 320.0;
            let overlap = frame.overlap.unwrap();
            assert!((overlap - wanted).abs() < 0.01, "frame {}: {overlap} {wanted}", frame.index);
        }
    }

    #[test]
    fn a_video_of_one_frame_has_one_key_frame() {
        let folder = tempfile::tempdir().unwrap();
        let path = clips::brightening(folder.path(), "one.mp4", 1);
        let selection = select(&path, &Options::default()).unwrap();
        assert_eq!((selection.frames, selection.keyframes), (1, vec![0]));
    }

    #[test]
    fn frames_without_features_are_all_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = clips::brightening(folder.path(), "plain.mp4", 45);
        let selection = select(&path, &Options::default()).unwrap();
        assert_eq!(selection.keyframes, [0, 10, 20, 30, 40, 44]);
        assert!(selection.sampled[1..].iter().all(|frame| frame.why == Why::FewMatches));
    }

    #[test]
    fn what_is_no_video_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("empty.mp4"), "").unwrap();
        std::fs::write(at("text.mp4"), "no video at all").unwrap();
        clips::sound(folder.path(), "sound.m4a");
        let refusal = |name| select(&at(name), &Options::default()).unwrap_err();
        assert!(matches!(refusal("empty.mp4"), Error::EmptyFile { .. }));
        assert!(matches!(refusal("text.mp4"), Error::NotAVideo { .. }));
        assert!(matches!(refusal("sound.m4a"), Error::NoVideoTrack { .. }));
        assert!(matches!(refusal("absent.mp4"), Error::Io { .. }));
        for name in ["empty.mp4", "text.mp4", "sound.m4a", "absent.mp4"] {
            assert!(refusal(name).to_string().contains(name));
        }
    }
}
