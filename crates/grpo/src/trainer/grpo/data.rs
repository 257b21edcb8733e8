//! A run's questions, and what follows from them and the settings before there is a model.

use embodied_r_rewards::RewardSchedule as Stages;

use super::evaluate::check_best_metric;
use crate::data::questions::Prompts;
use crate::data::sampler::BatchSampler;
use crate::error::{Error, Result};
use crate::rewards::positions::check_positions;
use crate::rewards::unscored::check_scored;
use crate::schedule::training_plan::TrainingPlan;
use crate::settings::GrpoSettings;

/// The questions of a run with its stages, the order of the questions, and its plan, which fit each other.
#[derive(Debug, Clone)]
pub struct GrpoData {
    pub(super) questions: Prompts,
    pub(super) eval: Prompts,
    pub(super) stages: Stages,
    pub(super) sampler: BatchSampler,
    pub(super) plan: TrainingPlan,
}

impl GrpoData {
    /// The data of a run over `questions`, with evaluations on `eval`, if there are any.
    ///
    /// # Errors
    /// There are too few questions, the settings do not fit them, `metric_for_best_model` is no metric of an evaluation,
    /// or a reward cannot be computed for the answer of a question, unless `allow_unscored` is set.
    pub fn new(settings: &GrpoSettings, questions: Prompts, eval: Prompts) -> Result<Self> {
        let stages = settings.stages().map_err(Error::Settings)?;
        check_best_metric(settings, &stages, &eval.questions)?;
        check_positions(settings, &stages, &questions.questions)?;
        check_scored(settings, &stages, &questions.questions)?;
        check_scored(settings, &stages, &eval.questions)?;
        let (left, needed) = (questions.questions.len(), settings.rollout.questions_per_step());
        let too_few = Error::TooFew { what: "questions", given: questions.given(), left, needed };
        let sampler = BatchSampler::new(left, needed, settings.run.seed).ok_or(too_few)?;
        let plan = TrainingPlan::new(settings, &stages, sampler.steps_per_epoch());
        Ok(Self { questions, eval, stages, sampler, plan: plan.map_err(Error::Settings)? })
    }

    /// The training questions.
    pub fn questions(&self) -> &Prompts {
        &self.questions
    }

    /// The evaluation questions.
    pub fn eval(&self) -> &Prompts {
        &self.eval
    }

    /// The stages.
    pub fn stages(&self) -> &Stages {
        &self.stages
    }

    /// Steps, reward weights and learning rate.
    pub fn plan(&self) -> &TrainingPlan {
        &self.plan
    }
}
