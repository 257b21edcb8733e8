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

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use choice::Chooser;
pub use choice::{Options, SampledFrame, Why};
use compare::View;
pub use homography::Doubt;
use image::GrayImage;
use serde::Serialize;

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
/// The video is decoded once, or only as much of it as the sampled frames need; meanwhile their
/// features are found on all cores, and each is compared as soon as those before it are.
///
/// # Errors
/// [`Error::KeyframeOption`](crate::Error::KeyframeOption) about `options`, and those of
/// [`video::probe`] and [`video::sample`].
pub fn select(path: &Path, options: &Options) -> Result<Selection> {
    options.check()?;
    let video = video::probe(path)?;
    let (step, limit) = (video.frames_per_second(), options.time_limit);
    let from_excerpt =
        choose(&video, options, |take| video::sample_excerpt(&video, step, limit, take))?;
    let (frames, sampled) = match from_excerpt {
        (Some(frames), sampled) => (frames, sampled),
        (None, _) => choose(&video, options, |take| video::sample(&video, step, limit, take))?,
    };
    let keyframes = sampled.iter().filter(|frame| frame.kept).map(|frame| frame.index).collect();
    Ok(Selection { fps: video.fps.as_f64(), frames, sampled, keyframes })
}

/// Takes a frame at an index.
type Take<'a> = &'a mut dyn FnMut(usize, GrayImage) -> Result<()>;

/// What `sample` returns, and what is decided about the frames that it gives out.
fn choose<T>(
    video: &Video,
    options: &Options,
    sample: impl FnOnce(Take<'_>) -> Result<T>,
) -> Result<(T, Vec<SampledFrame>)> {
    let queue = Queue::new(*options);
    let most_waiting = 2 * rayon::current_num_threads();
    let mut place = 0;
    let sampled = rayon::in_place_scope(|scope| {
        sample(&mut |index, frame| {
            let (queue, time_s, at) = (&queue, video.time_s(index), place);
            place += 1;
            if queue.waiting.fetch_add(1, Ordering::Relaxed) >= most_waiting {
                // The cores are behind: this thread helps, and the decoder waits.
                queue.add(at, (index, time_s, View::of(&frame)));
                queue.decide(&mut queue.chooser());
                return Ok(());
            }
            scope.spawn(move |_| {
                queue.add(at, (index, time_s, View::of(&frame)));
                queue.decide_if_free();
            });
            Ok(())
        })
    })?;
    queue.decide(&mut queue.chooser());
    let chooser = queue.chooser.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok((sampled, chooser.finish()))
}

/// A frame's index, its time in seconds, and its view.
type Seen = (usize, f64, View);

/// Views that come in any order, and the chooser that wants them in the frames' order.
struct Queue {
    /// By their places among the sampled frames.
    views: Mutex<BTreeMap<usize, Seen>>,
    /// Frames that were not decided about yet.
    waiting: AtomicUsize,
    chooser: Mutex<Chooser>,
    /// The place that is decided about next.
    next: AtomicUsize,
}

impl Queue {
    fn new(options: Options) -> Self {
        Self {
            views: Mutex::default(),
            waiting: AtomicUsize::new(0),
            chooser: Mutex::new(Chooser::new(options)),
            next: AtomicUsize::new(0),
        }
    }

    fn chooser(&self) -> MutexGuard<'_, Chooser> {
        self.chooser.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn views(&self) -> MutexGuard<'_, BTreeMap<usize, Seen>> {
        self.views.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, place: usize, seen: Seen) {
        self.views().insert(place, seen);
    }

    /// Decides about the frames whose turn it is, unless another thread does.
    fn decide_if_free(&self) {
        // Asked again after each go: what was added while that thread was stopping is not left over.
        while self.views().contains_key(&self.next.load(Ordering::SeqCst)) {
            let Ok(mut chooser) = self.chooser.try_lock() else { return };
            self.decide(&mut chooser);
        }
    }

    /// Decides about the frames whose turn it is.
    fn decide(&self, chooser: &mut Chooser) {
        loop {
            let next = self.next.load(Ordering::SeqCst);
            let Some((index, time_s, view)) = self.views().remove(&next) else { return };
            self.next.store(next + 1, Ordering::SeqCst);
            chooser.decide(index, time_s, view);
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }
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
