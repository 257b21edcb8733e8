//! Rollouts: the completions of a step's questions, and their advantages.

use embodied_r_rewards::Score;

use crate::advantages::{Advantages, ScaleRewards, advantages, all_equal};
use crate::batches::Lengths;
use crate::error::{Error, Result};
use crate::model::{Finish, Group, Model, Request, Sampling, Text, completion_text};
use crate::questions::Prompted;
use crate::random::stream;

/// One question and what the policy said to it.
#[derive(Debug, Clone, PartialEq)]
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
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// The sampled tokens, with the stop token where there is one.
    pub ids: Vec<u32>,
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

    /// Whether the rewards of the group differ: without that it teaches nothing.
    pub fn has_spread(&self) -> bool {
        let rewards: Vec<_> = self.completions.iter().map(|c| c.reward).collect();
        !all_equal(&rewards)
    }

    /// Some of the completions, for the model.
    pub fn group(&self, completions: std::ops::Range<usize>) -> Group {
        let ids = self.completions[completions].iter().map(|completion| completion.ids.clone());
        Group { prompt: self.prompt.clone(), completions: ids.collect() }
    }
}

/// Samples the completions of some questions.
///
/// # Errors
/// What the model or the tokenizer return.
pub fn sample<M: Model>(
    model: &M,
    text: &dyn Text,
    questions: &[(usize, &Prompted)],
    samples: usize,
    sampling: &Sampling,
    (seed, step): (u64, u64),
    done: &dyn Fn(u64),
) -> Result<Vec<Rollout>> {
    let requests: Vec<Request> = questions
        .iter()
        .map(|(index, prompted)| Request {
            prompt: prompted.prompt.clone(),
            samples,
            stream: stream(&[seed, step, *index as u64]),
        })
        .collect();
    let sampled = model.generate(&requests, sampling, done)?;
    if sampled.len() != questions.len() || sampled.iter().any(|group| group.len() != samples) {
        return Err(Error::Model { what: "gave another number of completions".into() });
    }
    questions
        .iter()
        .zip(sampled)
        .map(|((index, prompted), samples)| {
            let completions = samples.into_iter().map(|sample| {
                Ok(Completion {
                    text: completion_text(text, &sample.ids)?,
                    ids: sample.ids,
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
        .collect()
}

/// Gives every completion its advantage; all groups are of `group_size`.
pub fn assign_advantages(
    rollouts: &mut [Rollout],
    group_size: usize,
    scale: ScaleRewards,
) -> Advantages {
    let rewards: Vec<Option<f64>> = rewards(rollouts).collect();
    let found = advantages(&rewards, group_size, scale);
    let completions = rollouts.iter_mut().flat_map(|rollout| &mut rollout.completions);
    for (completion, advantage) in completions.zip(&found.values) {
        completion.advantage = *advantage;
    }
    found
}

/// The rewards of all completions, group by group.
pub fn rewards(rollouts: &[Rollout]) -> impl Iterator<Item = Option<f64>> {
    rollouts.iter().flat_map(|rollout| &rollout.completions).map(|completion| completion.reward)
}
