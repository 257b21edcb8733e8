//! A stage, and its form in a settings file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::exit_condition::ExitCondition;

/// Messages about the stage's length, without its path.
pub(super) const BOTH_LENGTHS: &str = "`epochs` and `steps` are mutually exclusive; set one";
pub(super) const NO_LENGTH: &str = "needs a length; set `epochs` or `steps`";

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
#[serde(try_from = "Table", into = "Table")]
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

/// A `[[stage]]` table.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    epochs: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    steps: Option<u64>,
    weights: Weights,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<ExitCondition>,
    #[serde(default, skip_serializing_if = "is_zero")]
    blend_steps: u64,
    #[serde(default)]
    restart_schedule: bool,
    #[serde(default)]
    reset_reference: bool,
}

fn is_zero(steps: &u64) -> bool {
    *steps == 0
}

impl TryFrom<Table> for Stage {
    type Error = &'static str;

    fn try_from(table: Table) -> Result<Self, Self::Error> {
        let length = match (table.epochs, table.steps) {
            (Some(epochs), None) => StageLength::Epochs(epochs),
            (None, Some(steps)) => StageLength::Steps(steps),
            (Some(_), Some(_)) => return Err(BOTH_LENGTHS),
            (None, None) => return Err(NO_LENGTH),
        };
        Ok(Self {
            length,
            weights: table.weights,
            until: table.until,
            blend_steps: table.blend_steps,
            restart_schedule: table.restart_schedule,
            reset_reference: table.reset_reference,
        })
    }
}

impl From<Stage> for Table {
    fn from(stage: Stage) -> Self {
        let (epochs, steps) = match stage.length {
            StageLength::Epochs(epochs) => (Some(epochs), None),
            StageLength::Steps(steps) => (None, Some(steps)),
        };
        Self {
            epochs,
            steps,
            weights: stage.weights,
            until: stage.until,
            blend_steps: stage.blend_steps,
            restart_schedule: stage.restart_schedule,
            reset_reference: stage.reset_reference,
        }
    }
}
