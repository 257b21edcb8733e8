//! Reward weights per training stage.
//!
//! A settings file lists the stages as tables:
//!
//! ```toml
//! [[stage]]
//! epochs = 2
//! weights = { format = 0.7, accuracy = 0.3, consistency = 0.0 }
//! until = { metric = "rewards/format/mean", above = 0.95, window = 50 }
//!
//! [[stage]]
//! steps = 400
//! weights = { format = 0.3, accuracy = 0.7 }
//! blend_steps = 20
//! ```
//!
//! A stage lasts for its `epochs` or `steps`. `until` ends it early, once the mean of a metric over
//! the last `window` steps passes a threshold. `blend_steps` interpolates linearly from the previous
//! stage's weights over that many steps. `restart_schedule` restarts the learning-rate schedule and
//! the optimizer moments, and `reset_reference` makes the current policy the frozen reference; both
//! together match a run that launches each stage as a new training job. Rewards missing from
//! `weights` have weight 0.

mod exit_condition;
mod from_toml;
mod table;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::registry::RewardNames;
pub use exit_condition::{ExitCondition, STEP_METRICS, Threshold};

/// Weight by reward name; missing rewards have weight 0.
pub type Weights = BTreeMap<String, f64>;

/// The maximum length of a stage.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum StageLength {
    /// Epochs over the training set.
    Epochs(f64),
    /// Training steps.
    Steps(u64),
}

/// A training stage with its reward weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "table::Table", into = "table::Table")]
pub struct Stage {
    /// Maximum length.
    pub length: StageLength,
    /// Weight by reward name; missing rewards have weight 0.
    pub weights: Weights,
    /// Ends the stage early.
    pub until: Option<ExitCondition>,
    /// Steps over which the weights are interpolated from the previous stage's.
    pub blend_steps: u64,
    /// Restarts the learning-rate schedule and the optimizer moments at the start of this stage.
    pub restart_schedule: bool,
    /// The policy at the start of this stage becomes the frozen reference.
    pub reset_reference: bool,
}

impl Stage {
    /// A stage with this length and these weights; everything else is off.
    pub fn new(length: StageLength, weights: Weights) -> Self {
        Self {
            length,
            weights,
            until: None,
            blend_steps: 0,
            restart_schedule: false,
            reset_reference: false,
        }
    }

    /// The weight of reward `name`, 0 if it has none.
    pub fn weight(&self, name: &str) -> f64 {
        weight(&self.weights, name)
    }
}

/// The weight of reward `name`, 0 if it has none.
pub fn weight(weights: &Weights, name: &str) -> f64 {
    weights.get(name).copied().unwrap_or(0.0)
}

/// Linear interpolation of the weights, from `from` at `fraction` 0 to `to` at 1.
pub fn blend(from: &Weights, to: &Weights, fraction: f64) -> Weights {
    let interpolated = |name: &String| {
        let (from, to) = (weight(from, name), weight(to, name));
        (name.clone(), from + (to - from) * fraction)
    };
    from.keys().chain(to.keys()).map(interpolated).collect()
}

/// The stages of a run in order; never empty.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct RewardSchedule {
    stages: Vec<Stage>,
}

/// All errors in a list of tables of a settings file, one message each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ValidationErrors(pub Vec<String>);

impl RewardSchedule {
    /// Validates `stages`, which may weight the rewards in `names`.
    ///
    /// # Errors
    /// All errors at once, each with its path, such as `stage[1].weights.format`.
    pub fn new(stages: Vec<Stage>, names: &RewardNames) -> Result<Self, ValidationErrors> {
        let mut errors = Vec::new();
        if stages.is_empty() {
            errors.push(NO_STAGE.to_owned());
        }
        for (index, stage) in stages.iter().enumerate() {
            let position = StagePosition::new(index, stages.len());
            errors.extend(length_error(&position, stage.length));
            errors.extend(weight_errors(&position, &stage.weights, names));
            if let Some(until) = &stage.until {
                errors.extend(until.errors(&position, Some(stage.length)));
                errors.extend(until.metric_error(&position, Some(&stage.weights), names));
            }
            errors.extend(blend_errors(&position, stage.blend_steps, Some(stage.length)));
        }
        if errors.is_empty() { Ok(Self { stages }) } else { Err(ValidationErrors(errors)) }
    }

    /// Parses and validates the value of the key `stage` of a settings file, a list of tables. The
    /// stages may weight the rewards in `names`.
    ///
    /// # Errors
    /// All errors at once, each with its path: wrong types, unknown and missing fields, unknown
    /// rewards, values out of range. Indices count from 0.
    pub fn from_toml(value: &toml::Value, names: &RewardNames) -> Result<Self, ValidationErrors> {
        let mut errors = Vec::new();
        let stages = from_toml::stages(value, names, &mut errors);
        if errors.is_empty() { Ok(Self { stages }) } else { Err(ValidationErrors(errors)) }
    }

    /// The stages in order.
    pub fn stages(&self) -> &[Stage] {
        &self.stages
    }
}

impl Default for RewardSchedule {
    /// Embodied-R's three stages: mostly format, then accuracy, then accuracy with consistency.
    fn default() -> Self {
        let stage = |epochs, format, accuracy, consistency| {
            let weights =
                [("format", format), ("accuracy", accuracy), ("consistency", consistency)];
            let weights = weights.map(|(name, weight)| (name.to_owned(), weight));
            Stage::new(StageLength::Epochs(epochs), weights.into())
        };
        Self {
            stages: vec![
                stage(2.0, 0.7, 0.3, 0.0),
                stage(2.0, 0.3, 0.7, 0.0),
                stage(8.0, 0.1, 0.7, 0.2),
            ],
        }
    }
}

const NO_STAGE: &str = "`stage`: there must be at least one";

/// A stage's position in the list.
struct StagePosition {
    /// Its path in messages, such as `stage[1]`.
    path: String,
    first: bool,
    last: bool,
}

impl StagePosition {
    fn new(index: usize, count: usize) -> Self {
        Self { path: format!("stage[{index}]"), first: index == 0, last: index + 1 == count }
    }
}

fn length_error(StagePosition { path, .. }: &StagePosition, length: StageLength) -> Option<String> {
    match length {
        StageLength::Epochs(epochs) if epochs.is_finite() && epochs > 0.0 => None,
        StageLength::Epochs(epochs) => {
            Some(format!("`{path}.epochs`: must be more than 0, not {epochs}"))
        }
        StageLength::Steps(0) => Some(format!("`{path}.steps`: must be 1 or more, not 0")),
        StageLength::Steps(_) => None,
    }
}

fn weight_errors(
    StagePosition { path, .. }: &StagePosition,
    weights: &Weights,
    names: &RewardNames,
) -> Vec<String> {
    let mut errors = Vec::new();
    for (name, &weight) in weights {
        if !names.contains(name) {
            let known: Vec<&str> = names.iter().collect();
            errors.push(unknown(&format!("{path}.weights"), name, "reward", &known));
        } else if !(weight.is_finite() && weight >= 0.0) {
            errors.push(format!("`{path}.weights.{name}`: must be 0 or more, not {weight}"));
        }
    }
    if !weights.values().any(|&weight| weight > 0.0) {
        errors.push(format!("`{path}.weights`: at least one weight must be positive"));
    }
    errors
}

fn blend_errors(
    position: &StagePosition,
    blend_steps: u64,
    length: Option<StageLength>,
) -> Vec<String> {
    let path = &position.path;
    let mut errors = Vec::new();
    if blend_steps > 0 && position.first {
        errors.push(format!(
            "`{path}.blend_steps`: the first stage has no previous stage to blend from; remove it"
        ));
    }
    if let Some(StageLength::Steps(steps)) = length
        && blend_steps > steps
    {
        errors.push(format!(
            "`{path}.blend_steps`: is {blend_steps}, more than the {steps} steps of its stage"
        ));
    }
    errors
}

/// The message for a name that is not in `known`, with a suggestion if one is close.
pub(crate) fn unknown(path: &str, name: &str, what: &str, known: &[&str]) -> String {
    format!("`{path}.{name}`: unknown {what}; {}", suggestion(name, known))
}

/// The closest match of `name` in `known`, or all of `known`.
fn suggestion(name: &str, known: &[&str]) -> String {
    let near = known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .min()
        .filter(|&(distance, candidate)| distance <= candidate.len() / 3);
    match near {
        Some((_, candidate)) => format!("did you mean `{candidate}`?"),
        None => format!("available: {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests;
