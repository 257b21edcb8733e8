//! Sums of weights in two levels: of groups, then of the groups. A GPU sums the groups in parallel, in the same order.

/// Weights per group (`GROUP` of `sample.h`).
const GROUP: usize = 16;

fn sums(weights: &[f32]) -> impl Iterator<Item = f64> {
    weights.chunks(GROUP).map(|group| group.iter().copied().map(f64::from).sum())
}

/// The sum of the weights.
pub(super) fn total(weights: &[f32]) -> f64 {
    sums(weights).sum()
}

/// The first weight at which the cumulative sum exceeds `target`, and the sum before it; `None` if all weights are 0.
///
/// Rounding may leave the sum of all just below the target: the last weight above 0 is taken then.
pub(super) fn position(weights: &[f32], target: f64) -> Option<(usize, f64)> {
    let (mut before, mut chosen) = (0.0, None);
    for (group, sum) in sums(weights).enumerate() {
        if sum > 0.0 {
            chosen = Some((group * GROUP, before));
            if before + sum > target {
                break;
            }
            before += sum;
        }
    }
    let (first, mut before) = chosen?;
    let mut found = None;
    for (i, weight) in weights.iter().enumerate().skip(first).take(GROUP) {
        if *weight > 0.0 {
            found = Some((i, before));
            before += f64::from(*weight);
            if before > target {
                break;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Weights whose sums are exact in any order.
    fn weights(count: usize) -> Vec<f32> {
        (0..count).map(|i| [0.0, 0.25, 2.0, 0.0, 1.5][i * 7 % 5]).collect()
    }

    #[test]
    fn a_position_is_where_the_running_sum_exceeds_the_target() {
        for count in [1, 15, 16, 17, 300] {
            let weights = weights(count);
            let all: f64 = weights.iter().copied().map(f64::from).sum();
            assert_eq!(total(&weights), all);
            for step in 0..100 {
                let target = all * f64::from(step) / 100.0;
                let mut before = 0.0;
                let expected = weights.iter().position(|weight| {
                    let exceeds = before + f64::from(*weight) > target;
                    before += if exceeds { 0.0 } else { f64::from(*weight) };
                    exceeds
                });
                let expected = expected.map(|index| (index, before));
                assert_eq!(position(&weights, target), expected, "{count} weights, {target}");
            }
        }
    }

    #[test]
    fn the_last_weight_is_taken_if_the_sum_does_not_reach_the_target() {
        let weights: Vec<f32> = (0..40).map(|i| if i < 33 { 1.0 } else { 0.0 }).collect();
        assert_eq!(position(&weights, 33.0), Some((32, 32.0)));
        assert_eq!(position(&[0.0; 20], 0.0), None);
    }
}
