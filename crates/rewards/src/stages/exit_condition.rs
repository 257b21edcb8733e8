//! The condition that ends a stage early.

use serde::{Deserialize, Serialize};

use super::table::ExitConditionTable;
use super::{StageLength, StagePosition, Weights, suggestion, weight};
use crate::registry::RewardNames;

/// Step metrics that `until` can use, besides `rewards/NAME/mean` and `rewards/NAME/std`.
pub const STEP_METRICS: [&str; 10] = [
    "reward",
    "reward_std",
    "frac_reward_zero_std",
    "completions/mean_length",
    "completions/mean_terminated_length",
    "completions/clipped_ratio",
    "loss",
    "kl",
    "entropy",
    "grad_norm",
];

/// Rewards that are computed at every step, whatever their weight.
const ALWAYS_COMPUTED: [&str; 2] = ["accuracy", "format"];

/// A threshold for the mean of a metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Threshold {
    /// Passed by a larger mean.
    Above(f64),
    /// Passed by a smaller mean.
    Below(f64),
}

impl Threshold {
    /// Whether `mean` passes it.
    pub fn passed_by(self, mean: f64) -> bool {
        match self {
            Self::Above(threshold) => mean > threshold,
            Self::Below(threshold) => mean < threshold,
        }
    }

    fn value(self) -> f64 {
        match self {
            Self::Above(threshold) | Self::Below(threshold) => threshold,
        }
    }
}

impl std::fmt::Display for Threshold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Above(threshold) => write!(f, "above {threshold}"),
            Self::Below(threshold) => write!(f, "below {threshold}"),
        }
    }
}

/// Ends a stage once the mean of a metric over its last steps passes a threshold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "ExitConditionTable", into = "ExitConditionTable")]
pub struct ExitCondition {
    /// The step metric, such as `rewards/format/mean`.
    pub metric: String,
    /// The threshold for its mean.
    pub threshold: Threshold,
    /// The number of last steps of the stage to average over.
    pub window: u64,
}

impl ExitCondition {
    /// The mean over the window if the threshold is passed. `values` are the metric's values in
    /// this stage; fewer than `window` never pass.
    pub fn passed(&self, values: &[f64]) -> Option<f64> {
        let window = usize::try_from(self.window).ok().filter(|&window| window > 0)?;
        let last = &values[values.len().checked_sub(window)?..];
        let mean = last.iter().sum::<f64>() / window as f64;
        self.threshold.passed_by(mean).then_some(mean)
    }

    /// Errors of position, threshold and window in a stage of this length.
    pub(super) fn errors(
        &self,
        position: &StagePosition,
        length: Option<StageLength>,
    ) -> Vec<String> {
        let path = &position.path;
        let mut errors = Vec::new();
        if position.last {
            errors
                .push(format!("`{path}.until`: the last stage has no next stage; remove `until`"));
        }
        if !self.threshold.value().is_finite() {
            errors.push(format!("`{path}.until`: the threshold must be finite"));
        }
        if self.window == 0 {
            errors.push(format!("`{path}.until.window`: must be 1 or more, not 0"));
        }
        if let Some(StageLength::Steps(steps)) = length
            && self.window > steps
        {
            errors.push(format!(
                "`{path}.until.window`: is {}, more than the {steps} steps of its stage",
                self.window
            ));
        }
        errors
    }

    /// The error about the metric, if any, in a stage with these weights.
    pub(super) fn metric_error(
        &self,
        StagePosition { path, .. }: &StagePosition,
        weights: Option<&Weights>,
        names: &RewardNames,
    ) -> Option<String> {
        if STEP_METRICS.contains(&self.metric.as_str()) {
            return None;
        }
        match reward_of(&self.metric).filter(|name| names.contains(name)) {
            Some(name) if ALWAYS_COMPUTED.contains(&name) => None,
            // Weights that cannot be parsed are reported separately.
            Some(name) => weights.filter(|weights| weight(weights, name) <= 0.0).map(|_| {
                format!(
                    "`{path}.until.metric`: needs the reward `{name}`, which has no weight in this \
                     stage and may not be computed; give it a weight"
                )
            }),
            None => {
                let of_rewards = names
                    .iter()
                    .flat_map(|name| ["mean", "std"].map(|kind| format!("rewards/{name}/{kind}")));
                let known: Vec<String> =
                    STEP_METRICS.map(str::to_owned).into_iter().chain(of_rewards).collect();
                let known: Vec<&str> = known.iter().map(String::as_str).collect();
                Some(format!(
                    "`{path}.until.metric`: `{}` is not a step metric; {}",
                    self.metric,
                    suggestion(&self.metric, &known)
                ))
            }
        }
    }
}

/// NAME of a metric `rewards/NAME/mean` or `rewards/NAME/std`.
fn reward_of(metric: &str) -> Option<&str> {
    let (name, kind) = metric.strip_prefix("rewards/")?.rsplit_once('/')?;
    ["mean", "std"].contains(&kind).then_some(name)
}
