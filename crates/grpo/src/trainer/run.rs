//! The loop over steps: stages, evaluations, checkpoints, and the end.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::{Outcome, Trainer};
use crate::checkpoint;
use crate::error::{Error, Result};
use crate::events::{BYTES_SENT, Event, Metrics, Reasons, Seen, now_s};
use crate::model::Model;
use crate::rollout::Rollout;
use crate::skipped::{Diagnosis, non_finite_weights};

/// What one step gave.
pub(super) struct Stepped {
    pub(super) rollouts: Vec<Rollout>,
    pub(super) metrics: Metrics,
    /// What is known of why, if the step was left out.
    pub(super) skipped: Option<Box<Diagnosis>>,
    pub(super) tokens: u64,
}

impl<M: Model + 'static> Trainer<'_, M> {
    /// Runs until all steps are done or the user wants to stop; in both cases a checkpoint is
    /// written at the end.
    ///
    /// # Errors
    /// Any part fails; what the last checkpoint holds is safe.
    pub fn run(mut self) -> Result<Outcome> {
        let done = self.state.step;
        self.events.emit(&Event::Start { steps: self.plan.total_steps, done })?;
        if self.other_data {
            self.events.emit(&Event::other_data(done))?;
        }
        let began = Instant::now();
        let mut saved = (done > 0).then_some(done);
        if self.evaluate_if_due()? {
            self.save()?;
            saved = Some(done);
        }
        while self.state.step < self.plan.total_steps {
            self.begin_stage()?;
            let Some(stepped) = self.step(self.state.step)? else { break };
            self.account(stepped, began, done)?;
            self.sync_reference()?;
            let best = self.evaluate_if_due()?;
            if (best || self.save_is_due()) && self.is_good()? {
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
            return Ok(Outcome::Stopped(self.checkpoints.path(self.state.step)));
        }
        let folder = self.checkpoints.save_final(&self.policy, self.text.as_ref())?;
        self.events.emit(&Event::End { step: self.state.step })?;
        Ok(Outcome::Finished(folder))
    }

    /// Whether the user wants to stop, on whichever rank.
    pub(super) fn stopping(&self) -> Result<bool> {
        self.team.any(self.stop.load(Ordering::Relaxed))
    }

    /// Counts a step and tells of it.
    fn account(&mut self, stepped: Stepped, began: Instant, done_before: u64) -> Result<()> {
        let Stepped { rollouts, mut metrics, skipped, tokens } = stepped;
        self.state.step += 1;
        self.state.num_tokens += tokens;
        self.state.optimizer_steps = self.updater.optimizer.steps();
        let step = self.state.step;
        self.state.count_skipped(skipped.is_some());
        let per_step = began.elapsed().as_secs_f64() / (step - done_before) as f64;
        metrics.insert("num_tokens".into(), self.state.num_tokens as f64);
        metrics.insert("skipped_steps".into(), self.state.skipped_steps as f64);
        metrics.insert("time_left_s".into(), per_step * (self.plan.total_steps - step) as f64);
        if self.team.size() > 1 {
            let before = std::mem::replace(&mut self.bytes_sent, self.team.bytes_sent());
            metrics.insert(BYTES_SENT.into(), (self.bytes_sent - before) as f64);
        }
        // All ranks decide by the same figures.
        let metrics = self.team.of_first(metrics)?;
        let seen = Seen {
            step,
            metrics: &metrics,
            iterations: self.settings.num_iterations,
            format: &self.format_reasons(&rollouts),
        };
        let warnings = self.state.watch.look(&seen);
        self.watch_stage(&metrics);
        let epoch = self.plan.epoch(step);
        let (events, output) = (&mut self.events, &self.settings.output);
        let tell = || {
            if let Some(diagnosis) = &skipped {
                events.emit(&Event::skipped(step, output, diagnosis))?;
            }
            events.emit(&Event::Step { step, epoch, time_s: now_s(), metrics })?;
            events.completions(step, &rollouts)?;
            warnings.iter().try_for_each(|warning| events.emit(warning))
        };
        // Writing needs no weights: they go round meanwhile.
        self.updater.optimizer.hand_round(&self.policy, tell)??;
        match skipped.filter(|_| self.state.skipped_in_a_row >= self.settings.max_skipped_steps) {
            Some(diagnosis) => Err(self.give_up(diagnosis)?),
            None => Ok(()),
        }
    }

    /// Saves the last good state, if this is one; gives what ends the run.
    fn give_up(&mut self, mut diagnosis: Box<Diagnosis>) -> Result<Error> {
        // Whoever goes on from here begins to count anew.
        let steps = std::mem::take(&mut self.state.skipped_in_a_row);
        diagnosis.weights = non_finite_weights(&self.policy)?;
        if diagnosis.weights.is_empty() {
            self.save()?;
        }
        let last = self.checkpoints.steps()?.last().copied();
        diagnosis.checkpoint = last.map(|step| self.checkpoints.path(step));
        Ok(Error::NotFinite { steps, diagnosis })
    }

    /// Whether the policy may be saved: after a step that was left out its weights could be what is
    /// not finite, and would take the place of good ones.
    fn is_good(&self) -> Result<bool> {
        Ok(self.state.skipped_in_a_row == 0 || non_finite_weights(&self.policy)?.is_empty())
    }

    fn save_is_due(&self) -> bool {
        let step = self.state.step;
        step.is_multiple_of(self.settings.save_steps) || self.checkpoints.keep().milestone_at(step)
    }

    /// Why completions did not have the right format.
    fn format_reasons(&self, rollouts: &[Rollout]) -> Reasons {
        let column = self.rewards.iter().position(|asked| asked.reward.name() == "format");
        let scores = rollouts.iter().flat_map(|rollout| &rollout.completions);
        Reasons::count(scores.map(|completion| {
            let score = completion.scores.get(column?)?.as_ref()?;
            score.why.as_deref()
        }))
    }

    /// Evaluates where it is time to; says whether the result is the best so far.
    fn evaluate_if_due(&mut self) -> Result<bool> {
        let step = self.state.step;
        let last = step == self.plan.total_steps;
        let due = last || step.is_multiple_of(self.settings.eval_steps);
        let known = self.state.evaluated == Some(step);
        if self.eval.is_empty() || !due || known || self.stopping()? {
            return Ok(false);
        }
        self.team.enter("evaluation");
        let metrics = self.evaluate()?;
        self.state.evaluated = Some(step);
        let value = metrics.get(&self.best_by.metric).copied();
        let epoch = self.plan.epoch(step);
        self.events.emit(&Event::Eval { step, epoch, time_s: now_s(), metrics })?;
        let best = self.best_by.take(&mut self.state.best, value, step);
        // Before the first step there is nothing that the base model's folder does not hold.
        Ok(best && step > 0)
    }

    fn save(&mut self) -> Result<()> {
        let step = self.state.step;
        self.team.enter("checkpoint");
        self.state.optimizer_steps = self.updater.optimizer.steps();
        self.state.optimizer_files = self.updater.optimizer.files();
        self.save_reference()?;
        self.events.emit(&Event::Checkpoint { step, folder: checkpoint::name(step) })?;
        self.events.mark(&mut self.state)?;
        self.checkpoints
            .save(
                &self.policy,
                self.text.as_ref(),
                &self.updater.optimizer,
                &self.state,
                self.settings_text,
            )
            .map(|_| ())
    }
}
