//! Mean relative accuracy, the score of VSI-Bench's numeric questions.

/// Number of confidence thresholds: .50, .55 … .95.
pub const THRESHOLDS: usize = 10;

/// The share of the ten thresholds `t` for which `|predicted - target| / |target| <= 1 - t`.
///
/// The thresholds are computed as the official scorer computes them (evenly spaced from .50 to
/// .95), and the comparison is its `<=` in double precision, so that the scores are equal in every
/// case, also on the thresholds. A target of 0, for which the ratio has no value, is met by 0 alone.
pub fn mean_relative_accuracy(predicted: f64, target: f64) -> f64 {
    if target == 0.0 {
        return if predicted == 0.0 { 1.0 } else { 0.0 };
    }
    let error = (predicted - target).abs() / target.abs();
    let met = (0..THRESHOLDS).filter(|&index| error <= 1.0 - threshold(index)).count();
    met as f64 / THRESHOLDS as f64
}

fn threshold(index: usize) -> f64 {
    const FIRST: f64 = 0.5;
    const LAST: f64 = 0.95;
    if index + 1 == THRESHOLDS {
        return LAST;
    }
    index as f64 * ((LAST - FIRST) / (THRESHOLDS - 1) as f64) + FIRST
}
