//! Rollouts: the completions of a step's questions, and their advantages.

use embodied_r_rewards::Score;
use serde::{Deserialize, Serialize};

use crate::advantages::{
    AdvantageEstimator, Advantages, ScaleRewards, advantages, all_equal, gdpo, rloo,
};
use crate::batches::Lengths;
use crate::error::{Error, Result};
use crate::model::{Finish, Group, Model, Precision, Request, Sampling, Text, completion_text};
use crate::questions::Prompted;
use crate::random::stream;
use crate::team::Team;

/// One question and what the policy said to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// Index of the question in the training set.
    pub index: usize,
    /// The question's own identifier.
    pub id: String,
    /// The question as it was put, perceived video and all.
    pub question: String,
    /// The tokens of the prompt.
    pub prompt: Vec<u32>,
    /// The right answer.
    pub solution: String,
    /// The group of completions.
    pub completions: Vec<Completion>,
}

/// One completion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Completion {
    /// The sampled tokens, with the stop token where there is one.
    pub ids: Vec<u32>,
    /// The log-probability of each token as the sampler computed it, at the sampling's temperature.
    pub logps: Vec<f32>,
    /// Their text without the stop token.
    pub text: String,
    /// Why it ended.
    pub finish: Finish,
    /// The raw scores, in the order of the rewards; `None` where one was not asked for.
    pub scores: Vec<Option<Score>>,
    /// The weighted sum of the scores; `None` if there is no score at all.
    pub reward: Option<f64>,
    /// The advantage within the group.
    pub advantage: f64,
}

impl Rollout {
    /// The lengths, for packing.
    pub fn lengths(&self) -> Lengths {
        Lengths {
            prompt: self.prompt.len(),
            completions: self.completions.iter().map(|completion| completion.ids.len()).collect(),
        }
    }

    /// Whether the rewards of the group differ, by which `estimator` tells its completions apart;
    /// without that it teaches nothing. `weights` are those of the scores.
    pub fn has_spread(&self, weights: &[f64], estimator: AdvantageEstimator) -> bool {
        let sums: Vec<_> = self.completions.iter().map(|completion| completion.reward).collect();
        match estimator {
            AdvantageEstimator::Grpo | AdvantageEstimator::Rloo => !all_equal(&sums),
            // Scores that cancel each other out in the sum still count one by one.
            AdvantageEstimator::Gdpo => columns(std::slice::from_ref(self), weights.len())
                .iter()
                .zip(weights)
                .any(|(scores, &weight)| weight > 0.0 && !all_equal(scores)),
        }
    }

    /// Some of the completions, for the model.
    pub fn group(&self, completions: std::ops::Range<usize>) -> Group {
        let ids = self.completions[completions].iter().map(|completion| completion.ids.clone());
        Group { prompt: self.prompt.clone(), completions: ids.collect() }
    }
}

/// Samples the completions of some questions, in some precision or in the model's own, and on a tape for the update if
/// there is one. Each of its steps is a sign of life to `team`.
///
/// # Errors
/// What the model or the tokenizer return.
pub fn sample<M: Model>(
    (model, team): (&M, &Team),
    text: &dyn Text,
    questions: &[(usize, &Prompted)],
    samples: usize,
    sampling: &Sampling,
    with: (Option<Precision>, Option<M::Tape>),
    (seed, step): (u64, u64),
) -> Result<(Vec<Rollout>, Option<M::Tape>)> {
    let requests: Vec<Request> = questions
        .iter()
        .map(|(index, prompted)| Request {
            prompt: prompted.prompt.clone().into(),
            samples,
            stream: stream(&[seed, step, *index as u64]),
        })
        .collect();
    let (sampled, tape) = model.generate(&requests, sampling, with, &|| team.beat())?;
    if sampled.len() != questions.len() || sampled.iter().any(|group| group.len() != samples) {
        return Err(Error::Model { what: "gave another number of completions".into() });
    }
    let rollouts: Result<Vec<Rollout>> = questions
        .iter()
        .zip(sampled)
        .map(|((index, prompted), samples)| {
            let completions = samples.into_iter().map(|sample| {
                Ok(Completion {
                    text: completion_text(text, &sample.ids)?,
                    ids: sample.ids,
                    logps: sample.logps,
                    finish: sample.finish,
                    scores: Vec::new(),
                    reward: None,
                    advantage: 0.0,
                })
            });
            Ok(Rollout {
                index: *index,
                id: prompted.question.id(),
                question: prompted.question.question.clone(),
                prompt: prompted.prompt.clone(),
                solution: prompted.question.answer.clone(),
                completions: completions.collect::<Result<_>>()?,
            })
        })
        .collect();
    Ok((rollouts?, tape))
}

/// Gives every completion its advantage; all groups are of `group_size`, and `weights` are those of the
/// scores.
pub fn assign_advantages(
    rollouts: &mut [Rollout],
    weights: &[f64],
    group_size: usize,
    estimator: AdvantageEstimator,
    scale: ScaleRewards,
) -> Advantages {
    let sums: Vec<Option<f64>> = rewards(rollouts).collect();
    let found = match estimator {
        AdvantageEstimator::Grpo => advantages(&sums, group_size, scale),
        AdvantageEstimator::Rloo => rloo(&sums, group_size, scale),
        AdvantageEstimator::Gdpo => gdpo(&columns(rollouts, weights.len()), weights, group_size),
    };
    let completions = rollouts.iter_mut().flat_map(|rollout| &mut rollout.completions);
    for (completion, advantage) in completions.zip(&found.values) {
        completion.advantage = *advantage;
    }
    found
}

/// The raw scores of all completions, group by group, for each reward.
fn columns(rollouts: &[Rollout], rewards: usize) -> Vec<Vec<Option<f64>>> {
    let completions = || rollouts.iter().flat_map(|rollout| &rollout.completions);
    let score = |completion: &Completion, k: usize| completion.scores.get(k)?.as_ref()?.value;
    (0..rewards).map(|k| completions().map(|completion| score(completion, k)).collect()).collect()
}

/// The rewards of all completions, group by group.
pub fn rewards(rollouts: &[Rollout]) -> impl Iterator<Item = Option<f64>> {
    rollouts.iter().flat_map(|rollout| &rollout.completions).map(|completion| completion.reward)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A group with two scores a completion, of weights 0.5 and 0.5.
    fn group(scores: &[[f64; 2]]) -> Rollout {
        let completion = |scores: &[f64; 2]| Completion {
            ids: vec![1],
            logps: vec![-1.0],
            text: String::new(),
            finish: Finish::Stop,
            scores: scores.map(|value| Some(Score { value: Some(value), why: None })).to_vec(),
            reward: Some(0.5 * scores[0] + 0.5 * scores[1]),
            advantage: 0.0,
        };
        Rollout {
            index: 0,
            id: "q".into(),
            question: "?".into(),
            prompt: vec![1],
            solution: "A".into(),
            completions: scores.iter().map(completion).collect(),
        }
    }

    #[test]
    fn a_group_has_spread_where_its_sums_differ() {
        for estimator in [AdvantageEstimator::Grpo, AdvantageEstimator::Rloo] {
            let spread = |scores: &[[f64; 2]]| group(scores).has_spread(&[0.5, 0.5], estimator);
            assert!(spread(&[[1.0, 0.0], [1.0, 1.0]]));
            assert!(!spread(&[[1.0, 1.0], [1.0, 1.0]]));
            assert!(!spread(&[[1.0, 0.0], [0.0, 1.0]]), "the sums are one and the same");
        }
    }

    #[test]
    fn scores_that_are_normalised_one_by_one_have_spread_though_their_sums_are_the_same() {
        let group = group(&[[1.0, 0.0], [0.0, 1.0]]);
        assert!(group.has_spread(&[0.5, 0.5], AdvantageEstimator::Gdpo));
        let flat = self::group(&[[1.0, 0.0], [1.0, 1.0]]);
        assert!(!flat.has_spread(&[0.5, 0.0], AdvantageEstimator::Gdpo), "it has no weight");
    }
}
