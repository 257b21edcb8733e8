//! Selects key frames among the sampled frames.
//!
//! The rule is that of Embodied-R's code: a sampled frame is a key frame if its overlap with the last
//! key frame is below the threshold, or cannot be estimated. Too few key frames are replaced by the
//! minimum number, evenly spaced over all sampled frames; too many are subsampled evenly. The first and
//! the last frame are always kept.

use serde::Serialize;

use super::compare::{FrameComparison, FrameFeatures, compare};
use super::homography::HomographyFailure;
use crate::error::{Error, Result};
use embodied_r_video::TimeLimit;

/// Options of the key-frame selection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KeyFrameOptions {
    /// Overlap with the last key frame below which a frame becomes a key frame; from 0 to 1.
    pub threshold: f64,
    /// Minimum number of key frames, if the video has that many sampled frames.
    pub min_frames: usize,
    /// Maximum key frames; 2 or more.
    pub max_frames: usize,
    /// Time limit for decoding a video.
    pub time_limit: TimeLimit,
}

impl Default for KeyFrameOptions {
    /// The values of the paper's code, and the default time limit.
    fn default() -> Self {
        let time_limit = TimeLimit::default();
        Self { threshold: 0.5, min_frames: 4, max_frames: 32, time_limit }
    }
}

impl KeyFrameOptions {
    /// # Errors
    /// [`Error::Option`] for the first option outside its range.
    pub fn check(&self) -> Result<()> {
        let invalid =
            |option, given: String, expected| Err(Error::Option { option, given, expected });
        if !(0.0..=1.0).contains(&self.threshold) {
            return invalid("threshold", self.threshold.to_string(), "from 0 to 1");
        }
        if self.max_frames < 2 {
            let expected = "at least 2 (the first and the last frame are always kept)";
            return invalid("max-frames", self.max_frames.to_string(), expected);
        }
        if self.min_frames > self.max_frames {
            let given = format!("{} (`max-frames` is {})", self.min_frames, self.max_frames);
            return invalid("min-frames", given, "at most `max-frames`");
        }
        Ok(())
    }
}

/// A sampled frame.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SampledFrame {
    /// Its index in the video, from 0.
    pub index: usize,
    /// Its timestamp in seconds.
    pub time_s: f64,
    /// Its overlap with the last key frame, from 0 to 1; `None` for the first frame and if it could not be
    /// estimated.
    pub overlap: Option<f64>,
    /// Matched features with the last key frame; 0 for the first frame.
    pub matches: usize,
    /// Inliers of the homography; 0 without one.
    pub inliers: usize,
    /// Whether it is a key frame.
    pub kept: bool,
    /// Why no homography to the last key frame was found; such frames are kept.
    pub uncertain: Option<HomographyFailure>,
    /// Why it was kept or dropped.
    #[serde(skip)]
    pub decision: Decision,
}

/// Why a frame is a key frame or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Decision {
    /// Kept: it is the first frame.
    First,
    /// Kept: it is the last frame.
    Last,
    /// Kept: its overlap with the last key frame is below the threshold.
    LowOverlap,
    /// Kept: too few matches with the last key frame.
    FewMatches,
    /// Kept: no reliable homography.
    NoHomography,
    /// Kept: it fills up too few key frames.
    FilledUp,
    /// Dropped: its overlap with the last key frame reaches the threshold.
    Redundant,
    /// Dropped: too few key frames were replaced by evenly spaced ones.
    Replaced,
    /// Dropped: too many key frames were subsampled.
    Subsampled,
}

/// Decides about the sampled frames of a video one by one. It holds the last key frame's features and a
/// record of each frame.
#[derive(Debug)]
pub struct KeyFrameSelector {
    options: KeyFrameOptions,
    key: Option<FrameFeatures>,
    frames: Vec<SampledFrame>,
}

impl KeyFrameSelector {
    /// A selector without frames; `options` must be valid ([`KeyFrameOptions::check`]).
    #[must_use]
    pub fn new(options: KeyFrameOptions) -> Self {
        Self { options, key: None, frames: Vec::new() }
    }

    /// Decides about the next frame, with its `index`; [`Self::finish`] sets its timestamp.
    pub fn decide(&mut self, index: usize, features: FrameFeatures) {
        let compared = self.key.as_ref().map(|key| compare(key, &features));
        let decision = decision_for(compared.as_ref(), self.options.threshold);
        let kept = decision.is_kept();
        if kept {
            self.key = Some(features);
        }
        let (overlap, matches, inliers, uncertain) =
            compared.map_or((None, 0, 0, None), |c| (c.overlap, c.matches, c.inliers, c.uncertain));
        let time_s = 0.0;
        let frame =
            SampledFrame { index, time_s, overlap, matches, inliers, kept, uncertain, decision };
        self.frames.push(frame);
    }

    /// All decisions, with the last frame kept and the number of key frames within its bounds. `time_s` gives the
    /// timestamp of a frame by its index.
    #[must_use]
    pub fn finish(mut self, time_s: impl Fn(usize) -> f64) -> Vec<SampledFrame> {
        for frame in &mut self.frames {
            frame.time_s = time_s(frame.index);
        }
        if let Some(last) = self.frames.last_mut().filter(|last| !last.kept) {
            (last.kept, last.decision) = (true, Decision::Last);
        }
        enforce_bounds(&mut self.frames, &self.options);
        self.frames
    }
}

impl Decision {
    /// Whether the frame is kept.
    #[must_use]
    pub fn is_kept(self) -> bool {
        !matches!(self, Self::Redundant | Self::Replaced | Self::Subsampled)
    }
}

fn decision_for(compared: Option<&FrameComparison>, threshold: f64) -> Decision {
    match compared {
        None => Decision::First,
        Some(FrameComparison { overlap: Some(overlap), .. }) if *overlap < threshold => {
            Decision::LowOverlap
        }
        Some(FrameComparison { overlap: Some(_), .. }) => Decision::Redundant,
        Some(FrameComparison { uncertain: Some(HomographyFailure::FewMatches), .. }) => {
            Decision::FewMatches
        }
        Some(_) => Decision::NoHomography,
    }
}

/// Enforces the bounds on the number of key frames.
fn enforce_bounds(frames: &mut [SampledFrame], options: &KeyFrameOptions) {
    let keys: Vec<usize> =
        (0..frames.len()).filter(|i| frames.get(*i).is_some_and(|f| f.kept)).collect();
    let (kept, dropped) = if keys.len() > options.max_frames {
        let kept = subsample(keys.len(), options.max_frames);
        let kept: Vec<usize> = kept.into_iter().filter_map(|i| keys.get(i).copied()).collect();
        (kept, Decision::Subsampled)
    } else if keys.len() < options.min_frames {
        (evenly_spaced(frames.len(), options.min_frames), Decision::Replaced)
    } else {
        return;
    };
    for (position, frame) in frames.iter_mut().enumerate() {
        let is_kept = kept.binary_search(&position).is_ok();
        frame.decision = match (is_kept, frame.kept) {
            (true, false) => Decision::FilledUp,
            (false, true) => dropped,
            _ => frame.decision,
        };
        frame.kept = is_kept;
    }
}

/// The positions of the first and the last of `count` key frames, and of `max` - 2 between them
/// (Embodied-R's constrained sampling).
fn subsample(count: usize, max: usize) -> Vec<usize> {
    let between = max - 2;
    let positions = (0..between).map(|i| rounded_to_even(i * (count - 2), between) + 1);
    std::iter::once(0).chain(positions).chain([count - 1]).collect()
}

/// `min` evenly spaced positions out of `count`, including the first and the last; all if there are no
/// more.
fn evenly_spaced(count: usize, min: usize) -> Vec<usize> {
    match min {
        _ if count <= min => (0..count).collect(),
        1 => vec![0],
        _ => (0..min).map(|i| (2 * i * (count - 1) + min - 1) / (2 * (min - 1))).collect(),
    }
}

/// `numerator / denominator`, with halves rounded to even as in the original's Python.
fn rounded_to_even(numerator: usize, denominator: usize) -> usize {
    let (whole, rest) = (numerator / denominator, numerator % denominator);
    match (2 * rest).cmp(&denominator) {
        std::cmp::Ordering::Less => whole,
        std::cmp::Ordering::Greater => whole + 1,
        std::cmp::Ordering::Equal => whole + whole % 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Sampled frames, with those at `keys` kept.
    fn frames(count: usize, keys: &[usize]) -> Vec<SampledFrame> {
        let frame = |index| {
            let kept = keys.contains(&index);
            let decision = if kept { Decision::LowOverlap } else { Decision::Redundant };
            let (overlap, matches, inliers) = (Some(0.3), 50, 20);
            let (time_s, uncertain) = (0.0, None);
            SampledFrame { index, time_s, overlap, matches, inliers, kept, uncertain, decision }
        };
        (0..count).map(frame).collect()
    }

    fn kept(frames: &[SampledFrame]) -> Vec<usize> {
        frames.iter().filter(|f| f.kept).map(|f| f.index).collect()
    }

    #[test]
    fn subsampling_matches_the_original() {
        // round(i * (n - 2) / (m - 2)) + 1 in Python, for n = 12, m = 6: 0, 2.5, 5, 7.5 → 0, 2, 5, 8.
        assert_eq!(subsample(12, 6), [0, 1, 3, 6, 9, 11]);
        assert_eq!(subsample(40, 2), [0, 39]);
    }

    #[test]
    fn subsampled_frames_have_that_decision() {
        let mut frames = frames(40, &(0..40).collect::<Vec<_>>());
        enforce_bounds(&mut frames, &KeyFrameOptions::default());
        assert_eq!(kept(&frames).len(), 32);
        assert!(frames.iter().all(|f| f.kept || f.decision == Decision::Subsampled));
    }

    #[test]
    fn too_few_are_replaced_by_evenly_spaced_frames() {
        let mut frames = frames(10, &[0, 4, 9]);
        enforce_bounds(&mut frames, &KeyFrameOptions::default());
        assert_eq!(kept(&frames), [0, 3, 6, 9]);
        assert_eq!(frames[4].decision, Decision::Replaced);
        assert_eq!(frames[3].decision, Decision::FilledUp);
        assert_eq!(frames[9].decision, Decision::LowOverlap);
    }

    #[test]
    fn a_number_within_the_bounds_is_unchanged() {
        let mut frames = frames(10, &[0, 1, 2, 9]);
        enforce_bounds(&mut frames, &KeyFrameOptions::default());
        assert_eq!(kept(&frames), [0, 1, 2, 9]);
    }

    #[test]
    fn a_short_video_keeps_all_frames() {
        let mut frames = frames(3, &[0, 2]);
        enforce_bounds(&mut frames, &KeyFrameOptions::default());
        assert_eq!(kept(&frames), [0, 1, 2]);
    }

    #[test]
    fn an_overlap_at_the_threshold_is_redundant() {
        let at = |overlap: Option<f64>| {
            let uncertain = overlap.is_none().then_some(HomographyFailure::Implausible);
            let (homography, matches, inliers) = (None, 50, 30);
            let compared = FrameComparison { homography, overlap, matches, inliers, uncertain };
            decision_for(Some(&compared), 0.5)
        };
        assert_eq!(at(Some(0.5)), Decision::Redundant);
        assert_eq!(at(Some(0.499)), Decision::LowOverlap);
        assert_eq!(at(None), Decision::NoHomography);
    }

    #[test]
    fn options_outside_their_range_are_rejected() {
        let rejection = |options: KeyFrameOptions| options.check().unwrap_err().to_string();
        let threshold = KeyFrameOptions { threshold: 1.5, ..KeyFrameOptions::default() };
        assert_eq!(rejection(threshold), "`threshold` must be from 0 to 1, not 1.5");
        let max = KeyFrameOptions { max_frames: 1, min_frames: 1, ..KeyFrameOptions::default() };
        let message = rejection(max);
        assert!(message.starts_with("`max-frames` must be at least 2 "), "{message}");
        assert!(message.ends_with(", not 1"), "{message}");
        let min = KeyFrameOptions { min_frames: 40, ..KeyFrameOptions::default() };
        let message = rejection(min);
        assert!(
            message.starts_with("`min-frames` must be at most `max-frames`, not 40 "),
            "{message}"
        );
    }

    proptest! {
        #[test]
        fn the_bounds_hold_and_the_ends_are_kept(
            count in 1..120usize, chosen in proptest::collection::vec(any::<bool>(), 120),
            min in 0..20usize, more in 0..20usize,
        ) {
            let is_key = |i: &usize| chosen[*i] || *i == 0 || i + 1 == count;
            let mut frames = frames(count, &(0..count).filter(is_key).collect::<Vec<_>>());
            let max_frames = (min + more).max(2);
            let options =
                KeyFrameOptions { min_frames: min, max_frames, ..KeyFrameOptions::default() };
            enforce_bounds(&mut frames, &options);
            let kept = kept(&frames);
            prop_assert!(kept.len() >= min.min(count) && kept.len() <= options.max_frames);
            prop_assert!(kept[0] == 0 && kept[kept.len() - 1] == count - 1);
            prop_assert!(frames.iter().all(|f| f.kept == f.decision.is_kept()));
        }
    }
}
