//! What ends a stage before its time.

use serde::{Deserialize, Serialize};

use super::table::UntilTable;
use super::{Length, Place, Weights, advice, weight};
use crate::registry::Names;

/// Metrics of a step, beside `rewards/NAME/mean` and `rewards/NAME/std`, that a stage can wait for.
pub const METRICS: [&str; 10] = [
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

/// Rewards that are asked at every step, whatever they weigh.
const ALWAYS: [&str; 2] = ["accuracy", "format"];

/// A mark that a mean has to pass.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mark {
    /// Passed by a greater mean.
    Above(f64),
    /// Passed by a smaller mean.
    Below(f64),
}

impl Mark {
    /// Whether `mean` has passed it.
    pub fn passed_by(self, mean: f64) -> bool {
        match self {
            Self::Above(mark) => mean > mark,
            Self::Below(mark) => mean < mark,
        }
    }

    fn value(self) -> f64 {
        match self {
            Self::Above(mark) | Self::Below(mark) => mark,
        }
    }
}

impl std::fmt::Display for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Above(mark) => write!(f, "above {mark}"),
            Self::Below(mark) => write!(f, "below {mark}"),
        }
    }
}

/// Ends a stage once the mean of a metric over the last steps has passed a mark.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "UntilTable", into = "UntilTable")]
pub struct Until {
    /// The metric of the steps, such as `rewards/format/mean`.
    pub metric: String,
    /// The mark.
    pub mark: Mark,
    /// Steps of the stage, the last ones, over which the mean is taken.
    pub window: u64,
}

impl Until {
    /// The mean of `values`, those of the stage's last steps, if there are enough of them and it
    /// has passed the mark.
    pub fn passed(&self, values: &[f64]) -> Option<f64> {
        let window = usize::try_from(self.window).ok().filter(|&window| window > 0)?;
        let last = &values[values.len().checked_sub(window)?..];
        let mean = last.iter().sum::<f64>() / window as f64;
        self.mark.passed_by(mean).then_some(mean)
    }

    /// Faults of the place, the mark and the window, in a stage of this length.
    pub(super) fn faults(&self, place: &Place, length: Option<Length>) -> Vec<String> {
        let text = &place.text;
        let mut faults = Vec::new();
        if place.last {
            faults.push(format!(
                "`{text}.until`: the last stage has none to go over to; give it a length alone"
            ));
        }
        if !self.mark.value().is_finite() {
            faults.push(format!("`{text}.until`: the mark must be a finite number"));
        }
        if self.window == 0 {
            faults.push(format!("`{text}.until.window`: must be 1 or more, not 0"));
        }
        if let Some(Length::Steps(steps)) = length
            && self.window > steps
        {
            faults.push(format!(
                "`{text}.until.window`: is {}, more than the {steps} steps of its stage",
                self.window
            ));
        }
        faults
    }

    /// What is wrong with the metric in a stage of these weights.
    pub(super) fn metric_fault(
        &self,
        Place { text, .. }: &Place,
        weights: Option<&Weights>,
        names: &Names,
    ) -> Option<String> {
        if METRICS.contains(&self.metric.as_str()) {
            return None;
        }
        match reward_of(&self.metric).filter(|name| names.contains(name)) {
            Some(name) if ALWAYS.contains(&name) => None,
            // Weights that cannot be read have a fault of their own.
            Some(name) => weights.filter(|weights| weight(weights, name) <= 0.0).map(|_| {
                format!(
                    "`{text}.until.metric`: is of `{name}`, which has no weight in this stage and \
                     may not be asked; give it one"
                )
            }),
            None => {
                let of_rewards = names
                    .iter()
                    .flat_map(|name| ["mean", "std"].map(|kind| format!("rewards/{name}/{kind}")));
                let known: Vec<String> =
                    METRICS.map(str::to_owned).into_iter().chain(of_rewards).collect();
                let known: Vec<&str> = known.iter().map(String::as_str).collect();
                Some(format!(
                    "`{text}.until.metric`: `{}` is no metric of a step; {}",
                    self.metric,
                    advice(&self.metric, &known)
                ))
            }
        }
    }
}

/// The reward that a metric `rewards/NAME/mean` or `rewards/NAME/std` is of.
fn reward_of(metric: &str) -> Option<&str> {
    let (name, kind) = metric.strip_prefix("rewards/")?.rsplit_once('/')?;
    ["mean", "std"].contains(&kind).then_some(name)
}
