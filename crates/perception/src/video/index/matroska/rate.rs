//! Frames a second, from the step that a track states.

/// Rates that FFmpeg takes from the step: above and below them it looks at the frames.
const STATED: std::ops::Range<f64> = 5.0..1000.0;

/// Above and below the line of a rate at most, as FFmpeg has it.
const MOST: u64 = 30_000;

/// The rate, above and below the line, of frames that come every `step_ns`; `None` where it is not
/// FFmpeg's to take.
pub(super) fn stated(step_ns: u64) -> Option<(u64, u64)> {
    let rate = nearest(1_000_000_000, step_ns)?;
    let fps = rate.0 as f64 / rate.1 as f64;
    (fps > STATED.start && fps < STATED.end).then_some(rate)
}

/// Whether the ascending `times`, in units of `tick_ns`, are what is left of steps of `step_ns` after
/// rounding.
pub(super) fn is_kept(times: impl Iterator<Item = i64>, tick_ns: u64, step_ns: u64) -> bool {
    let (tick, step) = (i128::from(tick_ns), i128::from(step_ns));
    let mut first = None;
    times.zip(0i128..).all(|(time, number)| {
        let since = (i128::from(time) - i128::from(*first.get_or_insert(time))) * tick;
        // The step itself is rounded too, to nanoseconds.
        (since - number * step).abs() <= tick + number
    })
}

/// The ratio nearest to `above / below` whose two numbers are at most [`MOST`], as FFmpeg's `av_reduce`
/// finds it by continued fractions.
fn nearest(mut above: u64, mut below: u64) -> Option<(u64, u64)> {
    let (mut before, mut last) = ((0u64, 1u64), (1u64, 0u64));
    while below > 0 {
        let whole = above / below;
        let next = |times: u64| {
            let above = times.checked_mul(last.0)?.checked_add(before.0)?;
            Some((above, times.checked_mul(last.1)?.checked_add(before.1)?))
        };
        let rest = above - below * whole;
        let Some(found) = next(whole).filter(|found| found.0 <= MOST && found.1 <= MOST) else {
            let most = |of: u64, before: u64| (MOST - before).checked_div(of).unwrap_or(whole);
            let times = most(last.0, before.0).min(most(last.1, before.1)).min(whole);
            let is_nearer = u128::from(below) * u128::from(2 * times * last.1 + before.1)
                > u128::from(above) * u128::from(last.1);
            return if is_nearer { next(times) } else { Some(last) };
        };
        (before, last) = (last, found);
        (above, below) = (below, rest);
    }
    Some(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_in_nanoseconds_are_the_usual_rates() {
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
            assert_eq!(stated(step_ns), Some(rate), "{step_ns}");
        }
    }

    #[test]
    fn rates_that_ffmpeg_does_not_take_from_the_step_are_none() {
        for step_ns in [1, 999_999, 1_000_000, 200_000_000, 1_000_000_000, u64::MAX] {
            assert_eq!(stated(step_ns), None, "{step_ns}");
        }
    }

    #[test]
    fn times_may_be_rounded_and_no_more() {
        let ms = |times: &[i64]| is_kept(times.iter().copied(), 1_000_000, 41_666_667);
        assert!(ms(&[7, 49, 90, 132]));
        assert!(ms(&[0, 41, 83, 125]));
        assert!(!ms(&[0, 42, 85, 125]));
        assert!(!ms(&[0, 42, 125]));
    }
}
