//! The frame rate, from a track's default duration.

/// Rates that FFmpeg derives from the default duration; outside, it analyses the frames.
const DERIVED_RATES: std::ops::Range<f64> = 5.0..1000.0;

/// Maximum numerator and denominator of a rate, as in FFmpeg.
const MAX_TERM: u64 = 30_000;

/// The rate (numerator, denominator) of frames with duration `step_ns`; `None` outside the range that
/// FFmpeg derives.
pub(super) fn frame_rate(step_ns: u64) -> Option<(u64, u64)> {
    let rate = reduce(1_000_000_000, step_ns)?;
    let fps = rate.0 as f64 / rate.1 as f64;
    (fps > DERIVED_RATES.start && fps < DERIVED_RATES.end).then_some(rate)
}

/// Whether the ascending `times`, in units of `tick_ns`, are multiples of `step_ns` up to rounding.
pub(super) fn is_constant(times: impl Iterator<Item = i64>, tick_ns: u64, step_ns: u64) -> bool {
    let (tick, step) = (i128::from(tick_ns), i128::from(step_ns));
    let mut first = None;
    times.zip(0i128..).all(|(time, number)| {
        let since = (i128::from(time) - i128::from(*first.get_or_insert(time))) * tick;
        // The duration itself is rounded to nanoseconds.
        (since - number * step).abs() <= tick + number
    })
}

/// The fraction closest to `numerator / denominator` with both terms at most [`MAX_TERM`], by continued
/// fractions as in FFmpeg's `av_reduce`.
fn reduce(mut numerator: u64, mut denominator: u64) -> Option<(u64, u64)> {
    let (mut before, mut last) = ((0u64, 1u64), (1u64, 0u64));
    while denominator > 0 {
        let whole = numerator / denominator;
        let next = |times: u64| {
            let numerator = times.checked_mul(last.0)?.checked_add(before.0)?;
            Some((numerator, times.checked_mul(last.1)?.checked_add(before.1)?))
        };
        let rest = numerator - denominator * whole;
        let Some(found) = next(whole).filter(|found| found.0 <= MAX_TERM && found.1 <= MAX_TERM)
        else {
            let most = |of: u64, before: u64| (MAX_TERM - before).checked_div(of).unwrap_or(whole);
            let times = most(last.0, before.0).min(most(last.1, before.1)).min(whole);
            let is_nearer = u128::from(denominator) * u128::from(2 * times * last.1 + before.1)
                > u128::from(numerator) * u128::from(last.1);
            return if is_nearer { next(times) } else { Some(last) };
        };
        (before, last) = (last, found);
        (numerator, denominator) = (denominator, rest);
    }
    Some(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_in_nanoseconds_give_the_usual_rates() {
        let rates = [
            (41_666_667, (24, 1)),
            (41_708_333, (24_000, 1001)),
            (33_366_667, (30_000, 1001)),
            (33_366_666, (30_000, 1001)),
            (33_333_333, (30, 1)),
            (40_000_000, (25, 1)),
            (16_683_333, (19_001, 317)),
            (16_666_667, (60, 1)),
        ];
        for (step_ns, rate) in rates {
            assert_eq!(frame_rate(step_ns), Some(rate), "{step_ns}");
        }
    }

    #[test]
    fn rates_outside_ffmpegs_range_are_none() {
        for step_ns in [1, 999_999, 1_000_000, 200_000_000, 1_000_000_000, u64::MAX] {
            assert_eq!(frame_rate(step_ns), None, "{step_ns}");
        }
    }

    #[test]
    fn timestamps_may_differ_by_rounding_only() {
        let ms = |times: &[i64]| is_constant(times.iter().copied(), 1_000_000, 41_666_667);
        assert!(ms(&[7, 49, 90, 132]));
        assert!(ms(&[0, 41, 83, 125]));
        assert!(!ms(&[0, 42, 85, 125]));
        assert!(!ms(&[0, 42, 125]));
    }
}
