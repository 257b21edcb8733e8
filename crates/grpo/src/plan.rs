//! The plan of a run: its steps, its stages in steps, and the learning rate of each step.

use embodied_r_rewards::{Schedule as Stages, Stage};

use crate::schedule::{LrScheduler, Schedule, warmup_steps};
use crate::settings::{Fault, Train};

/// A stage in steps.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// Steps done before it.
    pub first: u64,
    /// Steps done after it.
    pub end: u64,
    /// Its weights and what it does in the beginning.
    pub stage: Stage,
}

/// The plan of a GRPO run.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Steps of one pass over the questions.
    pub steps_per_epoch: u64,
    /// Steps of the run.
    pub total_steps: u64,
    /// The stages that come, in order; the first begins with the run.
    pub spans: Vec<Span>,
    learning: Learning,
}

/// What the learning rate follows from.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Learning {
    kind: LrScheduler,
    peak: f64,
    warmup_ratio: f64,
    warmup_steps: Option<u64>,
    /// Optimiser steps of each step.
    iterations: u64,
}

impl Plan {
    /// The plan of `settings` over `stages`, where one epoch has `steps_per_epoch` steps.
    ///
    /// # Errors
    /// A stage is shorter than one step.
    pub fn new(
        settings: &Train,
        stages: &Stages,
        steps_per_epoch: u64,
    ) -> Result<Self, Vec<Fault>> {
        let limit = settings.max_steps.unwrap_or(u64::MAX);
        let (mut spans, mut faults) = (Vec::new(), Vec::new());
        let (mut epochs, mut first) = (0.0, 0);
        for (index, stage) in stages.stages().iter().enumerate() {
            epochs += stage.epochs;
            let end = (epochs * steps_per_epoch as f64).round() as u64;
            if end == first {
                faults.push(Fault::new(
                    format!("stage[{index}].epochs"),
                    format!(
                        "is {}, less than one step where an epoch has {steps_per_epoch}",
                        stage.epochs
                    ),
                ));
            }
            if first < limit {
                spans.push(Span { first, end: end.min(limit), stage: stage.clone() });
            }
            first = end;
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let learning = Learning {
            kind: settings.lr_scheduler_type,
            peak: settings.learning_rate,
            warmup_ratio: settings.warmup_ratio,
            warmup_steps: settings.warmup_steps,
            iterations: settings.num_iterations as u64,
        };
        Ok(Self { steps_per_epoch, total_steps: first.min(limit), spans, learning })
    }

    /// The number of the stage that step `step` (from 0) belongs to.
    pub fn stage_at(&self, step: u64) -> usize {
        let last = self.spans.len().saturating_sub(1);
        self.spans.iter().position(|span| step < span.end).unwrap_or(last)
    }

    /// The learning rate of one optimiser step: iteration `iteration` of step `step`, both from 0.
    pub fn learning_rate(&self, step: u64, iteration: u64) -> f64 {
        let restarts = self.spans.iter().filter(|span| span.stage.restart_schedule);
        let first = restarts.clone().map(|span| span.first).filter(|&first| first <= step).max();
        let end = restarts.map(|span| span.first).find(|&first| first > step);
        let (first, end) = (first.unwrap_or(0), end.unwrap_or(self.total_steps));
        let Learning { kind, peak, warmup_ratio, iterations, .. } = self.learning;
        let total_steps = (end - first) * iterations;
        let warmup_steps = warmup_steps(self.learning.warmup_steps, warmup_ratio, total_steps);
        let schedule = Schedule { kind, peak, warmup_steps, total_steps };
        schedule.at((step - first) * iterations + iteration)
    }

    /// Passes over the questions when `step` steps are done.
    pub fn epoch(&self, step: u64) -> f64 {
        step as f64 / self.steps_per_epoch as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(change: impl FnOnce(&mut Train), stages: &Stages) -> Plan {
        let mut settings = Train { learning_rate: 1.0, warmup_ratio: 0.0, ..Train::default() };
        change(&mut settings);
        Plan::new(&settings, stages, 10).unwrap()
    }

    fn restarting() -> Stages {
        let mut stages = Stages::default().stages().to_vec();
        stages[1].restart_schedule = true;
        Stages::new(stages).unwrap()
    }

    #[test]
    fn stages_follow_each_other_in_steps() {
        let plan = plan(|_| {}, &Stages::default());
        assert_eq!(plan.total_steps, 120);
        assert_eq!([0, 19, 20, 39, 40, 119].map(|step| plan.stage_at(step)), [0, 0, 1, 1, 2, 2]);
    }

    #[test]
    fn by_default_the_learning_rate_goes_on_over_the_stages() {
        let plan = plan(|_| {}, &Stages::default());
        assert!(plan.learning_rate(19, 0) > plan.learning_rate(20, 0));
        assert!((plan.learning_rate(60, 0) - 0.5).abs() < 1e-12);
    }

    #[test]
    fn a_stage_may_restart_the_learning_rate() {
        let plan = plan(|_| {}, &restarting());
        assert_eq!(plan.learning_rate(0, 0), 1.0);
        assert!(plan.learning_rate(19, 0) < 0.01);
        assert_eq!(plan.learning_rate(20, 0), 1.0);
        assert!((plan.learning_rate(70, 0) - 0.5).abs() < 1e-12, "half way from 20 to 120");
    }

    #[test]
    fn every_iteration_is_a_step_of_the_schedule() {
        let plan = plan(|train| train.num_iterations = 2, &Stages::default());
        assert!((plan.learning_rate(60, 0) - 0.5).abs() < 1e-12);
        assert!(plan.learning_rate(60, 1) < plan.learning_rate(60, 0));
    }

    #[test]
    fn max_steps_ends_the_run_and_drops_stages_that_never_come() {
        let plan = plan(|train| train.max_steps = Some(25), &Stages::default());
        assert_eq!((plan.total_steps, plan.spans.len()), (25, 2));
        assert_eq!(plan.spans[1].end, 25);
    }

    #[test]
    fn a_stage_shorter_than_a_step_is_refused() {
        let mut stages = Stages::default().stages().to_vec();
        stages[1].epochs = 0.01;
        let stages = Stages::new(stages).unwrap();
        let faults = Plan::new(&Train::default(), &stages, 10).unwrap_err();
        assert_eq!(faults[0].key, "stage[1].epochs");
    }
}
