//! How a run starts: what follows from settings and data, then the model, new or from a checkpoint.

use std::sync::Arc;

use embodied_r_rewards::RewardSchedule as Stages;

use super::evaluate::check_best_metric;
use super::reference::{in_process, needs_reference};
use super::{GrpoInputs, GrpoTrainer};
use crate::checkpoint::{BestMetric, Checkpoint, Checkpoints};
use crate::data::fingerprint::fingerprint;
use crate::data::sampler::BatchSampler;
use crate::error::{Error, Result};
use crate::events::Sink;
use crate::model::Model;
use crate::rewards::judge::ReferenceModel;
use crate::rewards::scoring::RewardFunction;
use crate::schedule::training_plan::TrainingPlan;
use crate::trainer::{Prepared, Run, RunOutcome, RunPlan, train};

/// What follows from settings and questions before there is a model.
struct Schedule<'a> {
    stages: Stages,
    sampler: BatchSampler,
    plan: TrainingPlan,
    run: RunPlan<'a>,
}

impl<'a, M: Model + 'static> GrpoTrainer<'a, M> {
    /// Starts a new run from `policy`.
    ///
    /// # Errors
    /// The output folder already contains a run, there are too few questions, the settings do not fit them, or memory
    /// is short.
    pub fn start(
        policy: M,
        inputs: GrpoInputs<'a>,
        sinks: Vec<Box<dyn Sink + 'a>>,
    ) -> Result<Self> {
        let schedule = Schedule::new(&inputs)?;
        let prepared = Run::prepare_new(policy, &inputs.run, &schedule.run)?;
        let reference = match needs_reference(&inputs, &schedule.stages) {
            true => Some(prepared.model.frozen_copy()?),
            false => None,
        };
        Self::open(prepared, reference, inputs, schedule, sinks)
    }

    /// Resumes a run from `checkpoint`; the result is that of an uninterrupted run.
    ///
    /// # Errors
    /// As [`GrpoTrainer::start`]; the checkpoint cannot be read, or the folder contains later checkpoints.
    pub fn resume(
        checkpoint: &Checkpoint,
        inputs: GrpoInputs<'a>,
        sinks: Vec<Box<dyn Sink + 'a>>,
    ) -> Result<Self> {
        let schedule = Schedule::new(&inputs)?;
        let prepared = Run::<M>::prepare_resumed(checkpoint, &inputs.run, &schedule.run)?;
        let policy = &prepared.model;
        let reference = match (needs_reference(&inputs, &schedule.stages), checkpoint.reference()) {
            (false, _) => None,
            (true, Some(folder)) => Some(policy.load_frozen(&folder)?),
            (true, None) => Some(policy.load_frozen(inputs.run.base)?),
        };
        if let Some(reference) = &reference {
            let checkpoints = Checkpoints::new(&schedule.run.settings.output, 1);
            let checkpoints = checkpoints.with_process_group(&inputs.run.process_group);
            checkpoints.copy_reference(reference, checkpoint)?;
        }
        Self::open(prepared, reference, inputs, schedule, sinks)
    }

    /// Trains until all steps are done or the user requests a stop; either way a final checkpoint is written.
    ///
    /// # Errors
    /// Any part fails; the last checkpoint remains usable.
    pub fn run(self) -> Result<RunOutcome> {
        train(self)
    }

    fn open(
        mut prepared: Prepared<M>,
        reference: Option<M>,
        inputs: GrpoInputs<'a>,
        mut schedule: Schedule<'a>,
        sinks: Vec<Box<dyn Sink + 'a>>,
    ) -> Result<Self> {
        let GrpoInputs { settings, questions, eval, judge, activation_cache, verify_packing, run } =
            inputs;
        schedule.plan.resume(&prepared.state.stage_begins);
        let reference = reference.map(|model| Arc::new(ReferenceModel::new(model)));
        let judge =
            judge.or_else(|| in_process(reference.as_ref(), &run.tokenizer, &run.process_group));
        let rewards = RewardFunction::build_all(settings, &schedule.stages, judge)?;
        prepared.state.cached_layers = activation_cache.map(|cache| cache.layers);
        Ok(Self {
            run: Run::open(prepared, run, schedule.run, sinks)?,
            settings,
            questions,
            eval,
            reference,
            reference_moved: false,
            verify_packing,
            activation_cache_options: activation_cache,
            activation_cache: None,
            peak_flops: None,
            rewards,
            sampler: schedule.sampler,
            plan: schedule.plan,
        })
    }
}

impl<'a> Schedule<'a> {
    /// # Errors
    /// There are too few questions, or the settings do not fit them.
    fn new(inputs: &GrpoInputs<'a>) -> Result<Self> {
        let (settings, questions) = (inputs.settings, &inputs.questions);
        let stages = settings.stages().map_err(Error::Settings)?;
        let (given, needed) = (questions.len(), settings.rollout.questions_per_step());
        let sampler = BatchSampler::new(given, needed, settings.run.seed);
        let sampler =
            sampler.ok_or(Error::TooFew { what: "questions", given, left: given, needed })?;
        let plan = TrainingPlan::new(settings, &stages, sampler.steps_per_epoch());
        let plan = plan.map_err(Error::Settings)?;
        check_best_metric(settings, &stages, &inputs.eval)?;
        let data = questions
            .iter()
            .map(|one| (one.prompt.as_slice(), [].as_slice(), one.question.answer.as_str()));
        let run = RunPlan {
            settings: &settings.run,
            load_options: settings.run.load_options(
                settings.trainable(),
                inputs.run.base,
                inputs.run.activation_bytes,
            ),
            optimizer: settings.optimizer,
            total_steps: plan.total_steps,
            save_steps: settings.evaluation.save_steps,
            milestones: settings.run.milestones(sampler.steps_per_epoch()),
            best_by: BestMetric::new(
                &settings.evaluation.metric_for_best_model,
                settings.evaluation.greater_is_better,
            ),
            data: fingerprint(data),
            probe: questions.first().map_or_else(Vec::new, |question| question.prompt.clone()),
        };
        Ok(Self { stages, sampler, plan, run })
    }
}
