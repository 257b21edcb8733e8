//! Settings of GRPO training.

mod loss;
mod rewards;

use embodied_r_policy::Trainable;
use embodied_r_rewards::RewardSchedule;
use serde::{Deserialize, Serialize};

use super::faults::{Fault, Faults};
use super::flat::flat;
use super::{
    AdvantageSettings, EvaluationSettings, JudgeSettings, LossSettings, LrSettings, MediaSettings,
    OptimizerSettings, PromptSettings, ReferenceSettings, RewardSettings, RolloutSettings,
    RunSettings, StageSettings, TrainableSettings, VisionSettings,
};
use crate::data::length_limit::LengthLimit;
use crate::images::ReferenceTower;
use crate::loss::LossType;

/// Settings of a GRPO run. The defaults reproduce the paper's run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct GrpoSettings {
    /// Model, data and resources of the run, and its checkpoints.
    #[serde(flatten)]
    pub run: RunSettings,
    /// The system prompt.
    #[serde(flatten)]
    pub prompt: PromptSettings,
    /// The rollout.
    #[serde(flatten)]
    pub rollout: RolloutSettings,
    /// The loss.
    #[serde(flatten)]
    pub loss: LossSettings,
    /// The advantages.
    #[serde(flatten)]
    pub advantages: AdvantageSettings,
    /// The reference model.
    #[serde(flatten)]
    pub reference: ReferenceSettings,
    /// The learning rate.
    #[serde(flatten)]
    pub lr: LrSettings,
    /// The optimizer.
    #[serde(flatten)]
    pub optimizer: OptimizerSettings,
    /// The trainable parameters.
    #[serde(flatten)]
    pub trainable: TrainableSettings,
    /// The vision encoder.
    #[serde(flatten)]
    pub vision: VisionSettings,
    /// Images and videos of the data.
    #[serde(flatten)]
    pub media: MediaSettings,
    /// Length and stages.
    #[serde(flatten)]
    pub stages: StageSettings,
    /// The rewards.
    #[serde(flatten)]
    pub rewards: RewardSettings,
    /// The judge of the consistency reward.
    #[serde(flatten)]
    pub judge: JudgeSettings,
    /// Checkpoints and evaluations.
    #[serde(flatten)]
    pub evaluation: EvaluationSettings,
}

flat!(
    GrpoSettings: RunSettings, PromptSettings, RolloutSettings, LossSettings, AdvantageSettings, ReferenceSettings,
    LrSettings, OptimizerSettings, TrainableSettings, VisionSettings, MediaSettings, StageSettings,
    RewardSettings, JudgeSettings, EvaluationSettings
);

impl Default for GrpoSettings {
    fn default() -> Self {
        Self {
            run: RunSettings::default(),
            prompt: PromptSettings::default(),
            rollout: RolloutSettings::default(),
            loss: LossSettings {
                max_completion_length: 2048,
                loss_type: LossType::Grpo,
                beta: 0.001,
                use_bias_correction_kl: false,
                ..LossSettings::default()
            },
            advantages: AdvantageSettings::default(),
            reference: ReferenceSettings::default(),
            lr: LrSettings::default(),
            optimizer: OptimizerSettings::default(),
            trainable: TrainableSettings::default(),
            vision: VisionSettings::default(),
            media: MediaSettings::default(),
            stages: StageSettings::default(),
            rewards: RewardSettings::default(),
            judge: JudgeSettings::default(),
            evaluation: EvaluationSettings::default(),
        }
    }
}

impl GrpoSettings {
    /// All invalid settings at once.
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = Faults::default();
        self.reward_faults(&mut faults);
        self.rollout.add_faults(self.advantages.advantage_estimator, &mut faults);
        self.loss_faults(&mut faults);
        self.lr.add_faults(&mut faults);
        self.optimizer.add_faults(&mut faults);
        self.trainable.add_faults(&self.vision, &mut faults);
        self.vision.add_faults(&mut faults);
        self.run.add_faults(&mut faults);
        self.evaluation.add_faults(self.run.eval_data.is_some(), &mut faults);
        self.judge.add_faults(&mut faults);
        faults.0
    }

    /// These settings with a `change`.
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// The longest prompt of a model with this context length.
    pub fn prompt_limit(&self, context_length: usize) -> LengthLimit {
        let limit = self.rollout.max_prompt_length;
        LengthLimit::of_prompts(limit, context_length, self.run.truncation_strategy)
    }

    /// The vision tower of the reference model: one of its own if the tower is trained and the reference follows the policy,
    /// by `sync_ref_model` or a stage's `reset_reference`.
    #[must_use]
    pub fn reference_tower(&self, stages: &RewardSchedule) -> ReferenceTower {
        let resets = stages.stages().iter().skip(1).any(|stage| stage.reset_reference);
        let follows = self.reference.sync_ref_model || resets;
        match follows && self.vision.frozen_parts().is_some() {
            true => ReferenceTower::Own,
            false => ReferenceTower::Base,
        }
    }

    /// The trainable parameters.
    pub fn trainable(&self) -> Trainable {
        self.trainable.trainable(&self.run.model, &self.vision)
    }
}

#[cfg(test)]
pub(in crate::settings) mod tests {
    use super::*;
    use crate::advantages::{AdvantageEstimator, ScaleRewards};
    use crate::schedule::{LrScheduler, WarmupSteps};

    /// The faults of the defaults with a `change`.
    pub(in crate::settings) fn faults(change: impl FnOnce(&mut GrpoSettings)) -> Vec<String> {
        GrpoSettings::default().with(change).faults().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_defaults_have_no_fault_and_are_the_papers_stages() {
        assert_eq!(GrpoSettings::default().faults(), []);
        assert_eq!(GrpoSettings::default().stages().unwrap().stages().len(), 3);
        assert_eq!(GrpoSettings::default().rollout.questions_per_step(), 4);
    }

    #[test]
    fn an_indivisible_batch_size_suggests_the_nearest_multiples() {
        assert_eq!(
            faults(|train| train.rollout.generation_batch_size = 30),
            ["`generation_batch_size`: must be a multiple of `num_generations` = 8, not 30; try \
                 24 or 32"]
        );
    }

    #[test]
    fn mini_batches_divide_the_questions_of_a_step() {
        let found = |parts| faults(|train| train.rollout.num_mini_batches = parts);
        assert_eq!([found(1), found(2), found(4)], [[""; 0]; 3]);
        assert_eq!(
            found(3),
            [
                "`num_mini_batches`: must divide the questions of a step, `generation_batch_size` / `num_generations` \
              = 4, not 3"
            ]
        );
        assert_eq!(found(0), ["`num_mini_batches`: must be at least 1, not 0"]);
        let train = GrpoSettings::default().with(|s| s.rollout.num_mini_batches = 2);
        assert!(!train.can_reuse_rollout(), "its activations are those of another policy");
    }

    #[test]
    fn reinforce_plus_plus_refuses_what_only_groups_have() {
        let found = |change: fn(&mut GrpoSettings)| {
            faults(|train| {
                train.advantages.advantage_estimator = AdvantageEstimator::ReinforcePlusPlus;
                change(train);
            })
        };
        assert_eq!(found(|train| train.rollout.num_generations = 1), [""; 0]);
        let zero_variance = "is not supported with `advantage_estimator = \"reinforce_plus_plus\"`, where \
                             zero-variance groups have advantages too: the baseline is the batch's mean";
        assert_eq!(
            found(|train| {
                train.rollout.dynamic_sample = true;
                train.rollout.filter_groups = true;
                train.advantages.scale_rewards = ScaleRewards::Batch;
            }),
            [
                format!("`dynamic_sample`: {zero_variance}"),
                format!("`filter_groups`: {zero_variance}"),
                "`scale_rewards`: must be `group` with `advantage_estimator = \"reinforce_plus_plus\"`, which does \
                 its own scaling"
                    .to_owned(),
            ]
        );
    }

    #[test]
    fn all_faults_are_reported_at_once() {
        let found = faults(|train| {
            train.lr.learning_rate = -1.0;
            train.loss.epsilon = 2.0;
            train.rollout.num_generations = 1;
        });
        assert_eq!(found.len(), 3, "{found:?}");
    }

    #[test]
    fn warmup_steps_are_whole_or_a_fraction_below_1() {
        let found =
            |steps| faults(|train| train.lr.warmup_steps = Some(WarmupSteps::Fraction(steps)));
        assert_eq!([found(0.0), found(0.1), found(3.0)].concat(), [""; 0]);
        for wrong in [-1.0, 1.5] {
            let expected = format!(
                "`warmup_steps`: must be a number of steps, or a fraction below 1, not {wrong}"
            );
            assert_eq!(found(wrong), [expected]);
        }
    }

    #[test]
    fn warmup_steps_that_a_constant_would_ignore_are_a_fault() {
        let found = |lr_scheduler_type: LrScheduler, warmup_steps: Option<u64>| {
            let warmup_steps = warmup_steps.map(WarmupSteps::Steps);
            faults(|train| {
                (train.lr.lr_scheduler_type, train.lr.warmup_steps) =
                    (lr_scheduler_type, warmup_steps);
            })
        };
        assert_eq!(
            found(LrScheduler::Constant, Some(5)),
            [
                "`warmup_steps`: has no effect with `lr_scheduler_type = \"constant\"`; use \"constant_with_warmup\""
            ]
        );
        for (kind, steps) in [
            (LrScheduler::Constant, Some(0)),
            (LrScheduler::Constant, None),
            (LrScheduler::ConstantWithWarmup, Some(5)),
            (LrScheduler::Cosine, Some(5)),
        ] {
            assert_eq!(found(kind, steps), [""; 0]);
        }
    }
}
