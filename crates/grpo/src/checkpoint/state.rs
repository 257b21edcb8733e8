//! What a run remembers beside its weights and moments.

use serde::{Deserialize, Serialize};

use crate::events::Watch;

/// All of a run that is neither weights nor moments nor settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Fingerprint of the model that the run began with.
    pub model: String,
    /// Fingerprint of what it learns from; empty before the run has begun.
    pub data: String,
    /// Steps done.
    pub step: u64,
    /// Steps done before each stage that has begun.
    pub stage_begins: Vec<u64>,
    /// The last values of the metric that may end the running stage early.
    pub until_values: Vec<f64>,
    /// Optimiser steps since the moments were 0.
    pub optimizer_steps: u64,
    /// Files that the moments are in, one of each rank that had a part of them.
    #[serde(default = "one")]
    pub optimizer_files: usize,
    /// Folder of the frozen reference within the run's folder; `None` for the model that the run
    /// began with.
    pub reference: Option<String>,
    /// Steps done at the last evaluation.
    pub evaluated: Option<u64>,
    /// The best evaluation so far.
    pub best: Option<Best>,
    /// Layers whose update takes over all that the rollout has computed; `None` if it computes its forward itself.
    /// Settled when the run begins, by the memory that there is: the bits of the gradients depend on it.
    #[serde(default)]
    pub taped_layers: Option<usize>,
    /// Tokens that went through the loss, prompts included.
    pub num_tokens: u64,
    /// Steps left out because the loss or a gradient was not finite.
    pub skipped_steps: u64,
    /// How many of them came last, without one between that was not left out.
    pub skipped_in_a_row: u64,
    /// What has been warned of, and what may be soon.
    pub watch: Watch,
    /// Length of the file of events when the checkpoint was made.
    pub events_bytes: u64,
    /// Length of TensorBoard's file of events when the checkpoint was made.
    pub tensorboard_bytes: u64,
}

fn one() -> usize {
    1
}

impl State {
    /// The state of a run that begins with the model of this fingerprint.
    pub fn new(model: &str) -> Self {
        Self {
            model: model.into(),
            data: String::new(),
            step: 0,
            stage_begins: Vec::new(),
            until_values: Vec::new(),
            optimizer_steps: 0,
            optimizer_files: 1,
            reference: None,
            evaluated: None,
            best: None,
            taped_layers: None,
            num_tokens: 0,
            skipped_steps: 0,
            skipped_in_a_row: 0,
            watch: Watch::default(),
            events_bytes: 0,
            tensorboard_bytes: 0,
        }
    }

    /// Takes note of the fingerprint of what the run learns from; says whether it was another one
    /// before, so that the steps to come are not those of the run that was begun.
    pub(crate) fn learns_from_others(&mut self, data: String) -> bool {
        let before = std::mem::replace(&mut self.data, data);
        !before.is_empty() && before != self.data
    }

    /// Counts a step that was left out, or one that was not.
    pub(crate) fn count_skipped(&mut self, skipped: bool) {
        self.skipped_steps += u64::from(skipped);
        self.skipped_in_a_row = if skipped { self.skipped_in_a_row + 1 } else { 0 };
    }
}

/// The best evaluation of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Best {
    /// The metric that decides.
    pub metric: String,
    /// Its value.
    pub value: f64,
    /// Steps done when it was found.
    pub step: u64,
}

/// Which of two evaluations is the better one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BestBy {
    /// The metric that decides.
    pub metric: String,
    /// Whether it should rise or fall.
    pub wanted: Wanted,
}

/// Where a metric should go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Up.
    Greater,
    /// Down.
    Less,
}

impl BestBy {
    /// Decides by `metric`, which should rise or fall as `greater_is_better` says, or else rise
    /// unless its name ends in `loss`.
    pub fn new(metric: &str, greater_is_better: Option<bool>) -> Self {
        let greater = greater_is_better.unwrap_or(!metric.ends_with("loss"));
        let wanted = if greater { Wanted::Greater } else { Wanted::Less };
        Self { metric: metric.into(), wanted }
    }

    /// Puts the evaluation after `step` steps in the place of `best` if it is better; says whether
    /// it was. An evaluation without the metric, or with one that is not a number, never is.
    pub fn take(&self, best: &mut Option<Best>, value: Option<f64>, step: u64) -> bool {
        let Some(value) = value.filter(|value| value.is_finite()) else { return false };
        let before = best.as_ref().filter(|best| best.metric == self.metric);
        let better = before.is_none_or(|best| match self.wanted {
            Wanted::Greater => value > best.value,
            Wanted::Less => value < best.value,
        });
        if better {
            *best = Some(Best { metric: self.metric.clone(), value, step });
        }
        better
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best_steps(by: &BestBy, values: &[Option<f64>]) -> Vec<u64> {
        let mut best = None;
        let steps = (0..).zip(values);
        steps.filter(|(step, value)| by.take(&mut best, **value, *step)).map(|(s, _)| s).collect()
    }

    #[test]
    fn an_accuracy_should_rise_and_a_loss_fall_unless_it_is_said() {
        let values = [Some(0.5), Some(0.4), Some(0.6), Some(0.6)];
        assert_eq!(best_steps(&BestBy::new("eval/accuracy", None), &values), [0, 2]);
        assert_eq!(best_steps(&BestBy::new("eval/loss", None), &values), [0, 1]);
        assert_eq!(best_steps(&BestBy::new("eval/accuracy", Some(false)), &values), [0, 1]);
        assert_eq!(best_steps(&BestBy::new("eval/loss", Some(true)), &values), [0, 2]);
    }

    #[test]
    fn an_evaluation_without_a_number_is_never_the_best() {
        let by = BestBy::new("eval/accuracy", None);
        assert_eq!(best_steps(&by, &[None, Some(f64::NAN), Some(0.1), None]), [2]);
    }

    #[test]
    fn another_metric_begins_anew() {
        let mut best = Some(Best { metric: "eval/format".into(), value: 0.9, step: 4 });
        assert!(BestBy::new("eval/accuracy", None).take(&mut best, Some(0.1), 8));
        assert_eq!(best, Some(Best { metric: "eval/accuracy".into(), value: 0.1, step: 8 }));
    }
}
