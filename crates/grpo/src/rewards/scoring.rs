//! Scores completions with the run's rewards and computes their weighted sum.

use std::borrow::Cow;
use std::sync::atomic::AtomicBool;

use embodied_r_rewards::prompt_end::whole_reply;
use embodied_r_rewards::registry::{RewardDependencies, build};
use embodied_r_rewards::stages::{Weights, weight};
use embodied_r_rewards::{
    AnswerType, Error as RewardError, External, Judge, Reward, RewardInput,
    RewardSchedule as Stages, Score,
};

use crate::data::questions::TokenizedQuestion;
use crate::error::Result;
use crate::rollout::Rollout;
use crate::settings::{GrpoSettings, JudgeKind};
use embodied_r_dist::ProcessGroup;

/// Rewards that every run computes and logs: they are cheap.
const ALWAYS: [&str; 2] = ["accuracy", "format"];

/// The reward that needs a judge.
pub const JUDGED: &str = "consistency";

/// The names of the rewards that a run of `settings` over `stages` computes, in the order of the scores.
pub fn reward_names(settings: &GrpoSettings, stages: &Stages) -> Vec<String> {
    let names = settings.reward_names();
    let is_computed =
        |name: &&str| stages.stages().iter().any(|stage| settings.computes(name, stage));
    let others = names.iter().filter(|name| !ALWAYS.contains(name)).filter(is_computed);
    ALWAYS.into_iter().chain(others).map(str::to_owned).collect()
}

/// Whether a run of `settings` over `stages` computes the reward that needs a judge.
pub fn needs_judge(settings: &GrpoSettings, stages: &Stages) -> bool {
    stages.stages().iter().any(|stage| settings.computes(JUDGED, stage))
}

/// A reward function and when to compute it.
pub struct RewardFunction {
    /// The reward function.
    pub reward: Box<dyn Reward>,
    /// When to compute it.
    pub when: ComputeWhen,
    /// Whether its scores come from outside the process, with their own timeout.
    pub external: bool,
}

/// When a reward is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ComputeWhen {
    /// At every step: it is cheap, and its curve is of interest.
    Always,
    /// Only while it has a weight: it calls a model or an external service.
    Weighted,
    /// As [`Self::Weighted`], but without a weight it is still computed for the log (`log_unweighted_rewards`).
    Logged,
}

impl RewardFunction {
    /// Builds the rewards that `stages` need, and those that are always logged.
    ///
    /// # Errors
    /// `consistency` has a weight but there is no judge, or an external reward names neither a command nor a URL.
    pub fn build_all(
        settings: &GrpoSettings,
        stages: &Stages,
        judge: Option<Box<dyn Judge>>,
    ) -> Result<Vec<Self>> {
        let names = reward_names(settings, stages);
        let external = settings
            .rewards
            .reward
            .iter()
            .filter(|reward| names.contains(&reward.name))
            .map(External::new)
            .collect::<Result<Vec<_>, _>>()?;
        let external_names: Vec<String> =
            external.iter().map(|reward| reward.name().to_owned()).collect();
        let parts = RewardDependencies {
            judge,
            accuracy: settings.accuracy(),
            format: settings.rewards.format,
            soft_overlong: settings.soft_overlong(),
            repetition: settings.repetition(),
            cosine: settings.cosine(),
            external,
        };
        let function = |reward: Box<dyn Reward>| {
            let name = reward.name();
            let is_judged = name == JUDGED;
            let external = external_names.iter().any(|external| external == name)
                || is_judged && settings.judge.judge == JudgeKind::Http;
            let when = match (is_judged || external, settings.rewards.log_unweighted_rewards) {
                (false, _) => ComputeWhen::Always,
                (true, false) => ComputeWhen::Weighted,
                (true, true) => ComputeWhen::Logged,
            };
            Self { reward, when, external }
        };
        let rewards = build(names.iter().map(String::as_str), parts)?;
        Ok(rewards.into_iter().map(function).collect())
    }

    /// Whether the reward is computed at a step with `weights`.
    pub fn is_computed(&self, weights: &Weights) -> bool {
        self.when != ComputeWhen::Weighted || self.has_weight(weights)
    }

    fn has_weight(&self, weights: &Weights) -> bool {
        weight(weights, self.reward.name()) != 0.0
    }

    /// Whether a score is part of the completion's reward. Without a weight, a judged or external one is not, so that
    /// a completion that has no other score has no reward either, whether it is logged or not.
    fn is_summed(&self, weights: &Weights) -> bool {
        self.when == ComputeWhen::Always || self.has_weight(weights)
    }

    /// The scores of all completions, in order, computed as one batch, so that a judge or a service is called once;
    /// `None` if it was waited for when `stop` was set. While this rank waits for an external reward, a heartbeat guard
    /// keeps the other ranks waiting. `questions` are those that the rollouts' indices count.
    ///
    /// # Errors
    /// The reward fails.
    pub fn scores(
        &self,
        rollouts: &[Rollout],
        questions: &[TokenizedQuestion],
        process_group: &ProcessGroup,
        stop: &AtomicBool,
    ) -> Result<Option<Vec<Score>>> {
        let completions = || {
            rollouts
                .iter()
                .flat_map(|rollout| rollout.completions.iter().map(move |it| (rollout, it)))
        };
        let replies: Vec<Cow<'_, str>> = completions()
            .map(|(rollout, completion)| whole_reply(&rollout.prompt_end, &completion.text))
            .collect();
        let batch: Vec<RewardInput<'_>> = completions()
            .zip(&replies)
            .map(|((rollout, completion), reply)| {
                let question = questions.get(rollout.index);
                let columns = question.map(|it| &it.question.extra).filter(|it| !it.is_empty());
                RewardInput {
                    id: &rollout.id,
                    question: &rollout.question,
                    solution: &rollout.solution,
                    completion: reply,
                    completion_ids: Some(&completion.ids),
                    answer_type: columns.and_then(AnswerType::of_columns),
                    images: question.map_or(&[], |it| &it.images),
                    columns,
                }
            })
            .collect();
        let _guard = self.external.then(|| process_group.communicator().heartbeat_guard());
        match self.reward.score_until(&batch, stop) {
            Ok(scores) => Ok(Some(scores)),
            Err(RewardError::Interrupted) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Scores all completions of `questions`, which the rollouts' indices count, and combines the scores with `weights`. They stay without scores if a reward was waited for
/// when `stop` was set.
///
/// # Errors
/// A reward fails.
pub fn score(
    rollouts: &mut [Rollout],
    questions: &[TokenizedQuestion],
    rewards: &[RewardFunction],
    weights: &Weights,
    process_group: &ProcessGroup,
    stop: &AtomicBool,
) -> Result<()> {
    // A rank may have been assigned no questions.
    if rollouts.is_empty() {
        return Ok(());
    }
    let mut columns = Vec::with_capacity(rewards.len());
    for function in rewards {
        columns.push(match function.is_computed(weights) {
            true => match function.scores(rollouts, questions, process_group, stop)? {
                Some(scores) => Some(scores.into_iter()),
                None => return Ok(()),
            },
            false => None,
        });
    }
    for completion in rollouts.iter_mut().flat_map(|rollout| &mut rollout.completions) {
        completion.scores =
            columns.iter_mut().map(|column| column.as_mut().and_then(Iterator::next)).collect();
        completion.reward = weighted(&completion.scores, rewards, weights);
    }
    Ok(())
}

/// The weighted sum of the available scores (TRL's `nansum`).
fn weighted(
    scores: &[Option<Score>],
    rewards: &[RewardFunction],
    weights: &Weights,
) -> Option<f64> {
    let mut total = None;
    let summed = scores.iter().zip(rewards).filter(|(_, function)| function.is_summed(weights));
    for (score, function) in summed {
        if let Some(value) = score.as_ref().and_then(|score| score.value) {
            *total.get_or_insert(0.0) += weight(weights, function.reward.name()) * value;
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use embodied_r_dist::{Communicator, CommunicatorOptions};
    use embodied_r_rewards::{Format, Result as RewardResult};

    use super::*;
    use crate::model::FinishReason;
    use crate::rollout::Completion;
    use crate::rollout::tests::group_of;

    static NEVER: AtomicBool = AtomicBool::new(false);

    struct Fixed(&'static str, Option<f64>);

    impl Reward for Fixed {
        fn name(&self) -> &str {
            self.0
        }

        fn score(&self, batch: &[RewardInput<'_>]) -> RewardResult<Vec<Score>> {
            Ok(vec![Score { value: self.1, reason: None }; batch.len()])
        }
    }

    /// The reward is the number of tokens.
    struct Tokens;

    impl Reward for Tokens {
        fn name(&self) -> &str {
            "tokens"
        }

        fn score(&self, batch: &[RewardInput<'_>]) -> RewardResult<Vec<Score>> {
            let tokens =
                |scored: &RewardInput<'_>| scored.completion_ids.map(|ids| ids.len() as f64);
            Ok(batch.iter().map(|s| Score { value: tokens(s), reason: None }).collect())
        }
    }

    fn rollout(n: usize) -> Rollout {
        let completion = Completion {
            ids: vec![1; 3],
            logps: vec![-1.0; 3],
            text: String::new(),
            finish: FinishReason::Stop,
            scores: Vec::new(),
            reward: None,
            advantage: 0.0,
        };
        group_of(vec![completion; n])
    }

    fn scored(rewards: &[RewardFunction], weights: &[(&str, f64)]) -> Completion {
        let mut rollouts = [rollout(1)];
        let weights = weights.iter().map(|(name, weight)| ((*name).into(), *weight)).collect();
        score(&mut rollouts, &[], rewards, &weights, &ProcessGroup::default(), &NEVER).unwrap();
        rollouts[0].completions[0].clone()
    }

    fn function(reward: impl Reward + 'static, when: ComputeWhen) -> RewardFunction {
        RewardFunction { reward: Box::new(reward), when, external: false }
    }

    #[test]
    fn the_reward_is_the_weighted_sum_and_the_scores_stay_raw() {
        let rewards = [
            function(Fixed("accuracy", Some(1.0)), ComputeWhen::Always),
            function(Fixed("format", Some(0.5)), ComputeWhen::Always),
        ];
        let found = scored(&rewards, &[("accuracy", 0.3), ("format", 0.4)]);
        assert_eq!(found.reward, Some(0.3 + 0.2));
        assert_eq!(found.scores[1].as_ref().unwrap().value, Some(0.5));
    }

    #[test]
    fn a_score_that_is_missing_adds_nothing() {
        let rewards = [
            function(Fixed("accuracy", Some(1.0)), ComputeWhen::Always),
            function(Fixed("consistency", None), ComputeWhen::Always),
        ];
        let found = scored(&rewards, &[("accuracy", 0.5), ("consistency", 0.5)]);
        assert_eq!(found.reward, Some(0.5));
    }

    #[test]
    fn without_any_score_there_is_no_reward() {
        let rewards = [function(Fixed("consistency", None), ComputeWhen::Always)];
        assert_eq!(scored(&rewards, &[("consistency", 1.0)]).reward, None);
    }

    #[test]
    fn a_judged_reward_without_weight_is_not_computed() {
        let rewards = [
            function(Fixed("accuracy", Some(0.0)), ComputeWhen::Always),
            function(Fixed("consistency", Some(1.0)), ComputeWhen::Weighted),
        ];
        let found = scored(&rewards, &[("accuracy", 1.0)]);
        assert_eq!(found.scores[1], None);
        assert_eq!(found.reward, Some(0.0));
    }

    #[test]
    fn a_logged_reward_without_weight_is_computed_but_adds_no_reward() {
        let logged = || function(Fixed("consistency", Some(1.0)), ComputeWhen::Logged);
        let rewards = [function(Fixed("accuracy", None), ComputeWhen::Always), logged()];
        let found = scored(&rewards, &[("accuracy", 1.0)]);
        assert_eq!(found.scores[1].as_ref().unwrap().value, Some(1.0));
        assert_eq!(found.reward, None);
        assert_eq!(scored(&[logged()], &[("consistency", 0.5)]).reward, Some(0.5));
    }

    #[test]
    fn a_reply_begins_with_the_reasoning_that_the_prompt_opens() {
        let mut rollouts = [rollout(1)];
        rollouts[0].prompt_end = "assistant\n<think>\n".into();
        rollouts[0].completions[0].text = "so</think><answer>B</answer>".into();
        let rewards = [function(Format::Strict, ComputeWhen::Always)];
        let weights = [("format".into(), 1.0)].into_iter().collect();
        score(&mut rollouts, &[], &rewards, &weights, &ProcessGroup::default(), &NEVER).unwrap();
        assert_eq!(rollouts[0].completions[0].reward, Some(1.0));
    }

    #[test]
    fn rewards_receive_the_sampled_tokens() {
        let found = scored(&[function(Tokens, ComputeWhen::Always)], &[("tokens", -0.5)]);
        assert_eq!(found.reward, Some(-1.5));
    }

    #[test]
    fn ranks_wait_for_an_external_reward_but_not_for_a_hanging_one() {
        struct Slow;
        impl Reward for Slow {
            fn name(&self) -> &str {
                "slow"
            }

            fn score(&self, batch: &[RewardInput<'_>]) -> RewardResult<Vec<Score>> {
                std::thread::sleep(Duration::from_millis(1500));
                Ok(vec![Score { value: None, reason: None }; batch.len()])
            }
        }
        let is_waited_for = |external: bool| {
            let options = CommunicatorOptions {
                deadline: Duration::from_millis(500),
                ..CommunicatorOptions::default()
            };
            let mut groups =
                Communicator::threads(2, &options).unwrap().into_iter().map(ProcessGroup::new);
            let (first, late) = (groups.next().unwrap(), groups.next().unwrap());
            let late = std::thread::spawn(move || {
                let function = [RewardFunction {
                    reward: Box::new(Slow),
                    when: ComputeWhen::Always,
                    external,
                }];
                score(&mut [rollout(1)], &[], &function, &Weights::default(), &late, &NEVER)
                    .unwrap();
                late.barrier().is_ok() && late.communicator().finish().is_ok()
            });
            let waited = first.barrier().is_ok();
            assert_eq!(waited && first.communicator().finish().is_ok(), late.join().unwrap());
            waited
        };
        assert!(is_waited_for(true));
        assert!(!is_waited_for(false));
    }

    #[test]
    fn weighted_rewards_follow_accuracy_and_format_in_a_fixed_order() {
        let settings = GrpoSettings::default().with(|s| {
            s.stages.reward_weights = [("cosine", 1.0), ("style", 0.5), ("soft_overlong", 0.0)]
                .map(|(name, weight)| (name.to_owned(), weight))
                .into();
            s.rewards.reward = vec![embodied_r_rewards::ExternalRewardConfig::new(
                "style",
                embodied_r_rewards::external::RewardBackend::Command(vec!["true".into()]),
            )];
        });
        let stages = settings.stages().unwrap();
        let names = reward_names(&settings, &stages);
        assert_eq!(names, ["accuracy", "format", "cosine", "style"]);
        let function = RewardFunction::build_all(&settings, &stages, None).unwrap();
        assert!(function.iter().map(|function| function.reward.name()).eq(&names));
        let when = function.iter().map(|function| function.when).collect::<Vec<_>>();
        assert_eq!(
            when,
            [ComputeWhen::Always, ComputeWhen::Always, ComputeWhen::Always, ComputeWhen::Weighted]
        );
    }

    #[test]
    fn the_format_reward_reads_as_set() {
        let score = |format: Format| {
            let settings = GrpoSettings::default().with(|s| {
                s.rewards.format = format;
                s.stages.reward_weights = [("format".to_owned(), 1.0)].into();
            });
            let stages = settings.stages().unwrap();
            let rewards = RewardFunction::build_all(&settings, &stages, None).unwrap();
            let reward = rewards.iter().find(|function| function.reward.name() == "format");
            let completion = "<think>a</think><answer>A</answer><answer>B</answer>";
            let batch = [RewardInput { completion, ..RewardInput::default() }];
            reward.unwrap().reward.score(&batch).unwrap()[0].value
        };
        assert_eq!(score(Format::Strict), Some(0.0));
        assert_eq!(score(Format::Official), Some(1.0));
    }

    #[test]
    fn log_unweighted_rewards_adds_the_listed_rewards_without_weight() {
        let names = |log_unweighted_rewards: bool| {
            let reward_weights = [("accuracy", 1.0), ("consistency", 0.0)]
                .map(|(name, weight)| (name.to_owned(), weight))
                .into();
            let settings = GrpoSettings::default().with(|s| {
                s.rewards.log_unweighted_rewards = log_unweighted_rewards;
                s.stages.reward_weights = reward_weights;
            });
            let stages = settings.stages().unwrap();
            assert_eq!(needs_judge(&settings, &stages), log_unweighted_rewards);
            reward_names(&settings, &stages)
        };
        assert_eq!(names(false), ["accuracy", "format"]);
        assert_eq!(names(true), ["accuracy", "format", "consistency"]);
    }
}
