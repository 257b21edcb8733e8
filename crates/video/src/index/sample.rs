//! The samples of a track.

/// Maximum samples: 24 hours at 60 fps.
pub(super) const MAX_SAMPLES: usize = 24 * 3600 * 60;

/// A sample in the file: one encoded frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) offset: u64,
    pub(super) size: u32,
    /// Presentation timestamp, in the track's time base.
    pub(super) pts: i64,
    /// Whether it is a key frame.
    pub(super) is_key: bool,
}

/// The samples' positions in presentation order; `None` if two timestamps are equal.
pub(super) fn presentation_order(samples: &[Sample]) -> Option<Vec<usize>> {
    let time = |position: &usize| samples.get(*position).map(|sample| sample.pts);
    let mut order: Vec<usize> = (0..samples.len()).collect();
    order.sort_by_key(time);
    let is_strict = order.windows(2).all(|two| time(&two[0]) < time(&two[1]));
    (is_strict && !order.is_empty()).then_some(order)
}
