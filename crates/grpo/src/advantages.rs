//! Advantages: how much better a completion is than its group, or than the batch.

use serde::{Deserialize, Serialize};

/// Added to the standard deviation before dividing, as in TRL.
const EPSILON: f64 = 1e-4;

/// Added to the variance over tokens before its root, as in verl's `masked_whiten`.
const WHITENING_EPSILON: f64 = 1e-8;

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
    /// The weighted reward, whitened over all tokens of the batch (REINFORCE++, verl's `reinforce_plus_plus`).
    ReinforcePlusPlus,
}

impl AdvantageEstimator {
    /// Whether the baseline is the group's, so that a zero-variance group has no learning signal.
    pub fn compares_within_groups(self) -> bool {
        match self {
            Self::Grpo | Self::Rloo | Self::Gdpo => true,
            Self::ReinforcePlusPlus => false,
        }
    }
}

/// The advantages of one step, with a statistic of the rewards.
#[derive(Debug, Clone, PartialEq)]
pub struct Advantages {
    /// One value per completion, in the order of the rewards.
    pub values: Vec<f64>,
    /// Fraction of zero-variance groups, which have no learning signal if it comes from the comparison within groups.
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
    for group in rewards.chunks(group_size.max(1)) {
        let equal = all_equal(group);
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
    Advantages { values, frac_reward_zero_std: zero_variance_share(rewards, group_size) }
}

/// Leave-one-out advantages: as [`advantages`] with the mean of the group's other completions as the baseline. With `K`
/// rewards in the group, `(r - mean_others) = (r - mean_group) · K / (K - 1)`, divided as `scale` says.
///
/// Source: Ahmadian et al., 2024, "Back to Basics", equation 8; ms-swift's `advantage.py`. With [`ScaleRewards::None`] it
/// is verl's `compute_rloo_outcome_advantage`, and TRL's `RLOOTrainer` without `normalize_advantages`.
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
    found.frac_reward_zero_std = zero_variance_share(&sums, group_size);
    found
}

/// Advantages of REINFORCE++: the return of every token, which without discount is its completion's reward, whitened over
/// all tokens of the batch.
///
/// `A = (r - mean) / sqrt(var + 1e-8)`, where mean and unbiased variance weight each completion by its tokens. A
/// completion without a reward (`None`) is excluded from the statistics and has advantage 0. If all rewards are equal,
/// all advantages are exactly 0. Groups play no part.
///
/// Source: verl's and EasyR1's `compute_reinforce_plus_plus_outcome_advantage` and `masked_whiten` at `gamma = 1`, with
/// the KL in the loss (`use_kl_loss`) and not in the rewards; Hu et al., 2025, arXiv 2501.03262.
///
/// # Shapes
/// `rewards` as [`advantages`]; `lengths`, in tokens: one per reward.
pub fn reinforce_plus_plus(
    rewards: &[Option<f64>],
    lengths: &[usize],
    group_size: usize,
) -> Advantages {
    let scored: Vec<(f64, f64)> = rewards
        .iter()
        .zip(lengths)
        .filter_map(|(reward, &length)| Some(((*reward)?, length as f64)))
        .collect();
    let tokens: f64 = scored.iter().map(|(_, length)| length).sum();
    let mean = scored.iter().map(|(reward, length)| reward * length).sum::<f64>() / tokens.max(1.0);
    let squares: f64 = scored.iter().map(|(reward, length)| length * (reward - mean).powi(2)).sum();
    let divisor = (squares / (tokens - 1.0).max(1.0) + WHITENING_EPSILON).sqrt();
    let equal = all_equal(rewards);
    let advantage = |reward: &Option<f64>| match reward {
        Some(reward) if !equal => (reward - mean) / divisor,
        _ => 0.0,
    };
    let values = rewards.iter().map(advantage).collect();
    Advantages { values, frac_reward_zero_std: zero_variance_share(rewards, group_size) }
}

/// The fraction of zero-variance groups; 0 without groups.
fn zero_variance_share(rewards: &[Option<f64>], group_size: usize) -> f64 {
    let groups = rewards.chunks(group_size.max(1));
    let (count, equal) = (groups.len(), groups.filter(|group| all_equal(group)).count());
    if count > 0 { equal as f64 / count as f64 } else { 0.0 }
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

    #[test]
    fn reinforce_plus_plus_has_zero_mean_and_unit_variance_over_the_tokens() {
        let (rewards, lengths) = ([1.0, 0.0, 0.5, 1.0], [3, 5, 1, 2]);
        let found = reinforce_plus_plus(&rewards.map(Some), &lengths, 2);
        let of_completion = |(&value, length)| vec![Some(value); length];
        let tokens: Vec<Option<f64>> =
            found.values.iter().zip(lengths).flat_map(of_completion).collect();
        assert_eq!(tokens.len(), 11);
        assert!(mean(&tokens).abs() < 1e-12 && (std(&tokens) - 1.0).abs() < 1e-6, "{tokens:?}");
        assert_eq!(found.frac_reward_zero_std, 0.0);
    }

    #[test]
    fn in_reinforce_plus_plus_a_zero_variance_group_has_an_advantage() {
        let rewards = [1.0, 1.0, 0.0, 0.0].map(Some);
        let found = reinforce_plus_plus(&rewards, &[1; 4], 2);
        assert!(found.values[0] > 0.5 && found.values[2] < -0.5, "{found:?}");
        assert_eq!(found.frac_reward_zero_std, 1.0);
    }

    #[test]
    fn equal_rewards_give_exactly_zero_in_reinforce_plus_plus() {
        for lengths in [[1, 2, 3], [1, 0, 0], [0; 3]] {
            let found = reinforce_plus_plus(&[Some(0.1 + 0.2); 3], &lengths, 3);
            assert_eq!(found.values, [0.0; 3], "{lengths:?}");
        }
        assert_eq!(reinforce_plus_plus(&[], &[], 2).frac_reward_zero_std, 0.0);
    }

    #[test]
    fn a_completion_without_a_reward_is_no_part_of_the_whitening() {
        let with = reinforce_plus_plus(&[Some(1.0), None, Some(0.0)], &[2, 9, 3], 3).values;
        let without = reinforce_plus_plus(&[Some(1.0), Some(0.0)], &[2, 3], 2).values;
        assert_eq!(with, [without[0], 0.0, without[1]]);
    }
}
