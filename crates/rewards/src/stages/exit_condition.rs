//! The condition that ends a stage early, and its form in a settings file.

use serde::{Deserialize, Serialize};

/// Messages about the threshold, without its path.
pub(super) const BOTH_THRESHOLDS: &str = "`above` and `below` are mutually exclusive; set one";
pub(super) const NO_THRESHOLD: &str = "needs a threshold; set `above` or `below`";

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

    pub(super) fn value(self) -> f64 {
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
}

/// The value of `until`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExitConditionTable {
    metric: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    above: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    below: Option<f64>,
    window: u64,
}

impl TryFrom<ExitConditionTable> for ExitCondition {
    type Error = &'static str;

    fn try_from(table: ExitConditionTable) -> Result<Self, Self::Error> {
        let threshold = match (table.above, table.below) {
            (Some(above), None) => Threshold::Above(above),
            (None, Some(below)) => Threshold::Below(below),
            (Some(_), Some(_)) => return Err(BOTH_THRESHOLDS),
            (None, None) => return Err(NO_THRESHOLD),
        };
        Ok(Self { metric: table.metric, threshold, window: table.window })
    }
}

impl From<ExitCondition> for ExitConditionTable {
    fn from(until: ExitCondition) -> Self {
        let (above, below) = match until.threshold {
            Threshold::Above(above) => (Some(above), None),
            Threshold::Below(below) => (None, Some(below)),
        };
        Self { metric: until.metric, above, below, window: until.window }
    }
}
