//! The plan of a run: its steps, its stages in steps, and the weights and learning rate of each
//! step.

use embodied_r_rewards::stages::{Length, Weights, blend};
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
    /// Steps that it lasts if nothing ends it earlier.
    steps: u64,
}

/// The plan of a GRPO run.
///
/// The number of steps is known from the start, and so is the learning rate: a stage that ends early
/// makes the later ones begin earlier, and the last one lasts to the end.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Steps of one pass over the questions.
    pub steps_per_epoch: u64,
    /// Steps of the run.
    pub total_steps: u64,
    /// The stages in order; the first begins with the run.
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
    /// All faults at once: a stage is shorter than one step, than its transition or than its window,
    /// or would begin when the run is over.
    pub fn new(
        settings: &Train,
        stages: &Stages,
        steps_per_epoch: u64,
    ) -> Result<Self, Vec<Fault>> {
        let limit = settings.max_steps.unwrap_or(u64::MAX);
        let (mut spans, mut faults) = (Vec::new(), Vec::new());
        let (mut epochs, mut steps, mut first) = (0.0, 0, 0);
        for (index, stage) in stages.stages().iter().enumerate() {
            match stage.length {
                Length::Epochs(more) => epochs += more,
                Length::Steps(more) => steps += more,
            }
            let end = (epochs * steps_per_epoch as f64).round() as u64 + steps;
            let span = Span { first, end, stage: stage.clone(), steps: end - first };
            faults.extend(span.faults(index, steps_per_epoch));
            if first >= limit {
                faults.push(never_comes(settings, index, first, limit));
            }
            spans.push(span);
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
        let mut plan = Self { steps_per_epoch, total_steps: first.min(limit), spans, learning };
        plan.follow(0);
        Ok(plan)
    }

    /// Puts the stages where they began, `begins` in steps done before each of those that have
    /// begun; the others follow them.
    pub fn resume(&mut self, begins: &[u64]) {
        for (index, &first) in begins.iter().enumerate() {
            self.begin(index, first);
        }
    }

    /// Lets stage `index`, and all that follow, begin after `first` steps.
    pub fn begin(&mut self, index: usize, first: u64) {
        let Some(span) = self.spans.get_mut(index) else { return };
        span.first = first;
        if index > 0 {
            self.spans[index - 1].end = first;
        }
        self.follow(index);
    }

    /// Lets every stage behind `from` begin where the one before it ends.
    fn follow(&mut self, from: usize) {
        let mut first = self.spans[from].first;
        for span in &mut self.spans[from..] {
            span.first = first;
            span.end = first.saturating_add(span.steps).min(self.total_steps);
            first = span.end;
        }
        if let Some(last) = self.spans.last_mut() {
            last.end = self.total_steps;
        }
    }

    /// The number of the stage that step `step` (from 0) belongs to.
    pub fn stage_at(&self, step: u64) -> usize {
        let last = self.spans.len().saturating_sub(1);
        self.spans.iter().position(|span| step < span.end).unwrap_or(last)
    }

    /// The weights of the rewards at step `step` (from 0).
    ///
    /// In the first `blend_steps` steps of a stage they lie on the straight line from the last
    /// weights of the stage before, step *k* of *n* at *k* / (*n* + 1) of the way.
    pub fn weights(&self, step: u64) -> Weights {
        let index = self.stage_at(step);
        let Span { first, stage, .. } = &self.spans[index];
        let done = step.saturating_sub(*first);
        if index == 0 || done >= stage.blend_steps {
            return stage.weights.clone();
        }
        let Some(before) = first.checked_sub(1) else { return stage.weights.clone() };
        // A stage that ended in the middle of its own transition hands on what it came to.
        let before = self.weights(before);
        let share = (done + 1) as f64 / (stage.blend_steps + 1) as f64;
        blend(&before, &stage.weights, share)
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

impl Span {
    /// What is wrong with the length of stage `index`.
    fn faults(&self, index: usize, steps_per_epoch: u64) -> Vec<Fault> {
        let Self { stage, steps, .. } = self;
        let mut faults = Vec::new();
        let mut fault = |field: &str, what: String| {
            faults.push(Fault::new(format!("stage[{index}].{field}"), what));
        };
        // A stage's steps are held against its own fields before.
        let Length::Epochs(epochs) = stage.length else { return faults };
        if *steps == 0 {
            fault(
                "epochs",
                format!("is {epochs}, less than one step where an epoch has {steps_per_epoch}"),
            );
            return faults;
        }
        if stage.blend_steps > *steps {
            let what =
                format!("is {}, more than the {steps} steps of its stage", stage.blend_steps);
            fault("blend_steps", what);
        }
        if let Some(until) = stage.until.as_ref().filter(|until| until.window > *steps) {
            let what = format!("is {}, more than the {steps} steps of its stage", until.window);
            fault("until.window", what);
        }
        faults
    }
}

fn never_comes(settings: &Train, index: usize, first: u64, limit: u64) -> Fault {
    let advice = match settings.stage.is_empty() {
        true => "raise `max_steps`, or give `reward_weights` or stages in place of the paper's",
        false => "raise `max_steps`, shorten the stages before it, or remove it",
    };
    Fault::new(
        format!("stage[{index}]"),
        format!(
            "never comes: it would begin after step {first}, and `max_steps` ends the run after \
             step {limit}; {advice}"
        ),
    )
}

#[cfg(test)]
mod tests;
