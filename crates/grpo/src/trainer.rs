//! Group relative policy optimization, from rollouts to checkpoints.

mod dump;
mod evaluate;
mod metrics;
mod reference;
mod reward_check;
mod run;
mod sampling;
mod stages;
mod step;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use candle_core::Device;
use embodied_r_rewards::Judge;

use crate::checkpoint::{BestMetric, Checkpoint, Checkpoints, RunLock, State};
use crate::error::{Error, Result};
use crate::events::{Recorder, Sink};
use crate::fingerprint::fingerprint;
use crate::finite::{check_base, check_resumed};
use crate::judge::ReferenceModel;
use crate::model::{ActivationCacheOptions, ChatTokenizer, Model};
use crate::optimizer::Optimizer;
use crate::process_group::ProcessGroup;
use crate::questions::TokenizedQuestion;
use crate::sampler::BatchSampler;
use crate::scoring::RewardFunction;
use crate::settings::GrpoSettings;
use crate::training_plan::TrainingPlan;
use crate::update::Updater;
pub use evaluate::check_best_metric;
use reference::{in_process, needs_reference};

/// Inputs of a run, except its model.
pub struct GrpoInputs<'a> {
    /// The settings, already validated.
    pub settings: &'a GrpoSettings,
    /// The settings as text, saved with every checkpoint.
    pub settings_text: &'a str,
    /// Folder of the base model; on resume the reference is loaded from it.
    pub base: &'a Path,
    /// Fingerprint of the base model.
    pub fingerprint: &'a str,
    /// The tokenizer and its chat template.
    pub tokenizer: Arc<dyn ChatTokenizer>,
    /// Training questions.
    pub questions: Vec<TokenizedQuestion>,
    /// Evaluation questions; empty for no evaluation.
    pub eval: Vec<TokenizedQuestion>,
    /// An external judge; by default the frozen reference judges.
    pub judge: Option<Box<dyn Judge>>,
    /// Memory budget in bytes for activations saved by the update's forward pass.
    pub activation_bytes: usize,
    /// The device of the model.
    pub device: Device,
    /// How much of the rollout's activations the update reuses. The number of layers is fixed when the run starts,
    /// since the gradients' bits depend on it.
    pub activation_cache: Option<ActivationCacheOptions>,
    /// Whether to compare the first step's packed gradients with per-completion gradients.
    pub verify_packing: bool,
    /// Set to stop the run. A step that has not changed the parameters yet is abandoned.
    pub stop: &'a AtomicBool,
    /// The lock of the run's folder, on the rank that holds it.
    pub lock: Option<Arc<RunLock>>,
    /// The ranks of data-parallel training.
    pub process_group: ProcessGroup,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunOutcome {
    /// All steps are done; the final model is in this folder.
    Finished(PathBuf),
    /// The run was stopped and can be resumed from this checkpoint.
    Stopped(PathBuf),
}

/// A GRPO training run.
pub struct GrpoTrainer<'a, M: Model> {
    settings: &'a GrpoSettings,
    settings_text: &'a str,
    tokenizer: Arc<dyn ChatTokenizer>,
    questions: Vec<TokenizedQuestion>,
    eval: Vec<TokenizedQuestion>,
    stop: &'a AtomicBool,
    process_group: ProcessGroup,
    policy: M,
    reference: Option<Arc<ReferenceModel<M>>>,
    /// Whether to verify the next step's packed gradients.
    verify_packing: bool,
    /// How much of the rollout's activations the update reuses.
    activation_cache_options: Option<ActivationCacheOptions>,
    /// The cache's memory, reused from step to step.
    activation_cache: Option<M::ActivationCache>,
    /// The device of the policy.
    device: Device,
    /// Peak FLOP/s of the device; `None` before the first step, NaN if unknown.
    peak_flops: Option<f64>,
    /// Bytes that this rank had sent at the last reported step.
    bytes_sent: u64,
    /// Whether the reference has changed since it was saved.
    reference_moved: bool,
    rewards: Vec<RewardFunction>,
    updater: Updater,
    sampler: BatchSampler,
    plan: TrainingPlan,
    checkpoints: Checkpoints,
    best_by: BestMetric,
    state: State,
    other_data: bool,
    events: Recorder<'a>,
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
        let policy = policy.with_layer_hook(inputs.process_group.on_layer());
        let checkpoints =
            Checkpoints::new(&inputs.settings.output, 1).with_process_group(&inputs.process_group);
        checkpoints.recover()?;
        checkpoints.refuse_any()?;
        check_base(&policy, probe(&inputs.questions), &inputs.process_group)?;
        let reference = match needs_reference(&inputs)? {
            true => Some(policy.frozen_copy()?),
            false => None,
        };
        let optimizer =
            Optimizer::new(inputs.settings.optimizer(), &policy, &inputs.process_group)?;
        let state = State::new(inputs.fingerprint);
        Self::new(inputs, sinks, (policy, reference), optimizer, state)
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
        let Checkpoint { path, state } = checkpoint;
        let checkpoints =
            Checkpoints::new(&inputs.settings.output, 1).with_process_group(&inputs.process_group);
        checkpoints.refuse_later(checkpoint)?;
        let load_options = inputs
            .settings
            .load_options(inputs.base, inputs.activation_bytes)
            .on_device(&inputs.device);
        let policy = M::load(path, &load_options)?;
        check_resumed(&policy, path, probe(&inputs.questions), &inputs.process_group)?;
        let policy = policy.with_layer_hook(inputs.process_group.on_layer());
        let reference = match (needs_reference(&inputs)?, checkpoint.reference()) {
            (false, _) => None,
            (true, Some(folder)) => Some(policy.load_frozen(&folder)?),
            (true, None) => Some(policy.load_frozen(inputs.base)?),
        };
        if let Some(reference) = &reference {
            checkpoints.copy_reference(reference, checkpoint)?;
        }
        let (settings, written) =
            (inputs.settings.optimizer(), (state.optimizer_files, state.optimizer_steps));
        let optimizer = Optimizer::load(settings, &policy, &inputs.process_group, path, written)?;
        Self::new(inputs, sinks, (policy, reference), optimizer, state.clone())
    }

    fn new(
        inputs: GrpoInputs<'a>,
        sinks: Vec<Box<dyn Sink + 'a>>,
        (policy, reference): (M, Option<M>),
        optimizer: Optimizer,
        mut state: State,
    ) -> Result<Self> {
        let GrpoInputs {
            settings,
            settings_text,
            tokenizer,
            questions,
            eval,
            judge,
            stop,
            verify_packing,
            activation_cache,
            process_group,
            device,
            lock,
            ..
        } = inputs;
        let stages = settings.stages().map_err(Error::Settings)?;
        let per_step = settings.questions_per_step();
        let too_few = || Error::TooFew {
            what: "questions",
            given: questions.len(),
            left: questions.len(),
            needed: per_step,
        };
        let sampler =
            BatchSampler::new(questions.len(), per_step, settings.seed).ok_or_else(too_few)?;
        let mut plan = TrainingPlan::new(settings, &stages, sampler.steps_per_epoch())
            .map_err(Error::Settings)?;
        plan.resume(&state.stage_begins);
        let reference = reference.map(|model| Arc::new(ReferenceModel::new(model)));
        let judge = judge.or_else(|| in_process(reference.as_ref(), &tokenizer, &process_group));
        let rewards = RewardFunction::build_all(settings, &stages, judge)?;
        let output = &settings.output;
        let milestones = settings.milestones(sampler.steps_per_epoch());
        let checkpoints =
            Checkpoints::new(output, settings.save_total_limit).with_milestones(milestones);
        let checkpoints = checkpoints.with_process_group(&process_group).with_lock(lock);
        check_best_metric(settings, &stages, &eval)?;
        let best_by = evaluate::best_by(settings);
        let data = questions
            .iter()
            .map(|one| (one.prompt.as_slice(), [].as_slice(), one.question.answer.as_str()));
        let other_data = state.data_changed(fingerprint(data));
        state.cached_layers = activation_cache.map(|activation_cache| activation_cache.layers);
        checkpoints.sweep(state.step)?;
        checkpoints.rotate(&state)?;
        checkpoints.write_settings(settings_text)?;
        Ok(Self {
            settings,
            settings_text,
            tokenizer,
            questions,
            eval,
            stop,
            updater: Updater::new(optimizer),
            bytes_sent: process_group.bytes_sent(),
            policy,
            reference,
            verify_packing,
            activation_cache_options: activation_cache,
            activation_cache: None,
            device,
            peak_flops: None,
            reference_moved: false,
            rewards,
            sampler,
            plan,
            checkpoints,
            best_by,
            other_data,
            events: match process_group.is_rank_zero() {
                true => Recorder::open(output, &state, &settings.report_to, sinks)?,
                false => Recorder::silent(),
            },
            process_group,
            state,
        })
    }
}

/// The prompt that a policy is checked with.
fn probe(questions: &[TokenizedQuestion]) -> &[u32] {
    questions.first().map_or(&[], |question| &question.prompt)
}

#[cfg(test)]
mod tests;
