//! Rollouts: the completions of a step's questions, their rewards and advantages.

use embodied_r_rewards::{Schedule as Stages, Score, Scored, Stage};

use crate::advantages::{AdvantageEstimator, Advantages, ScaleRewards, advantages, gdpo, rloo};
use crate::batches::Lengths;
use crate::error::{Error, Result};
use crate::model::{Finish, Group, Model, Precision, Request, Sampling, Text, completion_text};
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

    /// Some of the completions, for the model.
    pub fn group(&self, completions: std::ops::Range<usize>) -> Group {
        let ids = self.completions[completions].iter().map(|completion| completion.ids.clone());
        Group { prompt: self.prompt.clone(), completions: ids.collect() }
    }
}

/// The reward that asks a judge.
const JUDGED: &str = "consistency";

/// The names of the rewards that a run over `stages` asks, in the order of the scores.
pub fn reward_names(stages: &Stages) -> Vec<&'static str> {
    let mut names = vec!["accuracy", "format"];
    if needs_judge(stages) {
        names.push(JUDGED);
    }
    names
}

/// Whether some stage weighs the reward that asks a judge.
pub fn needs_judge(stages: &Stages) -> bool {
    stages.rewards().contains(&JUDGED)
}

/// A reward and when it is asked.
pub struct Asked {
    /// The reward.
    pub reward: Box<dyn embodied_r_rewards::Reward>,
    /// When.
    pub when: When,
}

/// When a reward is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// At every step: it costs nothing, and its curve is of interest.
    Always,
    /// Only while it has a weight: it asks a model.
    Weighted,
}

impl Asked {
    /// The rewards that `stages` need, and those that are logged in any case.
    ///
    /// # Errors
    /// `consistency` has a weight and there is no judge.
    pub fn of(
        stages: &Stages,
        judge: Option<Box<dyn embodied_r_rewards::Judge>>,
    ) -> Result<Vec<Self>> {
        let rewards = embodied_r_rewards::registry::build(reward_names(stages), judge)?;
        let asked = |reward: Box<dyn embodied_r_rewards::Reward>| {
            let when = if reward.name() == JUDGED { When::Weighted } else { When::Always };
            Self { reward, when }
        };
        Ok(rewards.into_iter().map(asked).collect())
    }
}

/// Samples the completions of some questions, in `precision` or in the model's own.
///
/// # Errors
/// What the model or the tokenizer return.
pub fn sample<M: Model>(
    model: &M,
    text: &dyn Text,
    questions: &[(usize, &Prompted)],
    samples: usize,
    (sampling, precision): (&Sampling, Option<Precision>),
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
    let sampled = model.generate(&requests, sampling, precision, done)?;
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
        .collect()
}

/// Scores all completions and weighs the scores by `stage`.
///
/// # Errors
/// A reward cannot be had at all.
pub fn score(rollouts: &mut [Rollout], rewards: &[Asked], stage: &Stage) -> Result<()> {
    let mut columns = Vec::with_capacity(rewards.len());
    for Asked { reward, when } in rewards {
        if *when == When::Weighted && stage.weight(reward.name()) == 0.0 {
            columns.push(None);
            continue;
        }
        let batch: Vec<Scored<'_>> = rollouts
            .iter()
            .flat_map(|rollout| {
                rollout.completions.iter().map(|completion| Scored {
                    question: &rollout.question,
                    solution: &rollout.solution,
                    completion: &completion.text,
                })
            })
            .collect();
        columns.push(Some(reward.score(&batch)?.into_iter()));
    }
    for completion in rollouts.iter_mut().flat_map(|rollout| &mut rollout.completions) {
        completion.scores =
            columns.iter_mut().map(|column| column.as_mut().and_then(Iterator::next)).collect();
        completion.reward = weighted(&completion.scores, rewards, stage);
    }
    Ok(())
}

/// The weighted sum of the scores that are there (TRL's `nansum`).
fn weighted(scores: &[Option<Score>], rewards: &[Asked], stage: &Stage) -> Option<f64> {
    let mut total = None;
    for (score, asked) in scores.iter().zip(rewards) {
        if let Some(value) = score.as_ref().and_then(|score| score.value) {
            *total.get_or_insert(0.0) += stage.weight(asked.reward.name()) * value;
        }
    }
    total
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

    struct Fixed(&'static str, Option<f64>);

    impl embodied_r_rewards::Reward for Fixed {
        fn name(&self) -> &str {
            self.0
        }

        fn score(&self, batch: &[Scored<'_>]) -> embodied_r_rewards::Result<Vec<Score>> {
            Ok(vec![Score { value: self.1, why: None }; batch.len()])
        }
    }

    fn rollout(n: usize) -> Rollout {
        let completion = Completion {
            ids: vec![1],
            logps: vec![-1.0],
            text: String::new(),
            finish: Finish::Stop,
            scores: Vec::new(),
            reward: None,
            advantage: 0.0,
        };
        Rollout {
            index: 0,
            id: "q".into(),
            question: "?".into(),
            prompt: vec![1],
            solution: "A".into(),
            completions: vec![completion; n],
        }
    }

    fn stage(weights: &[(&str, f64)]) -> Stage {
        Stage {
            epochs: 1.0,
            weights: weights.iter().map(|(name, weight)| ((*name).into(), *weight)).collect(),
            restart_schedule: false,
            reset_reference: false,
        }
    }

    fn scored(rewards: &[Asked], stage: &Stage) -> Completion {
        let mut rollouts = [rollout(1)];
        score(&mut rollouts, rewards, stage).unwrap();
        rollouts[0].completions[0].clone()
    }

    fn asked(reward: Fixed, when: When) -> Asked {
        Asked { reward: Box::new(reward), when }
    }

    #[test]
    fn the_reward_is_the_weighted_sum_and_the_scores_stay_raw() {
        let rewards = [
            asked(Fixed("accuracy", Some(1.0)), When::Always),
            asked(Fixed("format", Some(0.5)), When::Always),
        ];
        let found = scored(&rewards, &stage(&[("accuracy", 0.3), ("format", 0.4)]));
        assert_eq!(found.reward, Some(0.3 + 0.2));
        assert_eq!(found.scores[1].as_ref().unwrap().value, Some(0.5));
    }

    #[test]
    fn a_score_that_is_missing_adds_nothing() {
        let rewards = [
            asked(Fixed("accuracy", Some(1.0)), When::Always),
            asked(Fixed("consistency", None), When::Always),
        ];
        let found = scored(&rewards, &stage(&[("accuracy", 0.5), ("consistency", 0.5)]));
        assert_eq!(found.reward, Some(0.5));
    }

    #[test]
    fn without_any_score_there_is_no_reward() {
        let rewards = [asked(Fixed("consistency", None), When::Always)];
        assert_eq!(scored(&rewards, &stage(&[("consistency", 1.0)])).reward, None);
    }

    #[test]
    fn a_judged_reward_without_weight_is_not_asked() {
        let rewards = [
            asked(Fixed("accuracy", Some(0.0)), When::Always),
            asked(Fixed("consistency", Some(1.0)), When::Weighted),
        ];
        let found = scored(&rewards, &stage(&[("accuracy", 1.0)]));
        assert_eq!(found.scores[1], None);
        assert_eq!(found.reward, Some(0.0));
    }
}
