//! The training loop that GRPO and SFT share: events, evaluations, checkpoints, skipped steps and stopping.
//!
//! A `Trainer` says what a step and an evaluation compute; `train` does the rest, in the same way for all.

pub mod grpo;
mod recording;
pub mod sft;
mod steps;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::Device;
use embodied_r_media::table::ImageTable;
use embodied_r_policy::Trainable;

use crate::checkpoint::finite::{check_base, check_resumed};
use crate::checkpoint::{
    BestCheckpoint, BestMetric, Checkpoint, Checkpoints, Milestones, RunLock, State,
};
use crate::error::Result;
use crate::events::skipped;
use crate::events::{Event, Metrics, RankShares, Recorder, Sink};
use crate::images::RunImages;
use crate::inspect::batch_file::BatchFile;
use crate::model::{ChatTokenizer, LoadOptions, Model};
use crate::non_finite::Diagnosis;
use crate::rollout::Rollout;
use crate::settings::{OptimizerSettings, RunSettings};
use crate::update::Updater;
use crate::update::optimizer::Optimizer;
use embodied_r_dist::ProcessGroup;
pub(crate) use steps::train;

/// Inputs of every run, except model, settings and data.
pub struct RunInputs<'a> {
    /// The settings as text, saved with every checkpoint.
    pub settings_text: &'a str,
    /// Folder of the base model; on resume a reference model is loaded from it.
    pub base: &'a Path,
    /// Fingerprint of the base model.
    pub fingerprint: &'a str,
    /// The tokenizer and its chat template.
    pub tokenizer: Arc<dyn ChatTokenizer>,
    /// Memory budget in bytes for activations saved by the update's forward pass.
    pub activation_bytes: usize,
    /// The device of the model.
    pub device: Device,
    /// The images of the data, for a vision-language model.
    pub images: Option<Arc<RunImages>>,
    /// Set to stop the run. A step that has not changed the parameters yet is abandoned.
    pub stop: &'a AtomicBool,
    /// The lock of the run's folder, on the rank that holds it.
    pub lock: Option<Arc<RunLock>>,
    /// The ranks of data-parallel training.
    pub process_group: ProcessGroup,
}

impl<'a> RunInputs<'a> {
    /// How the run's models are loaded, onto the CPU.
    fn load_options(&self, settings: &RunSettings, trainable: Trainable) -> LoadOptions<'a> {
        LoadOptions {
            base: self.base,
            precision: settings.precision,
            activation_bytes: self.activation_bytes,
            trainable,
            seed: settings.seed,
            device: Device::Cpu,
            images: self.images.clone(),
        }
    }

    /// The base model, on the run's device.
    fn load_base<M: Model>(&self, plan: &RunPlan<'_>) -> Result<M> {
        M::load(self.base, &plan.load_options.clone().on_device(&self.device))
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunOutcome {
    /// All steps are done; the final model is in this folder.
    Finished(PathBuf),
    /// The run was stopped and can be resumed from this checkpoint.
    Stopped(PathBuf),
}

/// What a run is to do: its settings, and what follows from them and the data.
pub(crate) struct RunPlan<'a> {
    pub(crate) settings: &'a RunSettings,
    /// How the run's models are loaded, onto the CPU.
    pub(crate) load_options: LoadOptions<'a>,
    pub(crate) optimizer: OptimizerSettings,
    pub(crate) total_steps: u64,
    pub(crate) save_steps: u64,
    /// Steps whose checkpoints are kept permanently.
    pub(crate) milestones: Option<Milestones>,
    /// The criterion for the best checkpoint.
    pub(crate) best_by: BestMetric,
    /// Fingerprint of the training data.
    pub(crate) data: String,
    /// The prompt that the model is checked with.
    pub(crate) probe: Vec<u32>,
}

/// A model at the start of a run, or as a checkpoint has it.
pub(crate) struct Prepared<M: Model> {
    pub(crate) model: M,
    optimizer: Optimizer,
    pub(crate) state: State,
}

/// What every run keeps from step to step.
pub(crate) struct Run<'a, M: Model> {
    pub(crate) model: M,
    pub(crate) updater: Updater,
    pub(crate) state: State,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) events: Recorder<'a>,
    pub(crate) tokenizer: Arc<dyn ChatTokenizer>,
    pub(crate) device: Device,
    pub(crate) stop: &'a AtomicBool,
    pub(crate) process_group: ProcessGroup,
    plan: RunPlan<'a>,
    settings_text: &'a str,
    /// Whether the data differs from that of the run so far.
    other_data: bool,
    /// The images of the data, if it has any.
    pub(crate) images: Option<Arc<ImageTable>>,
    /// Bytes that this rank had sent at the last reported step.
    bytes_sent: u64,
}

/// Output of one step.
pub(crate) struct StepOutput {
    /// The completions of all ranks; none if the step samples none.
    pub(crate) rollouts: Vec<Rollout>,
    pub(crate) metrics: Metrics,
    pub(crate) ranks: RankShares,
    /// The diagnosis, if the step was skipped.
    pub(crate) skipped: Option<Box<Diagnosis>>,
    pub(crate) tokens: u64,
}

/// What a step and an evaluation compute.
pub(crate) trait Trainer<'a> {
    /// The trained model.
    type Model: Model;

    /// The run.
    fn run(&self) -> &Run<'a, Self::Model>;

    /// As [`Trainer::run`].
    fn run_mut(&mut self) -> &mut Run<'a, Self::Model>;

    /// Epochs after `step` steps.
    fn epoch(&self, step: u64) -> f64;

    /// Reports what is noteworthy about a new run.
    fn begin_run(&mut self) -> Result<()> {
        Ok(())
    }

    /// Prepares the next step.
    fn begin_step(&mut self) -> Result<()> {
        Ok(())
    }

    /// Runs step `step`, from 0; `None` if the user requested a stop, with all parameters unchanged.
    fn step(&mut self, step: u64) -> Result<Option<StepOutput>>;

    /// Observes the completions and metrics of a step, which all ranks share; returns warnings.
    fn observe(&mut self, _rollouts: &[Rollout], _metrics: &Metrics) -> Vec<Event> {
        Vec::new()
    }

    /// Ends a step whose update is complete.
    fn end_step(&mut self) -> Result<()> {
        Ok(())
    }

    /// Whether to evaluate after `step` steps.
    fn evaluation_is_due(&self, step: u64) -> bool;

    /// Evaluates the model; `None` if a stop was requested meanwhile.
    fn evaluate(&mut self) -> Result<Option<Metrics>>;

    /// Adds metrics about the best evaluation so far.
    fn add_best(&self, _best: &BestCheckpoint, _metrics: &mut Metrics) {}

    /// Saves what a checkpoint refers to.
    fn begin_save(&mut self) -> Result<()> {
        Ok(())
    }
}

impl RunPlan<'_> {
    /// The checkpoints in the run's folder.
    fn checkpoints(&self) -> Checkpoints {
        Checkpoints::new(&self.settings.output, self.settings.save_total_limit)
    }
}

impl<'a, M: Model> Run<'a, M> {
    /// Prepares a new run from `model`.
    ///
    /// # Errors
    /// The output folder already contains a run, the model is not finite, or memory is short.
    pub(crate) fn prepare_new(
        model: M,
        inputs: &RunInputs<'_>,
        plan: &RunPlan<'_>,
    ) -> Result<Prepared<M>> {
        let process_group = &inputs.process_group;
        let model = model.with_layer_hook(process_group.on_layer());
        let checkpoints = plan.checkpoints().with_process_group(process_group);
        checkpoints.recover()?;
        checkpoints.refuse_any()?;
        check_base(&model, &plan.probe, process_group)?;
        let optimizer = Optimizer::new(plan.optimizer, &model, process_group)?;
        Ok(Prepared { model, optimizer, state: State::new(inputs.fingerprint) })
    }

    /// Prepares a run from `checkpoint`.
    ///
    /// # Errors
    /// The checkpoint cannot be read or is not finite, the output folder contains later ones, or memory is short.
    pub(crate) fn prepare_resumed(
        checkpoint: &Checkpoint,
        inputs: &RunInputs<'_>,
        plan: &RunPlan<'_>,
    ) -> Result<Prepared<M>> {
        let (Checkpoint { path, state }, process_group) = (checkpoint, &inputs.process_group);
        plan.checkpoints().refuse_later(checkpoint)?;
        let load_options = plan.load_options.clone().on_device(&inputs.device);
        let model = M::load(path, &load_options)?;
        check_resumed(&model, path, &plan.probe, process_group)?;
        let model = model.with_layer_hook(process_group.on_layer());
        let written = (state.optimizer_files, state.optimizer_steps);
        let optimizer = Optimizer::load(plan.optimizer, &model, process_group, path, written)?;
        Ok(Prepared { model, optimizer, state: state.clone() })
    }

    /// Opens the run's folder, without what is later than the state.
    ///
    /// # Errors
    /// A file cannot be written.
    pub(crate) fn open(
        prepared: Prepared<M>,
        inputs: RunInputs<'a>,
        plan: RunPlan<'a>,
        sinks: Vec<Box<dyn Sink + 'a>>,
    ) -> Result<Self> {
        let Prepared { model, optimizer, mut state } = prepared;
        let RunInputs {
            settings_text, tokenizer, device, stop, lock, process_group, images, ..
        } = inputs;
        let checkpoints = plan
            .checkpoints()
            .with_milestones(plan.milestones)
            .with_process_group(&process_group)
            .with_lock(lock);
        let other_data = state.data_changed(plan.data.clone());
        checkpoints.sweep(state.step)?;
        checkpoints.rotate(&state)?;
        checkpoints.write_settings(settings_text)?;
        let events = match process_group.is_rank_zero() {
            true => Recorder::open(&plan.settings.output, &state, &plan.settings.report_to, sinks)?,
            false => Recorder::silent(),
        };
        Ok(Self {
            model,
            updater: Updater::new(optimizer),
            state,
            checkpoints,
            events,
            tokenizer,
            device,
            stop,
            bytes_sent: process_group.bytes_sent(),
            process_group,
            plan,
            settings_text,
            other_data,
            images: images.map(|images| images.table().clone()),
        })
    }

    /// Dumps the batch of step `step` (from 0) on rank 0; returns the path there.
    ///
    /// # Errors
    /// The file cannot be written, or the run's folder was moved.
    pub(crate) fn dump(&self, step: u64, batch: &BatchFile) -> Result<Option<PathBuf>> {
        if !self.process_group.is_rank_zero() {
            return Ok(None);
        }
        // A write by path would make the folder anew.
        self.checkpoints.keep_lock()?;
        skipped::dump(&self.plan.settings.output, step, batch).map(Some)
    }

    /// Whether a stop was requested on any rank.
    pub(crate) fn stopping(&self) -> Result<bool> {
        Ok(self.process_group.any(self.stop.load(Ordering::Relaxed))?)
    }

    fn save_is_due(&self) -> bool {
        let step = self.state.step;
        step.is_multiple_of(self.plan.save_steps) || self.checkpoints.retention().is_milestone(step)
    }

    /// Fails if the model is not finite.
    pub(crate) fn check_finite(&self) -> Result<()> {
        self.checkpoints.check_finite(&self.model, &self.plan.probe)
    }
}

#[cfg(test)]
pub(crate) mod tests;
