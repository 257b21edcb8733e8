//! What follows from settings and questions before there is a model.

use embodied_r_rewards::RewardSchedule as Stages;

use super::evaluate::check_best_metric;
use crate::data::questions::TokenizedQuestion;
use crate::data::sampler::BatchSampler;
use crate::error::{Error, Result};
use crate::schedule::training_plan::TrainingPlan;
use crate::settings::GrpoSettings;

/// The stages of a run, the order of its questions, and its plan.
#[derive(Debug, Clone)]
pub struct GrpoSchedule {
    /// The stages.
    pub stages: Stages,
    /// The order of the questions.
    pub sampler: BatchSampler,
    /// Steps, reward weights and learning rate.
    pub plan: TrainingPlan,
}

impl GrpoSchedule {
    /// The schedule of a run over the `left` of `given` questions whose prompts are not too long, with evaluations on
    /// `eval`.
    ///
    /// # Errors
    /// There are too few questions, the settings do not fit them, or `metric_for_best_model` is no metric of an
    /// evaluation.
    pub fn new(
        settings: &GrpoSettings,
        given: usize,
        left: usize,
        eval: &[TokenizedQuestion],
    ) -> Result<Self> {
        let stages = settings.stages().map_err(Error::Settings)?;
        check_best_metric(settings, &stages, eval)?;
        let needed = settings.rollout.questions_per_step();
        let sampler = BatchSampler::new(left, needed, settings.run.seed);
        let sampler = sampler.ok_or(Error::TooFew { what: "questions", given, left, needed })?;
        let plan = TrainingPlan::new(settings, &stages, sampler.steps_per_epoch());
        Ok(Self { stages, sampler, plan: plan.map_err(Error::Settings)? })
    }
}
