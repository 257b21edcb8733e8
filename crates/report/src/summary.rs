//! A curve, a count and a time in few characters.

use crate::chart::{Point, mean, number};

/// A number with an SI suffix.
pub(crate) fn count(value: f64) -> String {
    let sizes = [(1e9, "G"), (1e6, "M"), (1e3, "k")];
    match sizes.iter().find(|(size, _)| value >= *size) {
        Some((size, letter)) => format!("{} {letter}", number(value / size)),
        None => number(value),
    }
}

/// A time in its two largest units.
pub(crate) fn duration(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

/// Means over the first and the last 5 % of a curve.
pub(crate) fn ends(points: &[Point]) -> Option<(f64, f64)> {
    let values: Vec<_> = points.iter().filter_map(|(_, value)| *value).collect();
    let few = values.len().div_ceil(20);
    let first = mean(values[..few].iter().copied())?;
    Some((first, mean(values[values.len() - few..].iter().copied())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_a_curve_are_means_over_five_percent() {
        let points: Vec<_> = (0..40).map(|step| (f64::from(step), Some(f64::from(step)))).collect();
        assert_eq!(ends(&points), Some((0.5, 38.5)));
        assert_eq!(ends(&[(0.0, None)]), None);
    }

    #[test]
    fn counts_are_short() {
        assert_eq!([950.0, 1234.0, 12_700_000.0].map(count), ["950", "1.23 k", "12.7 M"]);
    }

    #[test]
    fn durations_are_shown_in_the_two_largest_units() {
        assert_eq!([59.6, 3.0, 7322.0].map(duration), ["1 min 0 s", "3 s", "2 h 2 min"]);
    }
}
