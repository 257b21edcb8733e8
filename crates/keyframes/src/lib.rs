//! Selection of a video's key frames.
//!
//! Frames are sampled at 1 fps. A sampled frame is a key frame if its overlap with the last key frame is
//! below a threshold: the share of that frame covered by this frame's outline, projected by a homography
//! (Embodied-R, arXiv 2504.12680). Between 4 and 32 frames are selected, always with the first and last.
//!
//! [`compare`] estimates the overlap of two frames in four steps: [`features`], [`matching`],
//! [`homography`] and [`overlap`]. [`selector`] implements the selection rule, [`contact_sheet`] draws
//! its result.
//!
//! ```no_run
//! use embodied_r_keyframes::{KeyFrameOptions, select};
//!
//! let selection = select("walk.mp4".as_ref(), &KeyFrameOptions::default())?;
//! println!("{:?} of {} frames", selection.keyframes, selection.frames);
//! # Ok::<(), embodied_r_keyframes::Error>(())
//! ```

mod bitmap_font;
pub mod compare;
pub mod contact_sheet;
pub mod error;
pub mod features;
pub mod homography;
pub mod matching;
pub mod overlap;
pub mod selector;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use compare::FrameFeatures;
use embodied_r_video::{self as video, Limits, Timestamps};
pub use error::{Error, Result};
pub use homography::HomographyFailure;
use image::GrayImage;
use selector::KeyFrameSelector;
pub use selector::{Decision, KeyFrameOptions, SampledFrame};
use serde::Serialize;

/// A video's key frames and the sampled frames.
#[derive(Debug, Clone, Serialize)]
pub struct Selection {
    /// Frames per second.
    pub fps: f64,
    /// Number of frames in the video.
    pub frames: usize,
    /// The sampled frames: one per second, and the last one.
    pub sampled: Vec<SampledFrame>,
    /// The indices of the key frames, in order.
    pub keyframes: Vec<usize>,
}

/// Selects the key frames of the video at `path`.
///
/// The video is decoded once, or only the parts that the sampled frames need. Features are extracted on
/// all cores during decoding, and frames are compared in order as soon as their features are ready.
///
/// # Errors
/// [`Error::Option`] about `options`, and those of
/// [`video::probe`] and [`video::sample`].
pub fn select(path: &Path, options: &KeyFrameOptions) -> Result<Selection> {
    select_within(path, options, &Limits::new(options.time_limit))
}

/// As [`select`], within `limits` instead of the options' time limit.
///
/// # Errors
/// As [`select`], and [`video::Error::DecodeInterrupted`].
pub fn select_within(path: &Path, options: &KeyFrameOptions, limits: &Limits) -> Result<Selection> {
    options.check()?;
    let limits = &limits.started();
    let video = video::probe_within(path, limits)?;
    let step = video.frames_per_second();
    let from_excerpt =
        select_from(options, |take| video::sample_excerpt(&video, step, limits, take))?;
    let (frames, selector) = match from_excerpt {
        (Some(frames), selector) => (frames, selector),
        (None, _) => select_from(options, |take| video::sample(&video, step, limits, take))?,
    };
    let times = Timestamps::of(&video, frames, limits)?;
    let sampled = selector.finish(|index| times.time_s(index));
    let keyframes = sampled.iter().filter(|frame| frame.kept).map(|frame| frame.index).collect();
    Ok(Selection { fps: video.fps.as_f64(), frames, sampled, keyframes })
}

/// Receives a frame and its index.
type FrameSink<'a> = &'a mut dyn FnMut(usize, GrayImage) -> Result<()>;

/// The result of `sample`, and the decisions about the sampled frames.
fn select_from<T>(
    options: &KeyFrameOptions,
    sample: impl FnOnce(FrameSink<'_>) -> Result<T>,
) -> Result<(T, KeyFrameSelector)> {
    let queue = Queue::new(*options);
    let max_waiting = 2 * rayon::current_num_threads();
    let mut position = 0;
    let sampled = rayon::in_place_scope(|scope| {
        sample(&mut |index, frame| {
            let (queue, at) = (&queue, position);
            position += 1;
            if queue.waiting.fetch_add(1, Ordering::Relaxed) >= max_waiting {
                // Backpressure: this thread helps, and the decoder waits.
                queue.add(at, (index, FrameFeatures::extract(&frame)));
                queue.decide(&mut queue.selector());
                return Ok(());
            }
            scope.spawn(move |_| {
                queue.add(at, (index, FrameFeatures::extract(&frame)));
                queue.decide_if_free();
            });
            Ok(())
        })
    })?;
    queue.decide(&mut queue.selector());
    let selector = queue.selector.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok((sampled, selector))
}

/// A frame's index and features.
type PendingFrame = (usize, FrameFeatures);

/// Reorders features that arrive out of order for the selector.
struct Queue {
    /// By position among the sampled frames.
    pending: Mutex<BTreeMap<usize, PendingFrame>>,
    /// Frames without a decision.
    waiting: AtomicUsize,
    selector: Mutex<KeyFrameSelector>,
    /// The next position to decide.
    next: AtomicUsize,
}

impl Queue {
    fn new(options: KeyFrameOptions) -> Self {
        Self {
            pending: Mutex::default(),
            waiting: AtomicUsize::new(0),
            selector: Mutex::new(KeyFrameSelector::new(options)),
            next: AtomicUsize::new(0),
        }
    }

    fn selector(&self) -> MutexGuard<'_, KeyFrameSelector> {
        self.selector.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pending(&self) -> MutexGuard<'_, BTreeMap<usize, PendingFrame>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, position: usize, frame: PendingFrame) {
        self.pending().insert(position, frame);
    }

    /// Decides about the frames that are next in order, unless another thread does.
    fn decide_if_free(&self) {
        // Checked again after each pass, for frames added while the other thread was stopping.
        while self.pending().contains_key(&self.next.load(Ordering::SeqCst)) {
            let Ok(mut selector) = self.selector.try_lock() else { return };
            self.decide(&mut selector);
        }
    }

    /// Decides about the frames that are next in order.
    fn decide(&self, selector: &mut KeyFrameSelector) {
        loop {
            let next = self.next.load(Ordering::SeqCst);
            let Some((index, features)) = self.pending().remove(&next) else { return };
            self.next.store(next + 1, Ordering::SeqCst);
            selector.decide(index, features);
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use embodied_r_video::clips;

    #[test]
    fn a_still_video_keeps_four_evenly_spaced_frames() {
        let folder = tempfile::tempdir().unwrap();
        let path = clips::still(folder.path(), "still.mp4", 75);
        let selection = select(&path, &KeyFrameOptions::default()).unwrap();
        assert_eq!((selection.fps, selection.frames), (10.0, 75));
        let sampled: Vec<_> = selection.sampled.iter().map(|f| f.index).collect();
        assert_eq!(sampled, [0, 10, 20, 30, 40, 50, 60, 70, 74]);
        assert_eq!(selection.keyframes, [0, 30, 50, 74]);
        let overlaps = selection.sampled[1..].iter().map(|f| f.overlap.unwrap());
        assert!(overlaps.into_iter().all(|overlap| overlap > 0.98));
    }

    #[test]
    fn a_steady_pan_keeps_a_frame_whenever_half_of_the_last_one_has_left() {
        let folder = tempfile::tempdir().unwrap();
        // 60 pixels a second across a frame of 320: less than half is left after 3 s.
        let path = clips::panning(folder.path(), "pan.mp4", 100);
        let selection = select(&path, &KeyFrameOptions::default()).unwrap();
        assert_eq!(selection.keyframes, [0, 30, 60, 90, 99]);
        for frame in &selection.sampled[1..] {
            let since = [90, 60, 30, 0].into_iter().find(|key| *key < frame.index).unwrap();
            let expected = 1.0 - 6.0 * (frame.index - since) as f64 / 320.0;
            let overlap = frame.overlap.unwrap();
            assert!(
                (overlap - expected).abs() < 0.01,
                "frame {}: {overlap} {expected}",
                frame.index
            );
        }
    }

    #[test]
    fn a_video_of_one_frame_has_one_key_frame() {
        let folder = tempfile::tempdir().unwrap();
        let path = clips::brightening(folder.path(), "one.mp4", 1);
        let selection = select(&path, &KeyFrameOptions::default()).unwrap();
        assert_eq!((selection.frames, selection.keyframes), (1, vec![0]));
    }

    #[test]
    fn times_of_a_variable_frame_rate_are_those_of_the_frames() {
        let folder = tempfile::tempdir().unwrap();
        let path = clips::slowing(folder.path(), "slow.mp4");
        let selection = select(&path, &KeyFrameOptions::default()).unwrap();
        let sampled: Vec<_> = selection.sampled.iter().map(|f| (f.index, f.time_s)).collect();
        assert_eq!(sampled, [(0, 0.0), (10, 1.0), (20, 2.0), (30, 7.0), (39, 11.5)]);
    }

    #[test]
    fn frames_without_features_are_all_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = clips::brightening(folder.path(), "plain.mp4", 45);
        let selection = select(&path, &KeyFrameOptions::default()).unwrap();
        assert_eq!(selection.keyframes, [0, 10, 20, 30, 40, 44]);
        assert!(selection.sampled[1..].iter().all(|frame| frame.decision == Decision::FewMatches));
    }

    #[test]
    fn a_file_that_is_not_a_video_is_rejected_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("empty.mp4"), "").unwrap();
        std::fs::write(at("text.mp4"), "no video at all").unwrap();
        clips::audio(folder.path(), "sound.m4a");
        let rejection = |name| select(&at(name), &KeyFrameOptions::default()).unwrap_err();
        assert!(matches!(rejection("empty.mp4"), Error::Video(video::Error::EmptyFile { .. })));
        assert!(matches!(rejection("text.mp4"), Error::Video(video::Error::NotAVideo { .. })));
        assert!(matches!(rejection("sound.m4a"), Error::Video(video::Error::NoVideoTrack { .. })));
        assert!(matches!(rejection("absent.mp4"), Error::Video(video::Error::Io { .. })));
        for name in ["empty.mp4", "text.mp4", "sound.m4a", "absent.mp4"] {
            assert!(rejection(name).to_string().contains(name));
        }
    }
}
