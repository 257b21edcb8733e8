//! Refuses rewards that are too large for the statistics of their group.

use super::GrpoTrainer;
use crate::advantages::{mean, std};
use crate::error::{Error, Result};
use crate::events::skipped;
use crate::inspect::batch_file::BatchFile;
use crate::model::Model;
use crate::rollout::{Completion, Rollout};

/// A reward whose statistics are not finite.
#[derive(Debug, PartialEq)]
struct Overflow {
    /// Its column in the scores.
    column: usize,
    /// The score of the largest magnitude.
    score: f64,
    /// The question of that score.
    question: String,
}

impl<M: Model + 'static> GrpoTrainer<'_, M> {
    /// Fails if a mean, a standard deviation or an advantage of step `step` (from 0) is not finite: the step would learn
    /// nothing, or NaN. The batch is dumped first.
    pub(super) fn check_rewards(&self, step: u64, rollouts: &[Rollout]) -> Result<()> {
        let Some(overflow) = overflow(rollouts, &self.column_weights(step)) else {
            return Ok(());
        };
        let names: Vec<&str> = self.rewards.iter().map(|function| function.reward.name()).collect();
        let path = skipped::dump_path(&self.settings.run.output, step);
        self.run
            .dump(step, &BatchFile::of_rollouts(rollouts, &names, self.run.images.as_deref()))?;
        // Before another rank's error ends the job.
        self.run.process_group.barrier()?;
        Err(Error::RewardOverflow {
            reward: names.get(overflow.column).copied().unwrap_or_default().to_owned(),
            score: overflow.score,
            question: overflow.question,
            step: step + 1,
            dump: path,
        })
    }
}

/// The first reward with a weight whose scores have no finite mean or standard deviation, in a group or in the batch; if
/// only their weighted sum has none, the reward with the largest share in it.
fn overflow(rollouts: &[Rollout], weights: &[f64]) -> Option<Overflow> {
    let score = |completion: &Completion, column: usize| -> Option<f64> {
        completion.scores.get(column)?.as_ref()?.value
    };
    let weighted = || weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0);
    for (column, _) in weighted() {
        if !has_statistics(rollouts, &|completion| score(completion, column)) {
            return largest(rollouts, column, &score);
        }
    }
    let is_finite = |completion: &Completion| completion.advantage.is_finite();
    let advantages = rollouts.iter().flat_map(|rollout| &rollout.completions).all(is_finite);
    if advantages && has_statistics(rollouts, &|completion| completion.reward) {
        return None;
    }
    let shares = weighted().filter_map(|(column, weight)| {
        let found = largest(rollouts, column, &score)?;
        Some((found.score.abs() * weight, found))
    });
    shares.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, found)| found)
}

/// Whether mean and standard deviation are finite in every group and in the batch.
fn has_statistics(rollouts: &[Rollout], value: &dyn Fn(&Completion) -> Option<f64>) -> bool {
    let groups: Vec<Vec<Option<f64>>> =
        rollouts.iter().map(|rollout| rollout.completions.iter().map(value).collect()).collect();
    let is_finite = |values: &[Option<f64>]| mean(values).is_finite() && std(values).is_finite();
    groups.iter().all(|group| is_finite(group)) && is_finite(&groups.concat())
}

/// The score of the largest magnitude in `column`.
fn largest(
    rollouts: &[Rollout],
    column: usize,
    score: &dyn Fn(&Completion, usize) -> Option<f64>,
) -> Option<Overflow> {
    let scores = rollouts.iter().flat_map(|rollout| {
        let scores = rollout.completions.iter().filter_map(|one| score(one, column));
        scores.map(|score| (score, rollout.id.as_str()))
    });
    let (score, question) = scores.max_by(|a, b| a.0.abs().total_cmp(&b.0.abs()))?;
    Some(Overflow { column, score, question: question.to_owned() })
}

#[cfg(test)]
mod tests {
    use embodied_r_rewards::Score;

    use super::*;
    use crate::advantages::{AdvantageEstimator, ScaleRewards};
    use crate::rollout::assign_advantages;
    use crate::rollout::tests::group_with;

    /// Groups of two completions with two scores each, weighted 1.
    fn rollouts(groups: &[[[f64; 2]; 2]]) -> Vec<Rollout> {
        let group = |(index, group): (usize, &[[f64; 2]; 2])| Rollout {
            index,
            id: format!("q{index}"),
            ..group_with(group, 1.0)
        };
        let mut rollouts: Vec<Rollout> = groups.iter().enumerate().map(group).collect();
        let scale = ScaleRewards::Group;
        assign_advantages(&mut rollouts, &[1.0, 1.0], 2, AdvantageEstimator::Grpo, scale);
        rollouts
    }

    fn found(groups: &[[[f64; 2]; 2]]) -> Option<(usize, f64, String)> {
        overflow(&rollouts(groups), &[1.0, 1.0])
            .map(|found| (found.column, found.score, found.question))
    }

    #[test]
    fn scores_whose_statistics_overflow_are_found_with_their_reward_and_question() {
        let plain = [[0.0, 1.0], [1.0, 0.0]];
        assert_eq!(found(&[plain, plain]), None);
        assert_eq!(found(&[plain, [[0.0, 1e150], [1.0, -1e150]]]), None);
        // Their mean is 0 and their standard deviation infinite: all advantages would be 0.
        let large = [[0.0, 1e308], [1.0, -1e308]];
        let expected = Some((1, 1e308f64.abs(), "q1".to_owned()));
        assert_eq!(found(&[plain, large]).map(|(c, s, q)| (c, s.abs(), q)), expected);
        // Their sum overflows, each alone does not.
        let sum = [[1e308, 1e308], [1e308, 1e308]];
        assert!(found(&[sum]).is_some());
        // The batch has no finite statistics.
        let constant = [[1e200, 0.0], [1e200, 0.0]];
        assert_eq!(found(&[plain, constant]), Some((0, 1e200, "q1".into())));
    }

    #[test]
    fn a_reward_without_weight_is_not_checked() {
        let rollouts = rollouts(&[[[0.0, 1.0], [1.0, 0.0]]]);
        let mut logged = rollouts.clone();
        logged[0].completions[0].scores[1] = Some(Score { value: Some(1e308), reason: None });
        assert_eq!(overflow(&logged, &[1.0, 0.0]), None);
    }
}
