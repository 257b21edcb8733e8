//! How a run starts, with a new model or from a checkpoint.

use std::sync::Arc;

use super::reference::{in_process, needs_reference};
use super::{GrpoData, GrpoInputs, GrpoTrainer};
use crate::checkpoint::{BestMetric, Checkpoint, Checkpoints};
use crate::data::fingerprint::fingerprint;
use crate::error::Result;
use crate::events::Sink;
use crate::model::Model;
use crate::rewards::judge::ReferenceModel;
use crate::rewards::scoring::RewardFunction;
use crate::trainer::{Prepared, Run, RunOutcome, RunPlan, train};

impl<'a, M: Model + 'static> GrpoTrainer<'a, M> {
    /// Starts a new run from `policy`.
    ///
    /// # Errors
    /// The output folder already contains a run, or memory is short.
    pub fn start(
        policy: M,
        inputs: GrpoInputs<'a>,
        sinks: Vec<Box<dyn Sink + 'a>>,
    ) -> Result<Self> {
        let plan = run_plan(&inputs);
        Self::begin(policy, inputs, plan, sinks)
    }

    /// Starts a new run from the base model.
    ///
    /// # Errors
    /// As [`GrpoTrainer::start`]; the model cannot be loaded.
    pub fn from_base(inputs: GrpoInputs<'a>, sinks: Vec<Box<dyn Sink + 'a>>) -> Result<Self> {
        let plan = run_plan(&inputs);
        let policy = inputs.run.load_base(&plan)?;
        Self::begin(policy, inputs, plan, sinks)
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
        let plan = run_plan(&inputs);
        let prepared = Run::<M>::prepare_resumed(checkpoint, &inputs.run, &plan)?;
        let policy = &prepared.model;
        let reference = match (needs_reference(&inputs), checkpoint.reference()) {
            (false, _) => None,
            (true, Some(folder)) => Some(policy.load_frozen(&folder)?),
            (true, None) => Some(policy.load_frozen(inputs.run.base)?),
        };
        if let Some(reference) = &reference {
            let checkpoints = Checkpoints::new(&inputs.settings.run.output, 1);
            let checkpoints = checkpoints.with_process_group(&inputs.run.process_group);
            checkpoints.copy_reference(reference, checkpoint)?;
        }
        Self::open(prepared, reference, inputs, plan, sinks)
    }

    /// Trains until all steps are done or the user requests a stop; either way a final checkpoint is written.
    ///
    /// # Errors
    /// Any part fails; the last checkpoint remains usable.
    pub fn run(self) -> Result<RunOutcome> {
        train(self)
    }

    fn begin(
        policy: M,
        inputs: GrpoInputs<'a>,
        plan: RunPlan<'a>,
        sinks: Vec<Box<dyn Sink + 'a>>,
    ) -> Result<Self> {
        let prepared = Run::prepare_new(policy, &inputs.run, &plan)?;
        let reference = match needs_reference(&inputs) {
            true => Some(prepared.model.frozen_copy()?),
            false => None,
        };
        Self::open(prepared, reference, inputs, plan, sinks)
    }

    fn open(
        mut prepared: Prepared<M>,
        reference: Option<M>,
        inputs: GrpoInputs<'a>,
        plan: RunPlan<'a>,
        sinks: Vec<Box<dyn Sink + 'a>>,
    ) -> Result<Self> {
        let GrpoInputs { settings, data, judge, activation_cache, verify_packing, run } = inputs;
        let GrpoData { questions, eval, stages, sampler, plan: mut training_plan } = data;
        training_plan.resume(&prepared.state.stage_begins);
        let reference = reference.map(|model| Arc::new(ReferenceModel::new(model)));
        let judge =
            judge.or_else(|| in_process(reference.as_ref(), &run.tokenizer, &run.process_group));
        let rewards = RewardFunction::build_all(settings, &stages, judge)?;
        prepared.state.cached_layers = activation_cache.map(|cache| cache.layers);
        Ok(Self {
            run: Run::open(prepared, run, plan, sinks)?,
            settings,
            questions: questions.questions,
            eval: eval.questions,
            reference,
            reference_moved: false,
            verify_packing,
            activation_cache_options: activation_cache,
            activation_cache: None,
            peak_flops: None,
            rewards,
            sampler,
            plan: training_plan,
        })
    }
}

/// What the run is to do.
fn run_plan<'a>(inputs: &GrpoInputs<'a>) -> RunPlan<'a> {
    let settings = inputs.settings;
    let GrpoData { questions, sampler, plan, .. } = &inputs.data;
    let questions = &questions.questions;
    let evaluation = &settings.evaluation;
    let data =
        questions.iter().map(|one| (&one.prompt, [].as_slice(), one.question.answer.as_str()));
    RunPlan {
        settings: &settings.run,
        load_options: inputs.run.load_options(&settings.run, settings.trainable()),
        optimizer: settings.optimizer,
        total_steps: plan.total_steps,
        save_steps: evaluation.save_steps,
        milestones: settings.run.milestones(sampler.steps_per_epoch()),
        best_by: BestMetric::new(&evaluation.metric_for_best_model, evaluation.greater_is_better),
        data: fingerprint(data),
        probe: questions.first().map_or_else(Vec::new, |question| question.prompt.ids().to_vec()),
    }
}
