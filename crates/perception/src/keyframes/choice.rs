//! The rule by which key frames are chosen among the sampled frames.
//!
//! It is that of Embodied-R's code: each sampled frame is compared with the last key frame and is one
//! itself where it covers less than the threshold of it, or cannot be compared. Too few key frames
//! are replaced by as many as asked for, spread evenly over all sampled frames; too many are thinned
//! out evenly. The first and the last frame always stay.

use serde::Serialize;

use super::compare::{Comparison, View, compare};
use super::homography::Doubt;
use crate::error::{Error, Result};
use crate::video::TimeLimit;

/// What may be set about the choice.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// A frame that covers less than this share of the last key frame is one itself; from 0 to 1.
    pub threshold: f64,
    /// Key frames at least, where there are so many sampled frames.
    pub min_frames: usize,
    /// Key frames at most; 2 or more.
    pub max_frames: usize,
    /// How long a video may be decoded.
    pub time_limit: TimeLimit,
}

impl Default for Options {
    /// Those of the paper's code, and the default limit of time.
    fn default() -> Self {
        let time_limit = TimeLimit::default();
        Self { threshold: 0.5, min_frames: 4, max_frames: 32, time_limit }
    }
}

impl Options {
    /// # Errors
    /// [`Error::KeyframeOption`] about the first one outside its range.
    pub fn check(&self) -> Result<()> {
        let fault =
            |option, given: String, wanted| Err(Error::KeyframeOption { option, given, wanted });
        if !(0.0..=1.0).contains(&self.threshold) {
            return fault("threshold", self.threshold.to_string(), "give a share from 0 to 1");
        }
        if self.max_frames < 2 {
            let wanted = "give 2 or more, as the first and the last frame always stay";
            return fault("max-frames", self.max_frames.to_string(), wanted);
        }
        if self.min_frames > self.max_frames {
            let given = format!("{}, above `max-frames` of {}", self.min_frames, self.max_frames);
            return fault("min-frames", given, "give no more than `max-frames`");
        }
        Ok(())
    }
}

/// A frame that was looked at.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SampledFrame {
    /// Its index in the video, from 0.
    pub index: usize,
    /// When it is shown, in seconds from the start.
    pub time_s: f64,
    /// The share of the last key frame that it covers; `None` for the first frame and where the two
    /// could not be compared.
    pub overlap: Option<f64>,
    /// Features that match the last key frame's; 0 for the first frame.
    pub matches: usize,
    /// Matches that agree with the homography; 0 without one.
    pub inliers: usize,
    /// Whether it is a key frame.
    pub kept: bool,
    /// Why it could not be compared with the last key frame; such frames are kept.
    pub uncertain: Option<Doubt>,
    /// What decided that.
    #[serde(skip)]
    pub why: Why,
}

/// What decided whether a frame is a key frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// Kept: it is the first frame.
    First,
    /// Kept: it is the last frame.
    Last,
    /// Kept: it covers less than the threshold of the last key frame.
    LittleOverlap,
    /// Kept: too little of it matches the last key frame.
    FewMatches,
    /// Kept: what matches agrees on no homography.
    NoHomography,
    /// Kept: the key frames were too few, and it fills them up.
    FillsUp,
    /// Dropped: it covers the threshold of the last key frame or more.
    SeenBefore,
    /// Dropped: the key frames were too few and gave way to frames spread evenly.
    GaveWay,
    /// Dropped: the key frames were too many.
    ThinnedOut,
}

/// Decides about the sampled frames of a video one by one. It keeps the last key frame's view and a
/// short record of each frame.
#[derive(Debug)]
pub struct Chooser {
    options: Options,
    key: Option<View>,
    frames: Vec<SampledFrame>,
}

impl Chooser {
    /// A chooser for a video of which nothing was seen yet. `options` are taken to be checked.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self { options, key: None, frames: Vec::new() }
    }

    /// Decides about the frame at `index`, shown at `time_s`, which follows those decided about.
    pub fn decide(&mut self, index: usize, time_s: f64, view: View) {
        let compared = self.key.as_ref().map(|key| compare(key, &view));
        let why = verdict(compared.as_ref(), self.options.threshold);
        let kept = why.keeps();
        if kept {
            self.key = Some(view);
        }
        let (overlap, matches, inliers, uncertain) =
            compared.map_or((None, 0, 0, None), |c| (c.overlap, c.matches, c.inliers, c.uncertain));
        let frame = SampledFrame { index, time_s, overlap, matches, inliers, kept, uncertain, why };
        self.frames.push(frame);
    }

    /// All decisions, with the last frame kept and the number of key frames in its bounds.
    #[must_use]
    pub fn finish(mut self) -> Vec<SampledFrame> {
        if let Some(last) = self.frames.last_mut().filter(|last| !last.kept) {
            (last.kept, last.why) = (true, Why::Last);
        }
        limit(&mut self.frames, &self.options);
        self.frames
    }
}

impl Why {
    /// Whether the frame is kept for that.
    #[must_use]
    pub fn keeps(self) -> bool {
        !matches!(self, Self::SeenBefore | Self::GaveWay | Self::ThinnedOut)
    }
}

fn verdict(compared: Option<&Comparison>, threshold: f64) -> Why {
    match compared {
        None => Why::First,
        Some(Comparison { overlap: Some(overlap), .. }) if *overlap < threshold => {
            Why::LittleOverlap
        }
        Some(Comparison { overlap: Some(_), .. }) => Why::SeenBefore,
        Some(Comparison { uncertain: Some(Doubt::FewMatches), .. }) => Why::FewMatches,
        Some(_) => Why::NoHomography,
    }
}

/// Brings the number of key frames into the bounds.
fn limit(frames: &mut [SampledFrame], options: &Options) {
    let keys: Vec<usize> =
        (0..frames.len()).filter(|i| frames.get(*i).is_some_and(|f| f.kept)).collect();
    let (stay, dropped) = if keys.len() > options.max_frames {
        let stay = thinned(keys.len(), options.max_frames);
        let stay: Vec<usize> = stay.into_iter().filter_map(|i| keys.get(i).copied()).collect();
        (stay, Why::ThinnedOut)
    } else if keys.len() < options.min_frames {
        (spread(frames.len(), options.min_frames), Why::GaveWay)
    } else {
        return;
    };
    for (place, frame) in frames.iter_mut().enumerate() {
        let stays = stay.binary_search(&place).is_ok();
        frame.why = match (stays, frame.kept) {
            (true, false) => Why::FillsUp,
            (false, true) => dropped,
            _ => frame.why,
        };
        frame.kept = stays;
    }
}

/// The places of the first and the last of `count` key frames and of `most` - 2 between them
/// (Embodied-R's constrained sampling).
fn thinned(count: usize, most: usize) -> Vec<usize> {
    let between = most - 2;
    let places = (0..between).map(|i| rounded_to_even(i * (count - 2), between) + 1);
    std::iter::once(0).chain(places).chain([count - 1]).collect()
}

/// `least` places spread evenly over `count`, the first and the last among them; all of them where
/// there are no more.
fn spread(count: usize, least: usize) -> Vec<usize> {
    match least {
        _ if count <= least => (0..count).collect(),
        1 => vec![0],
        _ => (0..least).map(|i| (2 * i * (count - 1) + least - 1) / (2 * (least - 1))).collect(),
    }
}

/// `above / below`, with halves rounded to the even neighbour as in the original's Python.
fn rounded_to_even(above: usize, below: usize) -> usize {
    let (whole, rest) = (above / below, above % below);
    match (2 * rest).cmp(&below) {
        std::cmp::Ordering::Less => whole,
        std::cmp::Ordering::Greater => whole + 1,
        std::cmp::Ordering::Equal => whole + whole % 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Sampled frames of which those at `keys` were chosen.
    fn frames(count: usize, keys: &[usize]) -> Vec<SampledFrame> {
        let frame = |index| {
            let kept = keys.contains(&index);
            let why = if kept { Why::LittleOverlap } else { Why::SeenBefore };
            let (overlap, matches, inliers) = (Some(0.3), 50, 20);
            let (time_s, uncertain) = (0.0, None);
            SampledFrame { index, time_s, overlap, matches, inliers, kept, uncertain, why }
        };
        (0..count).map(frame).collect()
    }

    fn kept(frames: &[SampledFrame]) -> Vec<usize> {
        frames.iter().filter(|f| f.kept).map(|f| f.index).collect()
    }

    #[test]
    fn too_many_are_thinned_as_the_original_does() {
        // round(i * (n - 2) / (m - 2)) + 1 in Python, for n = 12, m = 6: 0, 2.5, 5, 7.5 → 0, 2, 5, 8.
        assert_eq!(thinned(12, 6), [0, 1, 3, 6, 9, 11]);
        assert_eq!(thinned(40, 2), [0, 39]);
    }

    #[test]
    fn thinned_frames_say_so() {
        let mut frames = frames(40, &(0..40).collect::<Vec<_>>());
        limit(&mut frames, &Options::default());
        assert_eq!(kept(&frames).len(), 32);
        assert!(frames.iter().all(|f| f.kept || f.why == Why::ThinnedOut));
    }

    #[test]
    fn too_few_give_way_to_frames_spread_evenly() {
        let mut frames = frames(10, &[0, 4, 9]);
        limit(&mut frames, &Options::default());
        assert_eq!(kept(&frames), [0, 3, 6, 9]);
        assert_eq!(frames[4].why, Why::GaveWay);
        assert_eq!(frames[3].why, Why::FillsUp);
        assert_eq!(frames[9].why, Why::LittleOverlap);
    }

    #[test]
    fn a_number_within_the_bounds_stays() {
        let mut frames = frames(10, &[0, 1, 2, 9]);
        limit(&mut frames, &Options::default());
        assert_eq!(kept(&frames), [0, 1, 2, 9]);
    }

    #[test]
    fn a_short_video_keeps_all_it_has() {
        let mut frames = frames(3, &[0, 2]);
        limit(&mut frames, &Options::default());
        assert_eq!(kept(&frames), [0, 1, 2]);
    }

    #[test]
    fn an_overlap_at_the_threshold_is_seen_before() {
        let at = |overlap: Option<f64>| {
            let uncertain = overlap.is_none().then_some(Doubt::NoView);
            let (homography, matches, inliers) = (None, 50, 30);
            let compared = Comparison { homography, overlap, matches, inliers, uncertain };
            verdict(Some(&compared), 0.5)
        };
        assert_eq!(at(Some(0.5)), Why::SeenBefore);
        assert_eq!(at(Some(0.499)), Why::LittleOverlap);
        assert_eq!(at(None), Why::NoHomography);
    }

    #[test]
    fn options_outside_their_range_are_refused() {
        let refused = |options: Options| options.check().unwrap_err().to_string();
        let threshold = Options { threshold: 1.5, ..Options::default() };
        assert_eq!(refused(threshold), "`threshold` is 1.5: give a share from 0 to 1");
        let most = Options { max_frames: 1, min_frames: 1, ..Options::default() };
        assert!(refused(most).starts_with("`max-frames` is 1"));
        let least = Options { min_frames: 40, ..Options::default() };
        assert!(refused(least).starts_with("`min-frames` is 40, above"));
    }

    proptest! {
        #[test]
        fn the_bounds_hold_and_the_ends_stay(
            count in 1..120usize, chosen in proptest::collection::vec(any::<bool>(), 120),
            least in 0..20usize, more in 0..20usize,
        ) {
            let is_key = |i: &usize| chosen[*i] || *i == 0 || i + 1 == count;
            let mut frames = frames(count, &(0..count).filter(is_key).collect::<Vec<_>>());
            let max_frames = (least + more).max(2);
            let options = Options { min_frames: least, max_frames, ..Options::default() };
            limit(&mut frames, &options);
            let kept = kept(&frames);
            prop_assert!(kept.len() >= least.min(count) && kept.len() <= options.max_frames);
            prop_assert!(kept[0] == 0 && kept[kept.len() - 1] == count - 1);
            prop_assert!(frames.iter().all(|f| f.kept == f.why.keeps()));
        }
    }
}
