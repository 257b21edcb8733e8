//! Scores of numeric answers: VSI-Bench's mean relative accuracy, and Video-R1's relative error.

/// Number of confidence thresholds: .50, .55 … .95.
pub const THRESHOLDS: usize = 10;

/// The fraction of the ten thresholds `t` with `|predicted - target| / |target| <= 1 - t`.
///
/// Thresholds (evenly spaced from .50 to .95) and the `<=` in double precision follow the official
/// scorer exactly, so the scores match even at the thresholds. For a target of 0, where the ratio is
/// undefined, only a prediction of 0 scores.
pub fn mean_relative_accuracy(predicted: f64, target: f64) -> f64 {
    if target == 0.0 {
        return if predicted == 0.0 { 1.0 } else { 0.0 };
    }
    let error = (predicted - target).abs() / target.abs();
    let met = (0..THRESHOLDS).filter(|&index| error <= 1.0 - threshold(index)).count();
    met as f64 / THRESHOLDS as f64
}

/// One minus the relative error, at least 0: Video-R1's reward of `regression`. For a target of 0, where the ratio is
/// undefined, only a prediction of 0 scores.
pub fn relative_accuracy(predicted: f64, target: f64) -> f64 {
    if predicted == target {
        return 1.0;
    }
    let error = (predicted - target).abs() / target.abs();
    // NaN is an error too.
    if error < 1.0 { 1.0 - error } else { 0.0 }
}

/// 1 if both numbers are equal when rounded to one decimal place, the exact binary value half to even, as Python's `round`
/// does; else 0: Embodied-R1.5's reward of `numerical`.
pub fn one_decimal_accuracy(predicted: f64, target: f64) -> f64 {
    // Formatting rounds the exact value; where it is a tie, half to even.
    let rounded = |value: f64| format!("{value:.1}");
    let zero = |text: String| if text == "-0.0" { "0.0".to_owned() } else { text };
    if zero(rounded(predicted)) == zero(rounded(target)) { 1.0 } else { 0.0 }
}

fn threshold(index: usize) -> f64 {
    const FIRST: f64 = 0.5;
    const LAST: f64 = 0.95;
    if index + 1 == THRESHOLDS {
        return LAST;
    }
    index as f64 * ((LAST - FIRST) / (THRESHOLDS - 1) as f64) + FIRST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_ten_thresholds_from_a_half_to_nineteen_twentieths() {
        let all: Vec<f64> = (0..THRESHOLDS).map(threshold).collect();
        assert_eq!((all[0], all[9]), (0.5, 0.95));
        for (index, value) in all.iter().enumerate() {
            assert!((value - (0.5 + 0.05 * index as f64)).abs() < 1e-12);
        }
    }

    #[test]
    fn the_score_is_the_fraction_of_thresholds_met() {
        // Values of the official scorer; an error of 20 % is within rounding of a threshold.
        for (predicted, score) in [
            (10.0, 1.0),
            (9.5, 1.0),
            (10.5, 1.0),
            (9.4, 0.9),
            (9.0, 0.9),
            (11.0, 0.9),
            (8.9, 0.8),
            (12.0, 0.6),
            (8.0, 0.6),
            (12.01, 0.6),
            (11.99, 0.7),
            (15.0, 0.1),
            (5.0, 0.1),
            (15.01, 0.0),
            (0.0, 0.0),
            (-10.0, 0.0),
            (f64::INFINITY, 0.0),
            (f64::NAN, 0.0),
        ] {
            assert_eq!(mean_relative_accuracy(predicted, 10.0), score, "{predicted}");
        }
    }

    #[test]
    fn the_relative_accuracy_falls_with_the_error() {
        for (predicted, target, score) in [
            (4.0, 4.0, 1.0),
            (3.0, 4.0, 0.75),
            (5.0, 4.0, 0.75),
            (8.0, 4.0, 0.0),
            (9.0, 4.0, 0.0),
            (-4.0, 4.0, 0.0),
            (-3.0, -4.0, 0.75),
            (0.0, 0.0, 1.0),
            (0.1, 0.0, 0.0),
            (f64::NAN, 4.0, 0.0),
            (f64::INFINITY, 4.0, 0.0),
        ] {
            assert_eq!(relative_accuracy(predicted, target), score, "{predicted} of {target}");
        }
    }

    #[test]
    fn a_target_of_zero_is_met_by_zero_only() {
        assert_eq!(mean_relative_accuracy(0.0, 0.0), 1.0);
        assert_eq!(mean_relative_accuracy(0.1, 0.0), 0.0);
    }

    #[test]
    fn the_error_is_relative_to_the_size_of_the_target() {
        assert_eq!(mean_relative_accuracy(-9.0, -10.0), 0.9);
        assert_eq!(mean_relative_accuracy(10.0, -10.0), 0.0);
    }
}
