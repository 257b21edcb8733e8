//! A curve, a count and a time in few characters.

use crate::chart::{Point, number};

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

/// The first and the last value of a curve.
pub(crate) fn ends(curve: &[Point]) -> Option<(f64, f64)> {
    let mut values = curve.iter().filter_map(|(_, value)| *value);
    let first = values.next()?;
    Some((first, values.next_back().unwrap_or(first)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_a_curve_are_its_first_and_last_values() {
        let curve = [None, Some(2.0), None, Some(3.0), None].map(|value| (0.0, value));
        assert_eq!(ends(&curve), Some((2.0, 3.0)));
        assert_eq!(ends(&curve[..2]), Some((2.0, 2.0)));
        assert_eq!(ends(&curve[..1]), None);
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
