//! Rollouts: sampled completions with their rewards and advantages.

pub(crate) mod expected_lengths;
pub mod partition;

use std::ops::Range;

use embodied_r_random::stream;
use embodied_r_rewards::Score;
use serde::{Deserialize, Serialize};

use crate::advantages::{
    AdvantageEstimator, Advantages, ScaleRewards, advantages, all_equal, gdpo, reinforce_plus_plus,
    rloo,
};
use crate::data::questions::TokenizedQuestion;
use crate::error::{Error, Result};
use crate::model::{
    ChatTokenizer, FinishReason, GenerateOptions, GenerationRequest, Group, Model, Prompt,
    SamplingParams, completion_text, prompt_end,
};
use crate::update::packing::GroupLengths;
use embodied_r_dist::ProcessGroup;

/// One question with its group of completions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// Index of the question in the training set.
    pub index: usize,
    /// The question's identifier in the data set.
    pub id: String,
    /// The question text, captions included.
    pub question: String,
    /// The prompt.
    pub prompt: Prompt,
    /// The text at the prompt's end, which may begin the reply: `<think>`.
    pub prompt_end: String,
    /// The ground-truth answer.
    pub solution: String,
    /// The group of completions.
    pub completions: Vec<Completion>,
}

/// One completion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Completion {
    /// Sampled token ids, including the stop token if there is one.
    pub ids: Vec<u32>,
    /// Log-probability of each token under the sampler, at the sampling temperature.
    pub logps: Vec<f32>,
    /// The decoded text, without the stop token.
    pub text: String,
    /// The finish reason.
    pub finish: FinishReason,
    /// The raw scores, in the order of the rewards; `None` if a reward was not computed.
    pub scores: Vec<Option<Score>>,
    /// The weighted sum of the scores; `None` if there is no score.
    pub reward: Option<f64>,
    /// The advantage within the group.
    pub advantage: f64,
}

impl Rollout {
    /// The lengths, for packing.
    pub fn lengths(&self) -> GroupLengths {
        GroupLengths {
            prompt: self.prompt.len(),
            completions: self.completions.iter().map(|completion| completion.ids.len()).collect(),
        }
    }

    /// Whether the group's rewards, as `estimator` uses them, have non-zero variance; without it the group has no
    /// learning signal, if the estimator compares within groups. `weights` are those of the scores.
    pub fn has_reward_variance(&self, weights: &[f64], estimator: AdvantageEstimator) -> bool {
        let sums: Vec<_> = self.completions.iter().map(|completion| completion.reward).collect();
        match estimator {
            AdvantageEstimator::Grpo
            | AdvantageEstimator::Rloo
            | AdvantageEstimator::ReinforcePlusPlus => !all_equal(&sums),
            // Each reward is normalized alone, so scores that cancel out in the sum still count.
            AdvantageEstimator::Gdpo => columns(std::slice::from_ref(self), weights.len())
                .iter()
                .zip(weights)
                .any(|(scores, &weight)| weight > 0.0 && !all_equal(scores)),
        }
    }

    /// A range of the completions as the model's input.
    pub fn group(&self, completions: Range<usize>) -> Group {
        let ids = self.completions[completions].iter().map(|completion| completion.ids.clone());
        Group { prompt: self.prompt.clone(), completions: ids.collect() }
    }
}

/// A question, and the completions of its group to sample.
#[derive(Debug, Clone)]
pub struct SampleRequest<'a> {
    /// Index of the question.
    pub index: usize,
    /// The question with its prompt.
    pub prompted: &'a TokenizedQuestion,
    /// Range of the group's completions: a completion is the same whichever range it is sampled in.
    pub completions: Range<usize>,
}

/// Samples completions on one rank.
pub struct Sampler<'a, M: Model> {
    /// The model.
    pub model: &'a M,
    /// The ranks; each decoding step sends a heartbeat.
    pub process_group: &'a ProcessGroup,
    /// The tokenizer.
    pub tokenizer: &'a dyn ChatTokenizer,
    /// The sampling parameters.
    pub params: SamplingParams,
    /// The seed of the random streams of all questions.
    pub seed: u64,
    /// The step, from 0, which has streams of its own.
    pub step: u64,
}

impl<M: Model> Sampler<'_, M> {
    /// Samples the completions of `wanted`; fills the activation cache of `options`, if any.
    ///
    /// # Errors
    /// The model or the tokenizer fails.
    pub fn sample(
        &self,
        wanted: &[SampleRequest<'_>],
        options: GenerateOptions<M::ActivationCache>,
    ) -> Result<(Vec<Rollout>, Option<M::ActivationCache>)> {
        let requests: Vec<GenerationRequest> = wanted
            .iter()
            .map(|SampleRequest { index, prompted, completions }| GenerationRequest {
                prompt: prompted.prompt.clone(),
                samples: completions.len(),
                stream: stream(&[self.seed, self.step, *index as u64]),
                first_sample: completions.start,
            })
            .collect();
        let (sampled, activation_cache) =
            self.model
                .generate(&requests, &self.params, options, &|| self.process_group.heartbeat())?;
        let lengths = |sampled: &[Vec<_>]| sampled.iter().map(Vec::len).collect::<Vec<_>>();
        if lengths(&sampled) != requests.iter().map(|request| request.samples).collect::<Vec<_>>() {
            return Err(Error::Model { what: "returned the wrong number of completions".into() });
        }
        let rollouts: Result<Vec<Rollout>> = wanted
            .iter()
            .zip(sampled)
            .map(|(SampleRequest { index, prompted, .. }, samples)| {
                let completions = samples.into_iter().map(|sample| {
                    Ok(Completion {
                        text: completion_text(self.tokenizer, &sample.ids)?,
                        ids: sample.ids,
                        logps: sample.logps,
                        finish: sample.finish_reason,
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
                    prompt_end: prompt_end(self.tokenizer, &prompted.prompt)?,
                    solution: prompted.question.solution(),
                    completions: completions.collect::<Result<_>>()?,
                })
            })
            .collect();
        Ok((rollouts?, activation_cache))
    }
}

/// Assigns every completion its advantage. All groups have `group_size` completions; `weights` are those of the scores.
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
        AdvantageEstimator::ReinforcePlusPlus => {
            let completions = rollouts.iter().flat_map(|rollout| &rollout.completions);
            let lengths: Vec<usize> = completions.map(|completion| completion.ids.len()).collect();
            reinforce_plus_plus(&sums, &lengths, group_size)
        }
    };
    let completions = rollouts.iter_mut().flat_map(|rollout| &mut rollout.completions);
    for (completion, advantage) in completions.zip(&found.values) {
        completion.advantage = *advantage;
    }
    found
}

/// The raw scores of all completions, group by group, for each reward. A completion without a reward has none: what is
/// logged without a weight is no part of it.
fn columns(rollouts: &[Rollout], rewards: usize) -> Vec<Vec<Option<f64>>> {
    let completions = || rollouts.iter().flat_map(|rollout| &rollout.completions);
    let score = |completion: &Completion, k: usize| {
        completion.reward?;
        completion.scores.get(k)?.as_ref()?.value
    };
    (0..rewards).map(|k| completions().map(|completion| score(completion, k)).collect()).collect()
}

/// The rewards of all completions, group by group.
pub fn rewards(rollouts: &[Rollout]) -> impl Iterator<Item = Option<f64>> {
    rollouts.iter().flat_map(|rollout| &rollout.completions).map(|completion| completion.reward)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A group with two scores per completion, weighted `weight` each.
    pub(crate) fn group_with(scores: &[[f64; 2]], weight: f64) -> Rollout {
        let completion = |scores: &[f64; 2]| Completion {
            ids: vec![1],
            logps: vec![-1.0],
            text: String::new(),
            finish: FinishReason::Stop,
            scores: scores.map(|value| Some(Score { value: Some(value), reason: None })).to_vec(),
            reward: Some(weight * scores[0] + weight * scores[1]),
            advantage: 0.0,
        };
        group_of(scores.iter().map(completion).collect())
    }

    /// A group of a question.
    pub(crate) fn group_of(completions: Vec<Completion>) -> Rollout {
        Rollout {
            index: 0,
            id: "q".into(),
            question: "?".into(),
            prompt: vec![1].into(),
            prompt_end: String::new(),
            solution: "A".into(),
            completions,
        }
    }

    fn group(scores: &[[f64; 2]]) -> Rollout {
        group_with(scores, 0.5)
    }

    #[test]
    fn a_group_has_reward_variance_if_its_sums_differ() {
        for estimator in [AdvantageEstimator::Grpo, AdvantageEstimator::Rloo] {
            let has_variance =
                |scores: &[[f64; 2]]| group(scores).has_reward_variance(&[0.5, 0.5], estimator);
            assert!(has_variance(&[[1.0, 0.0], [1.0, 1.0]]));
            assert!(!has_variance(&[[1.0, 1.0], [1.0, 1.0]]));
            assert!(!has_variance(&[[1.0, 0.0], [0.0, 1.0]]), "the sums are equal");
        }
    }

    #[test]
    fn individually_normalized_scores_have_variance_even_if_their_sums_are_equal() {
        let group = group(&[[1.0, 0.0], [0.0, 1.0]]);
        assert!(group.has_reward_variance(&[0.5, 0.5], AdvantageEstimator::Gdpo));
        let zero_variance = self::group(&[[1.0, 0.0], [1.0, 1.0]]);
        assert!(
            !zero_variance.has_reward_variance(&[0.5, 0.0], AdvantageEstimator::Gdpo),
            "it has no weight"
        );
    }
}
