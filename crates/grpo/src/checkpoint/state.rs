//! The state of a run besides weights and optimizer state.

use serde::{Deserialize, Serialize};

use crate::events::WarningMonitor;
use crate::rollout::expected_lengths::ExpectedLengths;

/// The state of a run, except weights, optimizer state and settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Fingerprint of the base model.
    pub model: String,
    /// Fingerprint of the training data; empty before the run starts.
    pub data: String,
    /// Steps done.
    pub step: u64,
    /// First step, from 0, of each stage that has started.
    pub stage_begins: Vec<u64>,
    /// Recent values of the metric in the running stage's `until` condition.
    pub until_values: Vec<f64>,
    /// Optimizer steps since the optimizer was reset.
    pub optimizer_steps: u64,
    /// Number of optimizer state files, one per rank that held a shard.
    #[serde(default = "one")]
    pub optimizer_files: usize,
    /// Folder of the frozen reference within the run's folder; `None` for the base model.
    pub reference: Option<String>,
    /// Step of the last evaluation.
    pub evaluated: Option<u64>,
    /// The best evaluation so far.
    pub best: Option<BestCheckpoint>,
    /// Number of layers whose rollout activations the update reuses entirely; `None` if it runs its own forward pass.
    /// Fixed by the available memory when the run starts, since the gradients' bits depend on it.
    #[serde(default, rename = "taped_layers")]
    pub cached_layers: Option<usize>,
    /// Tokens trained on, prompts included.
    pub num_tokens: u64,
    /// Steps skipped because the loss or a gradient was non-finite.
    pub skipped_steps: u64,
    /// Current number of consecutive skipped steps.
    pub skipped_in_a_row: u64,
    /// Expected completion lengths, by which work is balanced over ranks.
    #[serde(default)]
    pub expected_lengths: ExpectedLengths,
    /// State of the warnings.
    pub watch: WarningMonitor,
    /// Length of `events.jsonl` at the checkpoint, in bytes.
    pub events_bytes: u64,
    /// Length of TensorBoard's event file at the checkpoint, in bytes.
    pub tensorboard_bytes: u64,
}

fn one() -> usize {
    1
}

impl State {
    /// The initial state of a run from the model with this fingerprint.
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
            cached_layers: None,
            num_tokens: 0,
            skipped_steps: 0,
            skipped_in_a_row: 0,
            expected_lengths: ExpectedLengths::default(),
            watch: WarningMonitor::default(),
            events_bytes: 0,
            tensorboard_bytes: 0,
        }
    }

    /// Updates the data fingerprint; returns whether it differs from that of the run so far.
    pub(crate) fn data_changed(&mut self, data: String) -> bool {
        let before = std::mem::replace(&mut self.data, data);
        !before.is_empty() && before != self.data
    }

    /// Updates the counters of skipped steps.
    pub(crate) fn count_skipped(&mut self, skipped: bool) {
        self.skipped_steps += u64::from(skipped);
        self.skipped_in_a_row = if skipped { self.skipped_in_a_row + 1 } else { 0 };
    }
}

/// The best evaluation of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BestCheckpoint {
    /// The metric.
    pub metric: String,
    /// Its value.
    pub value: f64,
    /// Step of the evaluation.
    pub step: u64,
}

/// The criterion for the best checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BestMetric {
    /// The metric.
    pub metric: String,
    /// Whether greater or lesser values are better.
    pub direction: MetricDirection,
}

/// Which values of a metric are better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricDirection {
    /// Greater is better.
    Greater,
    /// Less is better.
    Less,
}

impl BestMetric {
    /// Compares by `metric`. `greater_is_better` defaults to true unless the metric's name ends in `loss`.
    pub fn new(metric: &str, greater_is_better: Option<bool>) -> Self {
        let greater = greater_is_better.unwrap_or(!metric.ends_with("loss"));
        let direction = if greater { MetricDirection::Greater } else { MetricDirection::Less };
        Self { metric: metric.into(), direction }
    }

    /// Replaces `best` with the evaluation at step `step` if it is better; returns whether it was. A missing or
    /// non-finite value never is.
    pub fn update(&self, best: &mut Option<BestCheckpoint>, value: Option<f64>, step: u64) -> bool {
        let Some(value) = value.filter(|value| value.is_finite()) else { return false };
        let before = best.as_ref().filter(|best| best.metric == self.metric);
        let better = before.is_none_or(|best| match self.direction {
            MetricDirection::Greater => value > best.value,
            MetricDirection::Less => value < best.value,
        });
        if better {
            *best = Some(BestCheckpoint { metric: self.metric.clone(), value, step });
        }
        better
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best_steps(by: &BestMetric, values: &[Option<f64>]) -> Vec<u64> {
        let mut best = None;
        let steps = (0..).zip(values);
        steps.filter(|(step, value)| by.update(&mut best, **value, *step)).map(|(s, _)| s).collect()
    }

    #[test]
    fn the_saved_keys_are_those_of_earlier_checkpoints_and_what_they_lack_is_optional() {
        let saved = serde_json::to_value(State::new("model")).unwrap();
        let mut saved = saved.as_object().unwrap().clone();
        assert!(saved.remove("expected_lengths").is_some());
        let mut keys: Vec<&str> = saved.keys().map(String::as_str).collect();
        keys.sort_unstable();
        let earlier = [
            "best",
            "data",
            "evaluated",
            "events_bytes",
            "model",
            "num_tokens",
            "optimizer_files",
            "optimizer_steps",
            "reference",
            "skipped_in_a_row",
            "skipped_steps",
            "stage_begins",
            "step",
            "taped_layers",
            "tensorboard_bytes",
            "until_values",
            "watch",
        ];
        assert_eq!(keys, earlier);
        let state: State = serde_json::from_value(serde_json::Value::Object(saved)).unwrap();
        assert_eq!(state, State::new("model"));
    }

    #[test]
    fn accuracy_is_maximized_and_loss_minimized_by_default() {
        let values = [Some(0.5), Some(0.4), Some(0.6), Some(0.6)];
        assert_eq!(best_steps(&BestMetric::new("eval/accuracy", None), &values), [0, 2]);
        assert_eq!(best_steps(&BestMetric::new("eval/loss", None), &values), [0, 1]);
        assert_eq!(best_steps(&BestMetric::new("eval/accuracy", Some(false)), &values), [0, 1]);
        assert_eq!(best_steps(&BestMetric::new("eval/loss", Some(true)), &values), [0, 2]);
    }

    #[test]
    fn a_missing_or_non_finite_value_is_never_the_best() {
        let by = BestMetric::new("eval/accuracy", None);
        assert_eq!(best_steps(&by, &[None, Some(f64::NAN), Some(0.1), None]), [2]);
    }

    #[test]
    fn another_metric_replaces_the_best() {
        let mut best = Some(BestCheckpoint { metric: "eval/format".into(), value: 0.9, step: 4 });
        assert!(BestMetric::new("eval/accuracy", None).update(&mut best, Some(0.1), 8));
        assert_eq!(
            best,
            Some(BestCheckpoint { metric: "eval/accuracy".into(), value: 0.1, step: 8 })
        );
    }
}
