//! What GRPO adds to the training loop: stages, warnings, the reference model and evaluations.

use super::GrpoTrainer;
use crate::error::Result;
use crate::events::{Event, FormatFailures, Metrics, StepObservation};
use crate::model::Model;
use crate::rollout::Rollout;
use crate::trainer::{Run, StepOutput, Trainer};

impl<'a, M: Model + 'static> Trainer<'a> for GrpoTrainer<'a, M> {
    type Model = M;

    fn run(&self) -> &Run<'a, M> {
        &self.run
    }

    fn run_mut(&mut self) -> &mut Run<'a, M> {
        &mut self.run
    }

    fn epoch(&self, step: u64) -> f64 {
        self.plan.epoch(step)
    }

    fn begin_run(&mut self) -> Result<()> {
        match self.settings.rollout.optimizer_steps() {
            1 => Ok(()),
            steps => self.run.events.emit(&Event::several_iterations(0, steps)),
        }
    }

    fn begin_step(&mut self) -> Result<()> {
        self.begin_stage()
    }

    fn step(&mut self, step: u64) -> Result<Option<StepOutput>> {
        self.grpo_step(step)
    }

    fn observe(&mut self, rollouts: &[Rollout], metrics: &Metrics) -> Vec<Event> {
        self.run.state.expected_lengths.update(rollouts);
        let format = self.format_reasons(rollouts);
        let warnings = self.run.state.watch.observe(&StepObservation {
            step: self.run.state.step,
            metrics,
            optimizer_steps: self.settings.rollout.optimizer_steps(),
            format: &format,
            estimator: self.settings.advantages.advantage_estimator,
        });
        self.watch_stage(metrics);
        warnings
    }

    fn end_step(&mut self) -> Result<()> {
        self.sync_reference()
    }

    fn evaluation_is_due(&self, step: u64) -> bool {
        let is_last = step == self.plan.total_steps;
        !self.eval.is_empty()
            && (is_last || step.is_multiple_of(self.settings.evaluation.eval_steps))
    }

    fn evaluate(&mut self) -> Result<Option<Metrics>> {
        self.evaluate_greedily()
    }

    fn begin_save(&mut self) -> Result<()> {
        self.save_reference()
    }
}

impl<M: Model + 'static> GrpoTrainer<'_, M> {
    /// Counts the reasons for format errors.
    fn format_reasons(&self, rollouts: &[Rollout]) -> FormatFailures {
        let column = self.rewards.iter().position(|function| function.reward.name() == "format");
        let scores = rollouts.iter().flat_map(|rollout| &rollout.completions);
        FormatFailures::count(scores.map(|completion| {
            let score = completion.scores.get(column?)?.as_ref()?;
            score.reason.as_deref()
        }))
    }
}
