//! Supervised fine-tuning on conversations, with checkpoints.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use candle_core::Device;

use crate::batch_file::{BatchFile, FileCompletion, FileGroup};
use crate::checkpoint::{self, BestBy, Checkpoint, Checkpoints, State};
use crate::error::{Error, Result};
use crate::events::{BYTES_SENT, Event, Recorder, Sink, finite, now_s};
use crate::fingerprint::fingerprint;
use crate::model::{Model, Text};
use crate::optimizer::Optimizer;
use crate::random::stream;
use crate::sampler::Sampler;
use crate::schedule::{Schedule, warmup_steps};
use crate::settings::Sft;
use crate::skipped::{self, Diagnosis, non_finite_weights};
use crate::supervised::{Example, Learned, learn, mean_loss};
use crate::team::Team;
use crate::trainer::Outcome;
use crate::update::{Pace, Updater};

/// The metric by which the best checkpoint is kept: lower is better.
const BEST_METRIC: &str = "eval/loss";

/// What a run is given, beside its model.
pub struct Job<'a> {
    /// The settings; their faults are found before.
    pub settings: &'a Sft,
    /// The settings as they are written beside every checkpoint.
    pub settings_text: &'a str,
    /// Folder of the model that the run begins with, or began with.
    pub base: &'a Path,
    /// Fingerprint of the model that the run begins with, or began with.
    pub fingerprint: &'a str,
    /// Text in and out of tokens.
    pub text: Arc<dyn Text>,
    /// Replies to learn.
    pub examples: Vec<Example>,
    /// Replies to validate on after every epoch; none for no validation.
    pub eval: Vec<Example>,
    /// Bytes that a backward may keep of what its forward computed.
    pub activation_bytes: usize,
    /// Where the model computes.
    pub device: Device,
    /// Set by whoever wants the run to stop.
    pub stop: &'a AtomicBool,
    /// The ranks that train together.
    pub team: Team,
}

/// A supervised run.
pub struct Trainer<'a, M: Model> {
    job: Job<'a>,
    model: M,
    updater: Updater,
    sampler: Sampler,
    schedule: Schedule,
    checkpoints: Checkpoints,
    state: State,
    other_data: bool,
    /// Bytes that this rank had sent when a step was told the last time.
    bytes_sent: u64,
    events: Recorder<'a>,
}

impl<'a, M: Model> Trainer<'a, M> {
    /// A run that begins with `model`.
    ///
    /// # Errors
    /// The output folder holds a run already, there are too few replies, or memory is short.
    pub fn start(model: M, job: Job<'a>, sinks: Vec<Box<dyn Sink + 'a>>) -> Result<Self> {
        let model = model.with_on_layer(job.team.on_layer());
        let checkpoints = Checkpoints::new(&job.settings.output, job.settings.save_total_limit);
        let checkpoints = checkpoints.of_team(&job.team);
        checkpoints.recover()?;
        checkpoints.refuse_any()?;
        let optimizer = Optimizer::new(job.settings.optimizer(), &model, &job.team)?;
        let state = State::new(job.fingerprint);
        Self::new(model, optimizer, state, job, sinks)
    }

    /// A run that goes on from `checkpoint`, as if it had never stopped.
    ///
    /// # Errors
    /// As [`Trainer::start`]; the checkpoint cannot be read, or there are later ones.
    pub fn resume(
        checkpoint: &Checkpoint,
        job: Job<'a>,
        sinks: Vec<Box<dyn Sink + 'a>>,
    ) -> Result<Self> {
        let Checkpoint { path, state } = checkpoint;
        Checkpoints::new(&job.settings.output, 1).refuse_later(checkpoint)?;
        let loading = job.settings.loading(job.base, job.activation_bytes).on(&job.device);
        let model = M::load(path, &loading)?;
        let model = model.with_on_layer(job.team.on_layer());
        let (settings, written) =
            (job.settings.optimizer(), (state.optimizer_files, state.optimizer_steps));
        let optimizer = Optimizer::load(settings, &model, &job.team, path, written)?;
        Self::new(model, optimizer, state.clone(), job, sinks)
    }

    fn new(
        model: M,
        optimizer: Optimizer,
        mut state: State,
        job: Job<'a>,
        sinks: Vec<Box<dyn Sink + 'a>>,
    ) -> Result<Self> {
        let settings = job.settings;
        let (given, needed) = (job.examples.len(), settings.train_batch_size);
        let sampler = Sampler::new(given, needed, settings.seed);
        let sampler =
            sampler.ok_or(Error::TooFew { what: "replies", given, left: given, needed })?;
        let total_steps = sampler.steps_per_epoch() * settings.num_train_epochs;
        let output: &Path = &settings.output;
        let milestones = settings.milestones(sampler.steps_per_epoch());
        let checkpoints =
            Checkpoints::new(output, settings.save_total_limit).with_milestones(milestones);
        let checkpoints = checkpoints.of_team(&job.team);
        let data = job
            .examples
            .iter()
            .map(|example| (example.prompt.as_slice(), example.completion.as_slice(), ""));
        let other_data = state.learns_from_others(fingerprint(data));
        checkpoints.sweep(state.step)?;
        checkpoints.rotate(&state)?;
        checkpoints.write_settings(job.settings_text)?;
        Ok(Self {
            updater: Updater::new(optimizer),
            bytes_sent: job.team.bytes_sent(),
            schedule: Schedule {
                kind: settings.lr_scheduler_type,
                peak: settings.learning_rate,
                warmup_steps: warmup_steps(
                    settings.warmup_steps,
                    settings.warmup_ratio,
                    total_steps,
                ),
                total_steps,
            },
            checkpoints,
            other_data,
            events: match job.team.is_first() {
                true => Recorder::open(output, &state, &settings.report_to, sinks)?,
                false => Recorder::silent(),
            },
            model,
            sampler,
            state,
            job,
        })
    }

    /// Runs until all steps are done or the user wants to stop; in both cases a checkpoint is
    /// written at the end.
    ///
    /// # Errors
    /// Any part fails; what the last checkpoint holds is safe.
    pub fn run(mut self) -> Result<Outcome> {
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
            self.job.team.enter("update");
            let step = self.state.step;
            let examples: Vec<&Example> =
                self.sampler.batch(step).into_iter().map(|i| &self.job.examples[i]).collect();
            let (lr, budget) = (self.schedule.at(step), self.job.settings.max_tokens_per_batch);
            let stop = self.job.stop;
            let clock = Instant::now();
            let pace = Pace {
                temperature: 1.0,
                learning_rate: lr,
                noise: stream(&[self.job.settings.seed, step]),
            };
            let learned = learn(&self.model, &mut self.updater, &examples, budget, pace, stop)?;
            let Some(learned) = learned else { break };
            let step_s = clock.elapsed().as_secs_f64();
            let left = began.elapsed().as_secs_f64() / (step + 1 - done) as f64
                * (total - step - 1) as f64;
            let left_out = match learned.taken {
                true => None,
                false => Some(Box::new(left_out(&self.job, &self.updater, &examples, step, lr)?)),
            };
            self.account(&learned, left_out, lr, step_s, left)?;
            let best = self.validate_if_due()?;
            if (best || self.save_is_due()) && self.is_good()? {
                self.save()?;
                saved = Some(self.state.step);
            }
        }
        if saved != Some(self.state.step) {
            self.save()?;
        }
        if self.state.step < total {
            return Ok(Outcome::Stopped(self.checkpoints.path(self.state.step)));
        }
        let folder = self.checkpoints.save_final(&self.model, self.job.text.as_ref())?;
        self.events.emit(&Event::End { step: total })?;
        Ok(Outcome::Finished(folder))
    }

    /// Whether the user wants to stop, on whichever rank.
    fn stopping(&self) -> Result<bool> {
        self.job.team.any(self.job.stop.load(Ordering::Relaxed))
    }

    fn epoch(&self) -> f64 {
        self.state.step as f64 / self.sampler.steps_per_epoch() as f64
    }

    fn account(
        &mut self,
        learned: &Learned,
        left_out: Option<Box<Diagnosis>>,
        lr: f64,
        step_s: f64,
        left: f64,
    ) -> Result<()> {
        self.state.step += 1;
        self.state.num_tokens += learned.tokens;
        self.state.count_skipped(left_out.is_some());
        let mut metrics = finite([
            ("loss", learned.loss),
            ("entropy", learned.entropy),
            ("grad_norm", learned.grad_norm),
            ("learning_rate", lr),
            ("num_tokens", self.state.num_tokens as f64),
            ("skipped_steps", self.state.skipped_steps as f64),
            ("step_time", step_s),
            ("tokens_per_second", learned.tokens as f64 / step_s.max(1e-9)),
            ("time_left_s", left),
        ]);
        if self.job.team.size() > 1 {
            let before = std::mem::replace(&mut self.bytes_sent, self.job.team.bytes_sent());
            metrics.insert(BYTES_SENT.into(), (self.bytes_sent - before) as f64);
        }
        let (step, epoch) = (self.state.step, self.epoch());
        let (events, output) = (&mut self.events, &self.job.settings.output);
        let tell = || {
            if let Some(diagnosis) = &left_out {
                events.emit(&Event::skipped(step, output, diagnosis))?;
            }
            events.emit(&Event::Step { step, epoch, time_s: now_s(), metrics })
        };
        // Writing needs no weights: they go round meanwhile.
        self.updater.optimizer.hand_round(&self.model, tell)??;
        let most = self.job.settings.max_skipped_steps;
        match left_out.filter(|_| self.state.skipped_in_a_row >= most) {
            Some(diagnosis) => Err(self.give_up(diagnosis)?),
            None => Ok(()),
        }
    }

    /// Saves the last good state, if this is one; gives what ends the run.
    fn give_up(&mut self, mut diagnosis: Box<Diagnosis>) -> Result<Error> {
        // Whoever goes on from here begins to count anew.
        let steps = std::mem::take(&mut self.state.skipped_in_a_row);
        diagnosis.weights = non_finite_weights(&self.model)?;
        if diagnosis.weights.is_empty() {
            self.save()?;
        }
        let last = self.checkpoints.steps()?.last().copied();
        diagnosis.checkpoint = last.map(|step| self.checkpoints.path(step));
        Ok(Error::NotFinite { steps, diagnosis })
    }

    /// Whether the model may be saved: after a step that was left out its weights could be what is
    /// not finite, and would take the place of good ones.
    fn is_good(&self) -> Result<bool> {
        Ok(self.state.skipped_in_a_row == 0 || non_finite_weights(&self.model)?.is_empty())
    }

    /// Validates at the beginning and after every epoch; says whether the result is the best so far.
    fn validate_if_due(&mut self) -> Result<bool> {
        let step = self.state.step;
        let due = step.is_multiple_of(self.sampler.steps_per_epoch());
        if self.job.eval.is_empty() || !due || self.state.evaluated == Some(step) {
            return Ok(false);
        }
        let examples: Vec<&Example> = self.job.eval.iter().collect();
        self.job.team.enter("evaluation");
        let (budget, team) = (self.job.settings.max_tokens_per_batch, &self.job.team);
        let loss = mean_loss(&self.model, &examples, budget, team)?;
        self.state.evaluated = Some(step);
        let by = BestBy::new(BEST_METRIC, None);
        let better = by.take(&mut self.state.best, Some(loss), step);
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
        let every = self.job.settings.save_steps.unwrap_or(self.sampler.steps_per_epoch());
        let step = self.state.step;
        step.is_multiple_of(every) || self.checkpoints.keep().milestone_at(step)
    }

    fn save(&mut self) -> Result<()> {
        let step = self.state.step;
        self.events.emit(&Event::Checkpoint { step, folder: checkpoint::name(step) })?;
        self.job.team.enter("checkpoint");
        self.state.optimizer_steps = self.updater.optimizer.steps();
        self.state.optimizer_files = self.updater.optimizer.files();
        self.events.mark(&mut self.state)?;
        let text = self.job.text.as_ref();
        let optimizer = &self.updater.optimizer;
        let settings = self.job.settings_text;
        self.checkpoints.save(&self.model, text, optimizer, &self.state, settings).map(|_| ())
    }
}

/// Writes down the batch of a step that had to be left out, and tells what was not finite in it.
///
/// A reply that is learnt is a completion of advantage 1.
fn left_out(
    job: &Job<'_>,
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
        found: updater.found().clone(),
        learning_rate,
        grad_norms: updater.norms(),
        dump: match job.team.is_first() {
            true => Some(skipped::dump(&job.settings.output, step, &batch)?),
            false => None,
        },
        ..Diagnosis::default()
    })
}

#[cfg(test)]
mod tests;
