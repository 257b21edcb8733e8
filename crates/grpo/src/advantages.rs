//! Advantages: how much better a completion is than its group.

use serde::{Deserialize, Serialize};

/// Added to the standard deviation before dividing, as in TRL.
const EPSILON: f64 = 1e-4;

/// The divisor of the mean-centered rewards (TRL's `scale_rewards`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScaleRewards {
    /// The group's standard deviation.
    #[default]
    Group,
    /// The batch's standard deviation.
    Batch,
    /// No scaling.
    None,
}

/// The advantage estimator (ms-swift's `advantage_estimator`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdvantageEstimator {
    /// The weighted reward minus the group's mean.
    #[default]
    Grpo,
    /// The weighted reward minus the mean of the group's other completions: `K / (K - 1)` times `grpo`'s.
    Rloo,
    /// Each reward is normalized within its group before the weighted sum, which is normalized over the batch (TRL's
    /// `multi_objective_aggregation = "normalize_then_sum"`).
    #[serde(alias = "normalize_then_sum")]
    Gdpo,
}

/// The advantages of one step, with a statistic of the rewards.
#[derive(Debug, Clone, PartialEq)]
pub struct Advantages {
    /// One value per completion, in the order of the rewards.
    pub values: Vec<f64>,
    /// Fraction of zero-variance groups, which have no learning signal.
    pub frac_reward_zero_std: f64,
}

/// Advantages of consecutive groups of `group_size` completions.
///
/// `A = (r - mean_group) / (std + 1e-4)` with the unbiased standard deviation. A completion without a reward (`None`)
/// is excluded from the statistics and has advantage 0. Zero-variance groups have advantages of exactly 0, not the
/// rounding error of the mean divided by `1e-4`.
///
/// Source: TRL's `grpo_trainer.py`, `_generate_and_score_completions`.
///
/// # Shapes
/// `rewards`: groups × `group_size`, group by group.
pub fn advantages(rewards: &[Option<f64>], group_size: usize, scale: ScaleRewards) -> Advantages {
    let batch_std = std(rewards);
    let mut values = Vec::with_capacity(rewards.len());
    let (mut groups, mut zero_variance) = (0.0, 0.0);
    for group in rewards.chunks(group_size.max(1)) {
        groups += 1.0;
        let equal = all_equal(group);
        if equal {
            zero_variance += 1.0;
        }
        let mean = mean(group);
        let divisor = match scale {
            ScaleRewards::Group => std(group) + EPSILON,
            ScaleRewards::Batch => batch_std + EPSILON,
            ScaleRewards::None => 1.0,
        };
        values.extend(group.iter().map(|reward| match reward {
            Some(reward) if !equal => (reward - mean) / divisor,
            _ => 0.0,
        }));
    }
    let frac_reward_zero_std = if groups > 0.0 { zero_variance / groups } else { 0.0 };
    Advantages { values, frac_reward_zero_std }
}

/// Leave-one-out advantages: as [`advantages`] with the mean of the group's other completions as the baseline. With `K`
/// rewards in the group, `(r - mean_others) = (r - mean_group) · K / (K - 1)`, divided as `scale` says.
///
/// Source: Ahmadian et al., 2024, "Back to Basics", equation 8; ms-swift's `advantage.py`.
///
/// # Shapes
/// As [`advantages`].
pub fn rloo(rewards: &[Option<f64>], group_size: usize, scale: ScaleRewards) -> Advantages {
    let mut found = advantages(rewards, group_size, scale);
    let size = group_size.max(1);
    for (group, values) in rewards.chunks(size).zip(found.values.chunks_mut(size)) {
        let k = group.iter().flatten().count() as f64;
        if k > 1.0 {
            values.iter_mut().for_each(|value| *value *= k / (k - 1.0));
        }
    }
    found
}

/// Advantages of several rewards that are normalized separately (GDPO).
///
/// `z_k = (r_k - mean_group) / (std_group + 1e-4)` for each reward, `s = Σ w_k z_k`, and `A = (s - mean_batch) /
/// (std_batch + 1e-4)`. A completion without any score has advantage 0; missing scores are excluded.
///
/// Source: TRL's `grpo_trainer.py`, `normalize_then_sum`.
///
/// # Shapes
/// `scores`: rewards × completions, completions group by group; `weights`: rewards.
pub fn gdpo(scores: &[Vec<Option<f64>>], weights: &[f64], group_size: usize) -> Advantages {
    let completions = scores.first().map_or(0, Vec::len);
    let mut sums: Vec<Option<f64>> = vec![None; completions];
    for (column, weight) in scores.iter().zip(weights) {
        let normalized = advantages(column, group_size, ScaleRewards::Group).values;
        for ((sum, score), value) in sums.iter_mut().zip(column).zip(normalized) {
            if score.is_some() {
                *sum.get_or_insert(0.0) += weight * value;
            }
        }
    }
    // The entire batch is one group now.
    let mut found = advantages(&sums, completions, ScaleRewards::Batch);
    let zero_variance = sums.chunks(group_size.max(1)).filter(|group| all_equal(group)).count();
    let groups = completions.div_ceil(group_size.max(1));
    found.frac_reward_zero_std =
        if groups > 0 { zero_variance as f64 / groups as f64 } else { 0.0 };
    found
}

/// The mean of the available rewards; 0 if there are none.
pub fn mean(rewards: &[Option<f64>]) -> f64 {
    let (sum, n) = rewards.iter().flatten().fold((0.0, 0.0), |(sum, n), r| (sum + r, n + 1.0));
    if n > 0.0 { sum / n } else { 0.0 }
}

/// The unbiased standard deviation of the available rewards; 0 for fewer than two.
pub fn std(rewards: &[Option<f64>]) -> f64 {
    let n = rewards.iter().flatten().count() as f64;
    if n < 2.0 {
        return 0.0;
    }
    let mean = mean(rewards);
    let squares: f64 = rewards.iter().flatten().map(|r| (r - mean).powi(2)).sum();
    (squares / (n - 1.0)).sqrt()
}

/// Whether all available rewards are equal.
pub fn all_equal(rewards: &[Option<f64>]) -> bool {
    let mut present = rewards.iter().flatten();
    let Some(first) = present.next() else { return true };
    present.all(|reward| reward == first)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Weighted rewards of the two groups that the golden values were computed from.
    const REWARDS: [f64; 8] = [0.8, 0.1, 0.9, 0.0, 1.0, 1.0, 1.0, 0.9];

    fn golden(scale: ScaleRewards, expected: [f64; 8]) {
        let found = advantages(&REWARDS.map(Some), 4, scale).values;
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{found} instead of {expected}");
        }
    }

    #[test]
    fn group_scaling_gives_the_golden_values() {
        let a = [0.751759, -0.751759, 0.966547, -0.966547];
        golden(
            ScaleRewards::Group,
            [a[0], a[1], a[2], a[3], 0.499002, 0.499002, 0.499002, -1.497006],
        );
    }

    #[test]
    fn batch_scaling_gives_the_golden_values() {
        let a = [0.842062, -0.842062, 1.082652, -1.082652];
        golden(
            ScaleRewards::Batch,
            [a[0], a[1], a[2], a[3], 0.060147, 0.060147, 0.060147, -0.180442],
        );
    }

    #[test]
    fn no_scaling_gives_the_golden_values() {
        golden(ScaleRewards::None, [0.35, -0.35, 0.45, -0.45, 0.025, 0.025, 0.025, -0.075]);
    }

    #[test]
    fn equal_rewards_give_exactly_zero() {
        let rewards = [Some(0.7); 3].into_iter().chain([Some(0.1 + 0.2); 3]).collect::<Vec<_>>();
        for scale in [ScaleRewards::Group, ScaleRewards::Batch, ScaleRewards::None] {
            let found = advantages(&rewards, 3, scale);
            assert_eq!(found.values, [0.0; 6]);
            assert_eq!(found.frac_reward_zero_std, 1.0);
        }
    }

    #[test]
    fn a_completion_without_a_reward_leaves_the_others_alone() {
        let with = advantages(&[Some(1.0), None, Some(0.0)], 3, ScaleRewards::Group).values;
        let without = advantages(&[Some(1.0), Some(0.0)], 2, ScaleRewards::Group).values;
        assert_eq!(with, [without[0], 0.0, without[1]]);
    }

    #[test]
    fn a_group_without_any_reward_has_advantage_zero() {
        let found = advantages(&[None, None, Some(1.0), Some(0.0)], 2, ScaleRewards::Group);
        assert_eq!(found.values[..2], [0.0, 0.0]);
        assert_eq!(found.frac_reward_zero_std, 0.5);
    }

    /// Raw scores of the golden groups: three rewards, weighted 0.7, 0.1 and 0.2.
    fn columns() -> Vec<Vec<Option<f64>>> {
        let rows = [[1, 1, 0], [0, 1, 0], [1, 0, 1], [0, 0, 0], [1, 1, 1], [1, 1, 1], [1, 1, 1]];
        let rows: Vec<[i32; 3]> = rows.into_iter().chain([[1, 0, 1]]).collect();
        (0..3).map(|k| rows.iter().map(|row| Some(f64::from(row[k]))).collect()).collect()
    }

    #[test]
    fn gdpo_gives_the_golden_values() {
        let found = gdpo(&columns(), &[0.7, 0.1, 0.2], 4);
        let expected =
            [1.091097, -1.140403, 1.508496, -1.459189, 0.092023, 0.092023, 0.092023, -0.276069];
        for (found, expected) in found.values.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{found} instead of {expected}");
        }
        assert_eq!(found.frac_reward_zero_std, 0.0);
    }

    #[test]
    fn a_completion_without_any_score_has_advantage_zero_in_gdpo() {
        let mut columns = columns();
        columns.iter_mut().for_each(|column| column[1] = None);
        let found = gdpo(&columns, &[0.7, 0.1, 0.2], 4).values;
        assert_eq!(found[1], 0.0);
        assert!(found[0] > 0.0);
    }

    #[test]
    fn rloo_compares_with_the_mean_of_the_others() {
        let rewards = [Some(1.0), Some(0.0), None, Some(0.5)];
        let found = rloo(&rewards, 4, ScaleRewards::None).values;
        let expected = [1.0 - 0.25, 0.0 - 0.75, 0.0, 0.5 - 0.5];
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-12, "{found} instead of {expected}");
        }
    }
}
