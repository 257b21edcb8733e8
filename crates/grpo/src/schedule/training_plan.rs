//! The training plan: steps, stages in steps, and the reward weights and learning rate of each step.

use embodied_r_rewards::stages::{StageLength, Weights, blend};
use embodied_r_rewards::{RewardSchedule as Stages, Stage};

use crate::settings::{Fault, GrpoSettings, LrSettings, MAX_STEPS};

/// A stage's range of steps.
#[derive(Debug, Clone, PartialEq)]
pub struct StageSpan {
    /// First step of the stage, from 0.
    pub first: u64,
    /// First step after the stage.
    pub end: u64,
    /// The stage: its reward weights and what it resets.
    pub stage: Stage,
    /// Its length in steps, unless it ends early.
    steps: u64,
}

/// The plan of a GRPO run.
///
/// The total number of steps and the learning rate are known from the start: if a stage ends early, the later ones
/// start earlier and the last one is extended.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingPlan {
    /// Steps per epoch.
    pub steps_per_epoch: u64,
    /// Total steps of the run.
    pub total_steps: u64,
    /// The stages in order; the first starts at step 0.
    pub spans: Vec<StageSpan>,
    lr: LrSettings,
    /// Optimizer steps per step.
    per_step: u64,
}

impl TrainingPlan {
    /// The plan of `settings` over `stages`, with `steps_per_epoch` steps per epoch.
    ///
    /// # Errors
    /// All faults at once: a stage is shorter than one step, than its blending or its window, or would start after the
    /// run's end; or the run has more steps than any could take.
    pub fn new(
        settings: &GrpoSettings,
        stages: &Stages,
        steps_per_epoch: u64,
    ) -> Result<Self, Vec<Fault>> {
        let limit = settings.stages.max_steps.unwrap_or(u64::MAX);
        let (mut spans, mut faults) = (Vec::new(), Vec::new());
        let (mut epochs, mut steps, mut first) = (0.0, 0u64, 0);
        for (index, stage) in stages.stages().iter().enumerate() {
            match stage.length {
                StageLength::Epochs(more) => epochs += more,
                StageLength::Steps(more) => steps = steps.saturating_add(more),
            }
            let of_epochs = (epochs * steps_per_epoch as f64).round() as u64;
            let end = of_epochs.saturating_add(steps);
            let span = StageSpan { first, end, stage: stage.clone(), steps: end - first };
            faults.extend(span.faults(index, steps_per_epoch));
            if first >= limit {
                faults.push(never_starts(settings, index, first, limit));
            }
            spans.push(span);
            first = end;
        }
        let total_steps = first.min(limit);
        let per_step = settings.rollout.optimizer_steps() as u64;
        let optimizer_steps = total_steps.saturating_mul(per_step);
        if optimizer_steps > MAX_STEPS {
            let key = match (settings.stages.max_steps, settings.stages.stage.is_empty()) {
                (Some(_), _) => "max_steps",
                (None, true) => "num_train_epochs",
                (None, false) => "stage",
            };
            let what = format!("the run has more than {MAX_STEPS} optimizer steps; shorten it");
            faults.push(Fault::new(key, what));
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let lr = settings.lr;
        let mut plan = Self { steps_per_epoch, total_steps, spans, lr, per_step };
        plan.follow(0);
        Ok(plan)
    }

    /// Restores the first steps of the stages that have started; the later ones follow.
    pub fn resume(&mut self, begins: &[u64]) {
        for (index, &first) in begins.iter().enumerate() {
            self.begin(index, first);
        }
    }

    /// Starts stage `index` at step `first`; the later ones follow.
    pub fn begin(&mut self, index: usize, first: u64) {
        let Some(span) = self.spans.get_mut(index) else { return };
        span.first = first;
        if index > 0 {
            self.spans[index - 1].end = first;
        }
        self.follow(index);
    }

    /// Recomputes the stages from `from` on so that each starts where the previous one ends.
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

    /// The index of the stage of step `step` (from 0).
    pub fn stage_at(&self, step: u64) -> usize {
        let last = self.spans.len().saturating_sub(1);
        self.spans.iter().position(|span| step < span.end).unwrap_or(last)
    }

    /// The reward weights at step `step` (from 0).
    ///
    /// In the first `blend_steps` steps of a stage they are interpolated linearly from the previous stage's final
    /// weights: step *k* of *n* at *k* / (*n* + 1).
    pub fn weights(&self, step: u64) -> Weights {
        let index = self.stage_at(step);
        let StageSpan { first, stage, .. } = &self.spans[index];
        let done = step.saturating_sub(*first);
        if index == 0 || done >= stage.blend_steps {
            return stage.weights.clone();
        }
        let Some(before) = first.checked_sub(1) else { return stage.weights.clone() };
        // If the previous stage ended while blending, blend from the weights it had reached.
        let before = self.weights(before);
        let share = (done + 1) as f64 / (stage.blend_steps + 1) as f64;
        blend(&before, &stage.weights, share)
    }

    /// The learning rate of optimizer step `index` of step `step`, both from 0.
    pub fn learning_rate(&self, step: u64, index: u64) -> f64 {
        let restarts = self.spans.iter().filter(|span| span.stage.restart_schedule);
        let first = restarts.clone().map(|span| span.first).filter(|&first| first <= step).max();
        let end = restarts.map(|span| span.first).find(|&first| first > step);
        let (first, end) = (first.unwrap_or(0), end.unwrap_or(self.total_steps));
        let schedule = self.lr.schedule((end - first) * self.per_step);
        schedule.at((step - first) * self.per_step + index)
    }

    /// The epoch after `step` steps, as a fraction.
    pub fn epoch(&self, step: u64) -> f64 {
        step as f64 / self.steps_per_epoch as f64
    }
}

impl StageSpan {
    /// Validates the length of stage `index`.
    fn faults(&self, index: usize, steps_per_epoch: u64) -> Vec<Fault> {
        let Self { stage, steps, .. } = self;
        let mut faults = Vec::new();
        let mut fault = |field: &str, what: String| {
            faults.push(Fault::new(format!("stage[{index}].{field}"), what));
        };
        // Lengths in steps have been validated with the settings.
        let StageLength::Epochs(epochs) = stage.length else { return faults };
        if *steps == 0 {
            fault(
                "epochs",
                format!("is {epochs}, shorter than one step (an epoch has {steps_per_epoch})"),
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

fn never_starts(settings: &GrpoSettings, index: usize, first: u64, limit: u64) -> Fault {
    let advice = match settings.stages.stage.is_empty() {
        true => "raise `max_steps`, or set `reward_weights` or stages to replace the paper's",
        false => "raise `max_steps`, shorten the earlier stages, or remove it",
    };
    Fault::new(
        format!("stage[{index}]"),
        format!(
            "would start after step {first}, but `max_steps` ends the run after \
             step {limit}; {advice}"
        ),
    )
}

#[cfg(test)]
mod tests;
