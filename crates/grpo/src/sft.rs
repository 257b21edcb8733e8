//! Supervised fine-tuning on conversations, with checkpoints.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use candle_core::Device;

use crate::batch_file::{BatchFile, FileCompletion, FileGroup};
use crate::checkpoint::{self, BestMetric, Checkpoint, Checkpoints, RunLock, State};
use crate::error::{Error, Result};
use crate::events::{BYTES_SENT, Event, RankShares, Recorder, Sink, finite, now_s};
use crate::fingerprint::fingerprint;
use crate::finite::{check_base, check_resumed, non_finite};
use crate::model::{ChatTokenizer, Model};
use crate::optimizer::Optimizer;
use crate::process_group::ProcessGroup;
use crate::random::stream;
use crate::sampler::BatchSampler;
use crate::schedule::LrSchedule;
use crate::settings::SftSettings;
use crate::skipped::{self, Diagnosis};
use crate::supervised::{Example, SupervisedStats, mean_loss, train_step};
use crate::trainer::RunOutcome;
use crate::update::{StepParams, Updater};

/// Metric of the best checkpoint; lower is better.
const BEST_METRIC: &str = "eval/loss";

/// Inputs of a run, except its model.
pub struct SftInputs<'a> {
    /// The settings, already validated.
    pub settings: &'a SftSettings,
    /// The settings as text, saved with every checkpoint.
    pub settings_text: &'a str,
    /// Folder of the base model.
    pub base: &'a Path,
    /// Fingerprint of the base model.
    pub fingerprint: &'a str,
    /// The tokenizer and its chat template.
    pub tokenizer: Arc<dyn ChatTokenizer>,
    /// Training examples.
    pub examples: Vec<Example>,
    /// Validation examples, evaluated after every epoch; empty for no validation.
    pub eval: Vec<Example>,
    /// Memory budget in bytes for activations saved by the forward pass.
    pub activation_bytes: usize,
    /// The device of the model.
    pub device: Device,
    /// Set to stop the run. A step that has not changed the parameters yet is abandoned.
    pub stop: &'a AtomicBool,
    /// The lock of the run's folder, on the rank that holds it.
    pub lock: Option<Arc<RunLock>>,
    /// The ranks of data-parallel training.
    pub process_group: ProcessGroup,
}

/// A supervised fine-tuning run.
pub struct SftTrainer<'a, M: Model> {
    inputs: SftInputs<'a>,
    model: M,
    updater: Updater,
    sampler: BatchSampler,
    schedule: LrSchedule,
    checkpoints: Checkpoints,
    state: State,
    other_data: bool,
    /// Bytes that this rank had sent at the last reported step.
    bytes_sent: u64,
    events: Recorder<'a>,
}

impl<'a, M: Model> SftTrainer<'a, M> {
    /// Starts a new run from `model`.
    ///
    /// # Errors
    /// The output folder already contains a run, there are too few examples, or memory is short.
    pub fn start(model: M, inputs: SftInputs<'a>, sinks: Vec<Box<dyn Sink + 'a>>) -> Result<Self> {
        let model = model.with_layer_hook(inputs.process_group.on_layer());
        let checkpoints =
            Checkpoints::new(&inputs.settings.output, inputs.settings.save_total_limit);
        let checkpoints = checkpoints.with_process_group(&inputs.process_group);
        checkpoints.recover()?;
        checkpoints.refuse_any()?;
        check_base(&model, probe(&inputs.examples), &inputs.process_group)?;
        let optimizer = Optimizer::new(inputs.settings.optimizer(), &model, &inputs.process_group)?;
        let state = State::new(inputs.fingerprint);
        Self::new(model, optimizer, state, inputs, sinks)
    }

    /// Resumes a run from `checkpoint`; the result is that of an uninterrupted run.
    ///
    /// # Errors
    /// As [`SftTrainer::start`]; the checkpoint cannot be read, or there are later ones.
    pub fn resume(
        checkpoint: &Checkpoint,
        inputs: SftInputs<'a>,
        sinks: Vec<Box<dyn Sink + 'a>>,
    ) -> Result<Self> {
        let Checkpoint { path, state } = checkpoint;
        Checkpoints::new(&inputs.settings.output, 1).refuse_later(checkpoint)?;
        let load_options = inputs
            .settings
            .load_options(inputs.base, inputs.activation_bytes)
            .on_device(&inputs.device);
        let model = M::load(path, &load_options)?;
        check_resumed(&model, path, probe(&inputs.examples), &inputs.process_group)?;
        let model = model.with_layer_hook(inputs.process_group.on_layer());
        let (settings, written) =
            (inputs.settings.optimizer(), (state.optimizer_files, state.optimizer_steps));
        let optimizer = Optimizer::load(settings, &model, &inputs.process_group, path, written)?;
        Self::new(model, optimizer, state.clone(), inputs, sinks)
    }

    fn new(
        model: M,
        optimizer: Optimizer,
        mut state: State,
        inputs: SftInputs<'a>,
        sinks: Vec<Box<dyn Sink + 'a>>,
    ) -> Result<Self> {
        let settings = inputs.settings;
        let (given, needed) = (inputs.examples.len(), settings.train_batch_size);
        let sampler = BatchSampler::new(given, needed, settings.seed);
        let sampler =
            sampler.ok_or(Error::TooFew { what: "examples", given, left: given, needed })?;
        let total_steps = settings.total_steps(sampler.steps_per_epoch());
        let total_steps = total_steps.map_err(|fault| Error::Settings(vec![fault]))?;
        let output: &Path = &settings.output;
        let milestones = settings.milestones(sampler.steps_per_epoch());
        let checkpoints =
            Checkpoints::new(output, settings.save_total_limit).with_milestones(milestones);
        let checkpoints = checkpoints.with_process_group(&inputs.process_group);
        let checkpoints = checkpoints.with_lock(inputs.lock.clone());
        let data = inputs
            .examples
            .iter()
            .map(|example| (example.prompt.as_slice(), example.completion.as_slice(), ""));
        let other_data = state.data_changed(fingerprint(data));
        checkpoints.sweep(state.step)?;
        checkpoints.rotate(&state)?;
        checkpoints.write_settings(inputs.settings_text)?;
        Ok(Self {
            updater: Updater::new(optimizer),
            bytes_sent: inputs.process_group.bytes_sent(),
            schedule: LrSchedule {
                kind: settings.lr_scheduler_type,
                peak: settings.learning_rate,
                warmup_steps: settings.lr_scheduler_type.warmup_steps(
                    settings.warmup_steps,
                    settings.warmup_ratio,
                    total_steps,
                ),
                total_steps,
            },
            checkpoints,
            other_data,
            events: match inputs.process_group.is_rank_zero() {
                true => Recorder::open(output, &state, &settings.report_to, sinks)?,
                false => Recorder::silent(),
            },
            model,
            sampler,
            state,
            inputs,
        })
    }

    /// Trains until all steps are done or the user requests a stop; either way a final checkpoint is written.
    ///
    /// # Errors
    /// Any part fails; the last checkpoint remains usable.
    pub fn run(self) -> Result<RunOutcome> {
        let checkpoints = self.checkpoints.clone();
        // A folder that is moved during the run causes errors of all kinds.
        self.train().map_err(|error| checkpoints.keep_lock().err().unwrap_or(error))
    }

    fn train(mut self) -> Result<RunOutcome> {
        let (done, total) = (self.state.step, self.schedule.total_steps);
        self.events.emit(&Event::Start { steps: total, done })?;
        if self.other_data {
            self.events.emit(&Event::other_data(done))?;
        }
        let began = Instant::now();
        let mut saved = (done > 0).then_some(done);
        if self.validate_if_due()? {
            self.save()?;
            saved = Some(done);
        }
        while self.state.step < total && !self.stopping()? {
            self.inputs.process_group.enter("update");
            let step = self.state.step;
            let examples: Vec<&Example> =
                self.sampler.batch(step).into_iter().map(|i| &self.inputs.examples[i]).collect();
            let (lr, budget) = (self.schedule.at(step), self.inputs.settings.max_tokens_per_batch);
            let stop = self.inputs.stop;
            let clock = Instant::now();
            let params = StepParams {
                temperature: 1.0,
                learning_rate: lr,
                dropout_seed: stream(&[self.inputs.settings.seed, step]),
            };
            let stats =
                train_step(&self.model, &mut self.updater, &examples, budget, params, stop)?;
            let Some(stats) = stats else { break };
            let step_s = clock.elapsed().as_secs_f64();
            let left = began.elapsed().as_secs_f64() / (step + 1 - done) as f64
                * (total - step - 1) as f64;
            let skipped_step = match stats.taken {
                true => None,
                false => {
                    Some(Box::new(diagnose_skip(&self.inputs, &self.updater, &examples, step, lr)?))
                }
            };
            self.record_step(&stats, skipped_step, lr, step_s, left)?;
            let best = self.validate_if_due()?;
            if best || self.save_is_due() {
                self.save()?;
                saved = Some(self.state.step);
            }
        }
        if saved != Some(self.state.step) {
            self.save()?;
        }
        if self.state.step < total {
            return Ok(RunOutcome::Stopped(self.checkpoints.path(self.state.step)));
        }
        self.checkpoints.check_finite(&self.model, probe(&self.inputs.examples))?;
        let folder = self.checkpoints.save_final(&self.model, self.inputs.tokenizer.as_ref())?;
        self.events.emit(&Event::End { step: total })?;
        Ok(RunOutcome::Finished(folder))
    }

    /// Whether a stop was requested on any rank.
    fn stopping(&self) -> Result<bool> {
        self.inputs.process_group.any(self.inputs.stop.load(Ordering::Relaxed))
    }

    fn epoch(&self) -> f64 {
        self.state.step as f64 / self.sampler.steps_per_epoch() as f64
    }

    fn record_step(
        &mut self,
        stats: &SupervisedStats,
        skipped_step: Option<Box<Diagnosis>>,
        lr: f64,
        step_s: f64,
        left: f64,
    ) -> Result<()> {
        self.checkpoints.keep_lock()?;
        self.state.step += 1;
        self.state.num_tokens += stats.tokens;
        self.state.count_skipped(skipped_step.is_some());
        let mut metrics = finite([
            ("loss", stats.loss),
            ("entropy", stats.entropy),
            ("grad_norm", stats.grad_norm),
            ("learning_rate", lr),
            ("num_tokens", self.state.num_tokens as f64),
            ("skipped_steps", self.state.skipped_steps as f64),
            ("step_time", step_s),
            ("tokens_per_second", stats.tokens as f64 / step_s.max(1e-9)),
            ("time_left_s", left),
        ]);
        if self.inputs.process_group.world_size() > 1 {
            let before =
                std::mem::replace(&mut self.bytes_sent, self.inputs.process_group.bytes_sent());
            metrics.insert(BYTES_SENT.into(), (self.bytes_sent - before) as f64);
        }
        let (step, epoch) = (self.state.step, self.epoch());
        let (events, output) = (&mut self.events, &self.inputs.settings.output);
        let report = || {
            if let Some(diagnosis) = &skipped_step {
                events.emit(&Event::skipped(step, output, diagnosis))?;
            }
            events.emit(&Event::Step {
                step,
                epoch,
                time_s: now_s(),
                ranks: RankShares::default(),
                metrics,
            })
        };
        // Reporting needs no weights, so it overlaps with their all-gather.
        self.updater.optimizer.all_gather_weights(&self.model, report)??;
        match skipped_step {
            Some(diagnosis) => self.go_on_after_skip(diagnosis),
            None => Ok(()),
        }
    }

    /// As in [`crate::trainer::GrpoTrainer`]: aborts after too many skipped steps, or if the model is not finite.
    fn go_on_after_skip(&mut self, mut diagnosis: Box<Diagnosis>) -> Result<()> {
        let (prompt, process_group) = (probe(&self.inputs.examples), &self.inputs.process_group);
        let found = non_finite(&self.model, prompt, process_group)?;
        let limit = self.inputs.settings.max_skipped_steps;
        if found.is_none() && self.state.skipped_in_a_row < limit {
            return Ok(());
        }
        // A resumed run restarts the count.
        let steps = std::mem::take(&mut self.state.skipped_in_a_row);
        match found {
            Some(found) => diagnosis.weights = found.weights,
            None => self.save()?,
        }
        diagnosis.checkpoint = self.checkpoints.last_path();
        Err(Error::NotFinite { steps, diagnosis })
    }

    /// Validates before the first step and after every epoch; returns whether the result is the best so far.
    fn validate_if_due(&mut self) -> Result<bool> {
        let step = self.state.step;
        let due = step.is_multiple_of(self.sampler.steps_per_epoch());
        if self.inputs.eval.is_empty() || !due || self.state.evaluated == Some(step) {
            return Ok(false);
        }
        let examples: Vec<&Example> = self.inputs.eval.iter().collect();
        self.inputs.process_group.enter("evaluation");
        let (budget, process_group) =
            (self.inputs.settings.max_tokens_per_batch, &self.inputs.process_group);
        let loss = mean_loss(&self.model, &examples, budget, process_group)?;
        self.state.evaluated = Some(step);
        let by = BestMetric::new(BEST_METRIC, None);
        let better = by.update(&mut self.state.best, Some(loss), step);
        let best = self.state.best.as_ref().map_or(loss, |best| best.value);
        let since = self.state.best.as_ref().map_or(0, |best| step - best.step);
        let metrics = finite([
            (BEST_METRIC, loss),
            ("eval/best_loss", best),
            ("eval/epochs_since_best", since as f64 / self.sampler.steps_per_epoch() as f64),
        ]);
        let epoch = self.epoch();
        self.events.emit(&Event::Eval { step, epoch, time_s: now_s(), metrics })?;
        Ok(better && step > 0)
    }

    fn save_is_due(&self) -> bool {
        let every = self.inputs.settings.save_steps.unwrap_or(self.sampler.steps_per_epoch());
        let step = self.state.step;
        step.is_multiple_of(every) || self.checkpoints.retention().is_milestone(step)
    }

    /// Writes a checkpoint, unless the model is not finite, which ends the run.
    fn save(&mut self) -> Result<()> {
        self.checkpoints.check_finite(&self.model, probe(&self.inputs.examples))?;
        let step = self.state.step;
        self.events.emit(&Event::Checkpoint { step, folder: checkpoint::name(step) })?;
        self.inputs.process_group.enter("checkpoint");
        self.state.optimizer_steps = self.updater.optimizer.steps();
        self.state.optimizer_files = self.updater.optimizer.files();
        self.events.mark(&mut self.state)?;
        let text = self.inputs.tokenizer.as_ref();
        let optimizer = &self.updater.optimizer;
        let settings = self.inputs.settings_text;
        self.checkpoints.save(&self.model, text, optimizer, &self.state, settings).map(|_| ())
    }
}

/// The prompt that the model is checked with.
fn probe(examples: &[Example]) -> &[u32] {
    examples.first().map_or(&[], |example| &example.prompt)
}

/// Dumps the batch of a skipped step and diagnoses what was non-finite.
///
/// An example is a completion of advantage 1.
fn diagnose_skip(
    inputs: &SftInputs<'_>,
    updater: &Updater,
    examples: &[&Example],
    step: u64,
    learning_rate: f64,
) -> Result<Diagnosis> {
    let group = |example: &&Example| FileGroup {
        prompt_ids: example.prompt.clone(),
        completions: vec![FileCompletion {
            ids: example.completion.clone(),
            advantage: 1.0,
            ..FileCompletion::default()
        }],
    };
    let batch = BatchFile { groups: examples.iter().map(group).collect(), settings: None };
    Ok(Diagnosis {
        found: updater.non_finite().clone(),
        learning_rate,
        grad_norms: updater.grad_norms(),
        dump: match inputs.process_group.is_rank_zero() {
            true => Some(skipped::dump(&inputs.settings.output, step, &batch)?),
            false => None,
        },
        ..Diagnosis::default()
    })
}

#[cfg(test)]
mod tests;
