//! Group relative policy optimisation, from rollouts to checkpoints.

mod deal;
mod draw;
mod dump;
mod evaluate;
mod figures;
mod reference;
mod run;
mod stages;
mod step;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use candle_core::Device;
use embodied_r_rewards::Judge;

use crate::checkpoint::{BestBy, Checkpoint, Checkpoints, State};
use crate::error::{Error, Result};
use crate::events::{Recorder, Sink};
use crate::fingerprint::fingerprint;
use crate::judge::Reference;
use crate::model::{Model, TapeOptions, Text};
use crate::optimizer::Optimizer;
use crate::plan::Plan;
use crate::questions::Prompted;
use crate::sampler::Sampler;
use crate::scoring::Asked;
use crate::settings::Train;
use crate::team::Team;
use crate::update::Updater;
use deal::ExpectedLengths;
use reference::{in_process, needs_reference};

/// What a run is given, beside its model.
pub struct Job<'a> {
    /// The settings; their faults are found before.
    pub settings: &'a Train,
    /// The settings as they are written beside every checkpoint.
    pub settings_text: &'a str,
    /// Folder of the model that the run began with, from which the reference is read on resume.
    pub base: &'a Path,
    /// Fingerprint of the model that the run begins with, or began with.
    pub fingerprint: &'a str,
    /// Text in and out of tokens.
    pub text: Arc<dyn Text>,
    /// Questions to train on.
    pub questions: Vec<Prompted>,
    /// Questions to evaluate on; none for no evaluation.
    pub eval: Vec<Prompted>,
    /// An outside judge; without it the frozen reference is asked.
    pub judge: Option<Box<dyn Judge>>,
    /// Bytes that a backward may keep of what its forward computed.
    pub activation_bytes: usize,
    /// Where the model computes.
    pub device: Device,
    /// What the update takes over of the forward that its rollout has computed, in layers as many as the run began
    /// with; its bits depend on it.
    pub tape: Option<TapeOptions>,
    /// Whether the first step's gradients are compared with those of every completion by itself.
    pub verify_packing: bool,
    /// Set by whoever wants the run to stop.
    pub stop: &'a AtomicBool,
    /// The ranks that train together.
    pub team: Team,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All steps are done; the model is in this folder.
    Finished(PathBuf),
    /// The run was stopped, and can go on from this checkpoint.
    Stopped(PathBuf),
}

/// A run of group relative policy optimisation.
pub struct Trainer<'a, M: Model> {
    settings: &'a Train,
    settings_text: &'a str,
    text: Arc<dyn Text>,
    questions: Vec<Prompted>,
    eval: Vec<Prompted>,
    stop: &'a AtomicBool,
    team: Team,
    /// What questions will cost.
    lengths: ExpectedLengths,
    policy: M,
    reference: Option<Arc<Reference<M>>>,
    /// Whether the next step's gradients are to be compared with those of every completion by itself.
    verify_packing: bool,
    /// How much of its rollouts is kept for their updates.
    tape_options: Option<TapeOptions>,
    /// From one step to the next.
    tape: Option<M::Tape>,
    /// The measured peak of f32 in operations a second; none before the first step.
    peak_flops: Option<f64>,
    /// Bytes that this rank had sent when a step was told the last time.
    bytes_sent: u64,
    /// Whether the reference is another than on disk.
    reference_moved: bool,
    rewards: Vec<Asked>,
    updater: Updater,
    sampler: Sampler,
    plan: Plan,
    checkpoints: Checkpoints,
    best_by: BestBy,
    state: State,
    other_data: bool,
    events: Recorder<'a>,
}

impl<'a, M: Model + 'static> Trainer<'a, M> {
    /// A run that begins with `policy`.
    ///
    /// # Errors
    /// The output folder holds a run already, there are too few questions, the settings do not fit
    /// them, or memory is short.
    pub fn start(policy: M, job: Job<'a>, sinks: Vec<Box<dyn Sink + 'a>>) -> Result<Self> {
        let policy = policy.with_on_layer(job.team.on_layer());
        let checkpoints = Checkpoints::new(&job.settings.output, 1).of_team(&job.team);
        checkpoints.recover()?;
        checkpoints.refuse_any()?;
        let reference = match needs_reference(&job)? {
            true => Some(policy.frozen_copy()?),
            false => None,
        };
        let optimizer = Optimizer::new(job.settings.optimizer(), &policy, &job.team)?;
        let state = State::new(job.fingerprint);
        Self::new(job, sinks, (policy, reference), optimizer, state)
    }

    /// A run that goes on from `checkpoint`, as if it had never stopped.
    ///
    /// # Errors
    /// As [`Trainer::start`]; the checkpoint cannot be read, or there are later ones that it would
    /// contradict.
    pub fn resume(
        checkpoint: &Checkpoint,
        job: Job<'a>,
        sinks: Vec<Box<dyn Sink + 'a>>,
    ) -> Result<Self> {
        let Checkpoint { path, state } = checkpoint;
        let checkpoints = Checkpoints::new(&job.settings.output, 1).of_team(&job.team);
        checkpoints.refuse_later(checkpoint)?;
        let loading = job.settings.loading(job.base, job.activation_bytes).on(&job.device);
        let policy = M::load(path, &loading)?;
        let policy = policy.with_on_layer(job.team.on_layer());
        let reference = match (needs_reference(&job)?, checkpoint.reference()) {
            (false, _) => None,
            (true, Some(folder)) => Some(policy.load_frozen(&folder)?),
            (true, None) => Some(policy.load_frozen(job.base)?),
        };
        if let Some(reference) = &reference {
            checkpoints.take_reference(reference, checkpoint)?;
        }
        let (settings, written) =
            (job.settings.optimizer(), (state.optimizer_files, state.optimizer_steps));
        let optimizer = Optimizer::load(settings, &policy, &job.team, path, written)?;
        Self::new(job, sinks, (policy, reference), optimizer, state.clone())
    }

    fn new(
        job: Job<'a>,
        sinks: Vec<Box<dyn Sink + 'a>>,
        (policy, reference): (M, Option<M>),
        optimizer: Optimizer,
        mut state: State,
    ) -> Result<Self> {
        let Job {
            settings,
            settings_text,
            text,
            questions,
            eval,
            judge,
            stop,
            verify_packing,
            tape,
            team,
            ..
        } = job;
        let stages = settings.stages().map_err(Error::Settings)?;
        let per_step = settings.questions_per_step();
        let too_few = || Error::TooFew {
            what: "questions",
            given: questions.len(),
            left: questions.len(),
            needed: per_step,
        };
        let sampler = Sampler::new(questions.len(), per_step, settings.seed).ok_or_else(too_few)?;
        let mut plan =
            Plan::new(settings, &stages, sampler.steps_per_epoch()).map_err(Error::Settings)?;
        plan.resume(&state.stage_begins);
        let reference = reference.map(|model| Arc::new(Reference::new(model)));
        let judge = judge.or_else(|| in_process(reference.as_ref(), &text, &team));
        let rewards = Asked::of(settings, &stages, judge)?;
        let output = &settings.output;
        let milestones = settings.milestones(sampler.steps_per_epoch());
        let checkpoints =
            Checkpoints::new(output, settings.save_total_limit).with_milestones(milestones);
        let checkpoints = checkpoints.of_team(&team);
        let best_by = evaluate::best_by(settings, &eval)?;
        let data = questions
            .iter()
            .map(|asked| (asked.prompt.as_slice(), [].as_slice(), asked.question.answer.as_str()));
        let other_data = state.learns_from_others(fingerprint(data));
        state.taped_layers = tape.map(|tape| tape.layers);
        checkpoints.sweep(state.step)?;
        checkpoints.rotate(&state)?;
        checkpoints.write_settings(settings_text)?;
        Ok(Self {
            settings,
            settings_text,
            text,
            questions,
            eval,
            stop,
            lengths: ExpectedLengths::new(settings.max_completion_length),
            updater: Updater::new(optimizer),
            bytes_sent: team.bytes_sent(),
            policy,
            reference,
            verify_packing,
            tape_options: tape,
            tape: None,
            peak_flops: None,
            reference_moved: false,
            rewards,
            sampler,
            plan,
            checkpoints,
            best_by,
            other_data,
            events: match team.is_first() {
                true => Recorder::open(output, &state, &settings.report_to, sinks)?,
                false => Recorder::silent(),
            },
            team,
            state,
        })
    }
}

#[cfg(test)]
mod tests;
