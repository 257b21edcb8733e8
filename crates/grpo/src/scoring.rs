//! What completions score: the rewards that a run asks, and their weighted sum.

use embodied_r_rewards::registry::{Parts, build};
use embodied_r_rewards::stages::{Weights, weight};
use embodied_r_rewards::{External, Judge, Reward, Schedule as Stages, Score, Scored};

use crate::error::Result;
use crate::rollout::Rollout;
use crate::settings::Train;

/// Rewards that are asked at every step of every run: they cost nothing, and their curves are of
/// interest.
const ALWAYS: [&str; 2] = ["accuracy", "format"];

/// The reward that asks a judge.
const JUDGED: &str = "consistency";

/// The names of the rewards that a run of `settings` over `stages` asks, in the order of the
/// scores.
pub fn reward_names(settings: &Train, stages: &Stages) -> Vec<String> {
    let names = settings.reward_names();
    let weighed = stages.rewards(&names).into_iter().filter(|name| !ALWAYS.contains(name));
    ALWAYS.into_iter().chain(weighed).map(str::to_owned).collect()
}

/// Whether some stage weighs the reward that asks a judge.
pub fn needs_judge(stages: &Stages) -> bool {
    stages.stages().iter().any(|stage| stage.weight(JUDGED) > 0.0)
}

/// A reward and when it is asked.
pub struct Asked {
    /// The reward.
    pub reward: Box<dyn Reward>,
    /// When.
    pub when: When,
}

/// When a reward is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// At every step: it costs nothing, and its curve is of interest.
    Always,
    /// Only while it has a weight: it asks a model, or somebody outside.
    Weighted,
}

impl Asked {
    /// The rewards that `stages` need, and those that are logged in any case.
    ///
    /// # Errors
    /// `consistency` has a weight and there is no judge, or an outside reward names no program or
    /// address.
    pub fn of(
        settings: &Train,
        stages: &Stages,
        judge: Option<Box<dyn Judge>>,
    ) -> Result<Vec<Self>> {
        let names = reward_names(settings, stages);
        let external = settings
            .reward
            .iter()
            .filter(|reward| names.contains(&reward.name))
            .map(External::new)
            .collect::<Result<Vec<_>, _>>()?;
        let outside: Vec<String> = external.iter().map(|reward| reward.name().to_owned()).collect();
        let parts = Parts {
            judge,
            soft_overlong: settings.soft_overlong(),
            repetition: settings.repetition(),
            cosine: settings.cosine(),
            external,
        };
        let asked = |reward: Box<dyn Reward>| {
            let name = reward.name();
            let costs = name == JUDGED || outside.iter().any(|outside| outside == name);
            Self { when: if costs { When::Weighted } else { When::Always }, reward }
        };
        let rewards = build(names.iter().map(String::as_str), parts)?;
        Ok(rewards.into_iter().map(asked).collect())
    }
}

/// Scores all completions and weighs the scores by `weights`.
///
/// Every reward gets all completions at once, so that a judge or a service is asked in one go.
///
/// # Errors
/// A reward cannot be had at all.
pub fn score(rollouts: &mut [Rollout], rewards: &[Asked], weights: &Weights) -> Result<()> {
    // A rank may have had nothing to sample.
    if rollouts.is_empty() {
        return Ok(());
    }
    let mut columns = Vec::with_capacity(rewards.len());
    for Asked { reward, when } in rewards {
        if *when == When::Weighted && weight(weights, reward.name()) == 0.0 {
            columns.push(None);
            continue;
        }
        let batch: Vec<Scored<'_>> = rollouts
            .iter()
            .flat_map(|rollout| {
                rollout.completions.iter().map(|completion| Scored {
                    id: &rollout.id,
                    question: &rollout.question,
                    solution: &rollout.solution,
                    completion: &completion.text,
                    completion_ids: Some(&completion.ids),
                })
            })
            .collect();
        columns.push(Some(reward.score(&batch)?.into_iter()));
    }
    for completion in rollouts.iter_mut().flat_map(|rollout| &mut rollout.completions) {
        completion.scores =
            columns.iter_mut().map(|column| column.as_mut().and_then(Iterator::next)).collect();
        completion.reward = weighted(&completion.scores, rewards, weights);
    }
    Ok(())
}

/// The weighted sum of the scores that are there (TRL's `nansum`).
fn weighted(scores: &[Option<Score>], rewards: &[Asked], weights: &Weights) -> Option<f64> {
    let mut total = None;
    for (score, asked) in scores.iter().zip(rewards) {
        if let Some(value) = score.as_ref().and_then(|score| score.value) {
            *total.get_or_insert(0.0) += weight(weights, asked.reward.name()) * value;
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use embodied_r_rewards::Result as RewardResult;

    use super::*;
    use crate::model::Finish;
    use crate::rollout::Completion;

    struct Fixed(&'static str, Option<f64>);

    impl Reward for Fixed {
        fn name(&self) -> &str {
            self.0
        }

        fn score(&self, batch: &[Scored<'_>]) -> RewardResult<Vec<Score>> {
            Ok(vec![Score { value: self.1, why: None }; batch.len()])
        }
    }

    /// Scores the number of tokens.
    struct Tokens;

    impl Reward for Tokens {
        fn name(&self) -> &str {
            "tokens"
        }

        fn score(&self, batch: &[Scored<'_>]) -> RewardResult<Vec<Score>> {
            let tokens = |scored: &Scored<'_>| scored.completion_ids.map(|ids| ids.len() as f64);
            Ok(batch.iter().map(|s| Score { value: tokens(s), why: None }).collect())
        }
    }

    fn rollout(n: usize) -> Rollout {
        let completion = Completion {
            ids: vec![1; 3],
            logps: vec![-1.0; 3],
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

    fn scored(rewards: &[Asked], weights: &[(&str, f64)]) -> Completion {
        let mut rollouts = [rollout(1)];
        let weights = weights.iter().map(|(name, weight)| ((*name).into(), *weight)).collect();
        score(&mut rollouts, rewards, &weights).unwrap();
        rollouts[0].completions[0].clone()
    }

    fn asked(reward: impl Reward + 'static, when: When) -> Asked {
        Asked { reward: Box::new(reward), when }
    }

    #[test]
    fn the_reward_is_the_weighted_sum_and_the_scores_stay_raw() {
        let rewards = [
            asked(Fixed("accuracy", Some(1.0)), When::Always),
            asked(Fixed("format", Some(0.5)), When::Always),
        ];
        let found = scored(&rewards, &[("accuracy", 0.3), ("format", 0.4)]);
        assert_eq!(found.reward, Some(0.3 + 0.2));
        assert_eq!(found.scores[1].as_ref().unwrap().value, Some(0.5));
    }

    #[test]
    fn a_score_that_is_missing_adds_nothing() {
        let rewards = [
            asked(Fixed("accuracy", Some(1.0)), When::Always),
            asked(Fixed("consistency", None), When::Always),
        ];
        let found = scored(&rewards, &[("accuracy", 0.5), ("consistency", 0.5)]);
        assert_eq!(found.reward, Some(0.5));
    }

    #[test]
    fn without_any_score_there_is_no_reward() {
        let rewards = [asked(Fixed("consistency", None), When::Always)];
        assert_eq!(scored(&rewards, &[("consistency", 1.0)]).reward, None);
    }

    #[test]
    fn a_judged_reward_without_weight_is_not_asked() {
        let rewards = [
            asked(Fixed("accuracy", Some(0.0)), When::Always),
            asked(Fixed("consistency", Some(1.0)), When::Weighted),
        ];
        let found = scored(&rewards, &[("accuracy", 1.0)]);
        assert_eq!(found.scores[1], None);
        assert_eq!(found.reward, Some(0.0));
    }

    #[test]
    fn rewards_are_told_the_sampled_tokens() {
        let found = scored(&[asked(Tokens, When::Always)], &[("tokens", -0.5)]);
        assert_eq!(found.reward, Some(-1.5));
    }

    #[test]
    fn what_a_stage_weighs_is_asked_beside_accuracy_and_format_in_a_fixed_order() {
        let settings = Train {
            reward_weights: [("cosine", 1.0), ("style", 0.5), ("soft_overlong", 0.0)]
                .map(|(name, weight)| (name.to_owned(), weight))
                .into(),
            reward: vec![embodied_r_rewards::ExternalReward::new(
                "style",
                embodied_r_rewards::external::Source::Command(vec!["true".into()]),
            )],
            ..Train::default()
        };
        let stages = settings.stages().unwrap();
        let names = reward_names(&settings, &stages);
        assert_eq!(names, ["accuracy", "format", "cosine", "style"]);
        let asked = Asked::of(&settings, &stages, None).unwrap();
        assert!(asked.iter().map(|asked| asked.reward.name()).eq(&names));
        let when = asked.iter().map(|asked| asked.when).collect::<Vec<_>>();
        assert_eq!(when, [When::Always, When::Always, When::Always, When::Weighted]);
    }
}
