//! The training loop: stages, steps, evaluations and checkpoints.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::{GrpoTrainer, RunOutcome, probe};
use crate::checkpoint;
use crate::error::{Error, Result};
use crate::events::{
    BYTES_SENT, Event, FormatFailures, Metrics, RankShares, StepObservation, now_s,
};
use crate::finite::non_finite;
use crate::model::Model;
use crate::rollout::Rollout;
use crate::skipped::Diagnosis;

/// Output of one step.
pub(super) struct StepOutput {
    pub(super) rollouts: Vec<Rollout>,
    pub(super) metrics: Metrics,
    pub(super) ranks: RankShares,
    /// The diagnosis, if the step was skipped.
    pub(super) skipped: Option<Box<Diagnosis>>,
    pub(super) tokens: u64,
}

impl<M: Model + 'static> GrpoTrainer<'_, M> {
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
        let done = self.state.step;
        self.events.emit(&Event::Start { steps: self.plan.total_steps, done })?;
        if self.other_data {
            self.events.emit(&Event::other_data(done))?;
        }
        let iterations = self.settings.num_iterations;
        // A resumed run has this event already.
        if iterations > 1 && done == 0 {
            self.events.emit(&Event::several_iterations(done, iterations))?;
        }
        let began = Instant::now();
        let mut saved = (done > 0).then_some(done);
        if self.evaluate_if_due()? {
            self.save()?;
            saved = Some(done);
        }
        while self.state.step < self.plan.total_steps {
            self.begin_stage()?;
            let Some(output) = self.step(self.state.step)? else { break };
            self.record_step(output, began, done)?;
            self.sync_reference()?;
            let best = self.evaluate_if_due()?;
            if best || self.save_is_due() {
                self.save()?;
                saved = Some(self.state.step);
            }
            if self.stopping()? {
                break;
            }
        }
        if saved != Some(self.state.step) {
            self.save()?;
        }
        if self.state.step < self.plan.total_steps {
            return Ok(RunOutcome::Stopped(self.checkpoints.path(self.state.step)));
        }
        self.check_finite()?;
        let folder = self.checkpoints.save_final(&self.policy, self.tokenizer.as_ref())?;
        self.events.emit(&Event::End { step: self.state.step })?;
        Ok(RunOutcome::Finished(folder))
    }

    /// Whether a stop was requested on any rank.
    pub(super) fn stopping(&self) -> Result<bool> {
        self.process_group.any(self.stop.load(Ordering::Relaxed))
    }

    /// Updates the state after a step and reports it.
    fn record_step(&mut self, output: StepOutput, began: Instant, done_before: u64) -> Result<()> {
        let StepOutput { rollouts, mut metrics, ranks, skipped, tokens } = output;
        self.state.step += 1;
        self.state.num_tokens += tokens;
        self.state.expected_lengths.update(&rollouts);
        self.state.optimizer_steps = self.updater.optimizer.steps();
        let step = self.state.step;
        self.state.count_skipped(skipped.is_some());
        let per_step = began.elapsed().as_secs_f64() / (step - done_before) as f64;
        metrics.insert("num_tokens".into(), self.state.num_tokens as f64);
        metrics.insert("skipped_steps".into(), self.state.skipped_steps as f64);
        metrics.insert("time_left_s".into(), per_step * (self.plan.total_steps - step) as f64);
        if self.process_group.world_size() > 1 {
            let before = std::mem::replace(&mut self.bytes_sent, self.process_group.bytes_sent());
            metrics.insert(BYTES_SENT.into(), (self.bytes_sent - before) as f64);
        }
        // All ranks base their decisions on the metrics of rank 0.
        let metrics = self.process_group.broadcast(metrics)?;
        let observation = StepObservation {
            step,
            metrics: &metrics,
            iterations: self.settings.num_iterations,
            format: &self.format_reasons(&rollouts),
        };
        let warnings = self.state.watch.observe(&observation);
        self.watch_stage(&metrics);
        let epoch = self.plan.epoch(step);
        let (events, output) = (&mut self.events, &self.settings.output);
        let checkpoints = &self.checkpoints;
        let report = || {
            if let Some(diagnosis) = &skipped {
                events.emit(&Event::skipped(step, output, diagnosis))?;
            }
            events.emit(&Event::Step { step, epoch, time_s: now_s(), ranks, metrics })?;
            // A write by path would make the folder anew if it was moved during the step.
            checkpoints.keep_lock()?;
            events.completions(step, &rollouts)?;
            warnings.iter().try_for_each(|warning| events.emit(warning))
        };
        // Reporting needs no weights, so it overlaps with their all-gather.
        self.updater.optimizer.all_gather_weights(&self.policy, report)??;
        match skipped {
            Some(diagnosis) => self.go_on_after_skip(diagnosis),
            None => Ok(()),
        }
    }

    /// Aborts the run after too many skipped steps, or if the policy is not finite, since no further step can be taken
    /// then. A finite policy is saved first.
    fn go_on_after_skip(&mut self, mut diagnosis: Box<Diagnosis>) -> Result<()> {
        let found = non_finite(&self.policy, probe(&self.questions), &self.process_group)?;
        if found.is_none() && self.state.skipped_in_a_row < self.settings.max_skipped_steps {
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

    /// Fails if the policy is not finite.
    pub(super) fn check_finite(&self) -> Result<()> {
        self.checkpoints.check_finite(&self.policy, probe(&self.questions))
    }

    fn save_is_due(&self) -> bool {
        let step = self.state.step;
        step.is_multiple_of(self.settings.save_steps)
            || self.checkpoints.retention().is_milestone(step)
    }

    /// Counts the reasons for format errors.
    fn format_reasons(&self, rollouts: &[Rollout]) -> FormatFailures {
        let column = self.rewards.iter().position(|function| function.reward.name() == "format");
        let scores = rollouts.iter().flat_map(|rollout| &rollout.completions);
        FormatFailures::count(scores.map(|completion| {
            let score = completion.scores.get(column?)?.as_ref()?;
            score.reason.as_deref()
        }))
    }

    /// Evaluates if due; returns whether the result is the best so far.
    fn evaluate_if_due(&mut self) -> Result<bool> {
        let step = self.state.step;
        let last = step == self.plan.total_steps;
        let due = last || step.is_multiple_of(self.settings.eval_steps);
        let known = self.state.evaluated == Some(step);
        if self.eval.is_empty() || !due || known || self.stopping()? {
            return Ok(false);
        }
        self.process_group.enter("evaluation");
        self.check_finite()?;
        let Some(metrics) = self.evaluate()? else { return Ok(false) };
        self.state.evaluated = Some(step);
        let value = metrics.get(&self.best_by.metric).copied();
        let epoch = self.plan.epoch(step);
        self.events.emit(&Event::Eval { step, epoch, time_s: now_s(), metrics })?;
        let best = self.best_by.update(&mut self.state.best, value, step);
        // At step 0 the base model's folder already holds these weights.
        Ok(best && step > 0)
    }

    /// Writes a checkpoint, unless the policy is not finite, which ends the run.
    fn save(&mut self) -> Result<()> {
        self.check_finite()?;
        let step = self.state.step;
        self.process_group.enter("checkpoint");
        self.state.optimizer_steps = self.updater.optimizer.steps();
        self.state.optimizer_files = self.updater.optimizer.files();
        self.save_reference()?;
        self.events.emit(&Event::Checkpoint { step, folder: checkpoint::name(step) })?;
        self.events.mark(&mut self.state)?;
        self.checkpoints
            .save(
                &self.policy,
                self.tokenizer.as_ref(),
                &self.updater.optimizer,
                &self.state,
                self.settings_text,
            )
            .map(|_| ())
    }
}
