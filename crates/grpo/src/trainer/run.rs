//! The loop over steps: stages, evaluations, checkpoints, and the end.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::{Outcome, Trainer};
use crate::checkpoint::{self, Best};
use crate::error::{Error, Result};
use crate::events::{Event, Metrics, now_s};
use crate::model::Model;
use crate::rollout::Rollout;

/// The metric by which the best checkpoint is kept.
const BEST_METRIC: &str = "eval/accuracy";

/// What one step gave.
pub(super) struct Stepped {
    pub(super) rollouts: Vec<Rollout>,
    pub(super) metrics: Metrics,
    /// Where the batch was written, if the optimiser could not take the step.
    pub(super) skipped: Option<PathBuf>,
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
            if best || self.state.step.is_multiple_of(self.settings.save_steps) {
                self.save()?;
                saved = Some(self.state.step);
            }
            if self.stopping() {
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

    pub(super) fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Counts a step and tells of it.
    fn account(&mut self, stepped: Stepped, began: Instant, done_before: u64) -> Result<()> {
        let Stepped { rollouts, mut metrics, skipped, tokens } = stepped;
        self.state.step += 1;
        self.state.num_tokens += tokens;
        self.state.optimizer_steps = self.updater.optimizer.steps();
        let step = self.state.step;
        let hopeless = self.state.count_skipped(skipped.is_some());
        let per_step = began.elapsed().as_secs_f64() / (step - done_before) as f64;
        metrics.insert("num_tokens".into(), self.state.num_tokens as f64);
        metrics.insert("skipped_steps".into(), self.state.skipped_steps as f64);
        metrics.insert("time_left_s".into(), per_step * (self.plan.total_steps - step) as f64);
        if let Some(dump) = &skipped {
            let dump = dump.strip_prefix(&self.settings.output).unwrap_or(dump);
            self.events.emit(&Event::Skipped { step, dump: dump.display().to_string() })?;
        }
        self.watch_stage(&metrics);
        let epoch = self.plan.epoch(step);
        self.events.emit(&Event::Step { step, epoch, time_s: now_s(), metrics })?;
        self.events.completions(step, &rollouts)?;
        match hopeless {
            true => Err(Error::NotFinite { steps: self.state.skipped_in_a_row, dump: skipped }),
            false => Ok(()),
        }
    }

    /// Evaluates where it is time to; says whether the result is the best so far.
    fn evaluate_if_due(&mut self) -> Result<bool> {
        let step = self.state.step;
        let last = step == self.plan.total_steps;
        let due = last || step.is_multiple_of(self.settings.eval_steps);
        let known = self.state.evaluated == Some(step);
        if self.eval.is_empty() || !due || known || self.stopping() {
            return Ok(false);
        }
        let metrics = self.evaluate()?;
        self.state.evaluated = Some(step);
        let value = metrics.get(BEST_METRIC).copied().unwrap_or(0.0);
        let epoch = self.plan.epoch(step);
        self.events.emit(&Event::Eval { step, epoch, time_s: now_s(), metrics })?;
        if self.state.best.as_ref().is_some_and(|best| value <= best.value) {
            return Ok(false);
        }
        self.state.best = Some(Best { metric: BEST_METRIC.into(), value, step });
        // Before the first step there is nothing that the base model's folder does not hold.
        Ok(step > 0)
    }

    fn save(&mut self) -> Result<()> {
        let step = self.state.step;
        self.state.optimizer_steps = self.updater.optimizer.steps();
        self.save_reference()?;
        self.events.emit(&Event::Checkpoint { step, folder: checkpoint::name(step) })?;
        self.state.events_bytes = self.events.length();
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
