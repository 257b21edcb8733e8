//! Group relative policy optimisation, from rollouts to checkpoints.

mod dump;
mod evaluate;
mod figures;
mod run;
mod step;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use embodied_r_rewards::{Judge, Schedule as Stages};

use crate::checkpoint::{BestBy, Checkpoint, Checkpoints, State, sweep};
use crate::error::{Error, Result};
use crate::events::{Recorder, Sink};
use crate::fingerprint::fingerprint;
use crate::judge::{Reference, ReferenceJudge};
use crate::model::{Model, Text};
use crate::optimizer::Optimizer;
use crate::plan::Plan;
use crate::questions::Prompted;
use crate::rollout::{Asked, needs_judge};
use crate::sampler::Sampler;
use crate::settings::{JudgeKind, Train};
use crate::update::Updater;

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
    /// Set by whoever wants the run to stop.
    pub stop: &'a AtomicBool,
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
    policy: M,
    reference: Option<Arc<Reference<M>>>,
    rewards: Vec<Asked>,
    updater: Updater<M>,
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
        let checkpoints = Checkpoints::new(&job.settings.output, 1);
        checkpoints.recover()?;
        checkpoints.refuse_any()?;
        let reference = match needs_reference(&job)? {
            true => Some(policy.frozen_copy()?),
            false => None,
        };
        let optimizer = Optimizer::new(job.settings.optimizer(), &policy)?;
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
        let checkpoints = Checkpoints::new(&job.settings.output, 1);
        checkpoints.refuse_later(checkpoint)?;
        let precision = job.settings.precision;
        let policy = M::load(path, precision)?;
        let reference = match (needs_reference(&job)?, checkpoint.reference()) {
            (false, _) => None,
            (true, Some(folder)) => Some(M::load(&folder, precision)?),
            (true, None) => Some(M::load(job.base, precision)?),
        };
        if let Some(reference) = &reference {
            checkpoints.take_reference(reference, checkpoint)?;
        }
        let file = path.join(crate::checkpoint::OPTIMIZER_FILE);
        let optimizer =
            Optimizer::load(job.settings.optimizer(), &policy, &file, state.optimizer_steps)?;
        Self::new(job, sinks, (policy, reference), optimizer, state.clone())
    }

    fn new(
        job: Job<'a>,
        sinks: Vec<Box<dyn Sink + 'a>>,
        (policy, reference): (M, Option<M>),
        optimizer: Optimizer,
        mut state: State,
    ) -> Result<Self> {
        let Job { settings, settings_text, text, questions, eval, judge, stop, .. } = job;
        let stages = settings.stages().map_err(Error::Settings)?;
        let per_step = settings.questions_per_step();
        let too_few = || Error::TooFew {
            what: "questions",
            given: questions.len(),
            left: questions.len(),
            needed: per_step,
        };
        let sampler = Sampler::new(questions.len(), per_step, settings.seed).ok_or_else(too_few)?;
        let plan =
            Plan::new(settings, &stages, sampler.steps_per_epoch()).map_err(Error::Settings)?;
        let reference = reference.map(|model| Arc::new(Reference::new(model)));
        let judge = judge.or_else(|| in_process(reference.as_ref(), &text));
        let rewards = Asked::of(&stages, judge)?;
        let output = &settings.output;
        let milestones = settings.milestones(sampler.steps_per_epoch());
        let checkpoints =
            Checkpoints::new(output, settings.save_total_limit).with_milestones(milestones);
        let best_by = evaluate::best_by(settings, &eval)?;
        let data = questions
            .iter()
            .map(|asked| (asked.prompt.as_slice(), [].as_slice(), asked.question.answer.as_str()));
        let other_data = state.learns_from_others(fingerprint(data));
        sweep(output, state.step)?;
        checkpoints.rotate(&state)?;
        checkpoints.write_settings(settings_text)?;
        Ok(Self {
            settings,
            settings_text,
            text,
            questions,
            eval,
            stop,
            updater: Updater::new(&policy, optimizer)?,
            policy,
            reference,
            rewards,
            sampler,
            plan,
            checkpoints,
            best_by,
            other_data,
            events: Recorder::open(output, &state, &settings.report_to, sinks)?,
            state,
        })
    }
}

/// The reference is loaded only where something uses it: the divergence, or the judge.
fn needs_reference(job: &Job<'_>) -> Result<bool> {
    let stages: Stages = job.settings.stages().map_err(Error::Settings)?;
    let judges = job.settings.judge == JudgeKind::Reference && job.judge.is_none();
    Ok(job.settings.beta > 0.0 || (judges && needs_judge(&stages)))
}

fn in_process<M: Model + 'static>(
    reference: Option<&Arc<Reference<M>>>,
    text: &Arc<dyn Text>,
) -> Option<Box<dyn Judge>> {
    let reference = Arc::clone(reference?);
    Some(Box::new(ReferenceJudge::new(reference, Arc::clone(text))))
}

#[cfg(test)]
mod tests;
