//! The serialized form of a stage.

use serde::{Deserialize, Serialize};

use super::exit_condition::Threshold;
use super::{ExitCondition, Stage, StageLength, Weights};

/// A `[[stage]]` table.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
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

/// Messages about the stage's length, without its path.
pub(super) const BOTH_LENGTHS: &str = "`epochs` and `steps` are mutually exclusive; set one";
pub(super) const NO_LENGTH: &str = "needs a length; set `epochs` or `steps`";

/// Messages about the threshold, without its path.
pub(super) const BOTH_THRESHOLDS: &str = "`above` and `below` are mutually exclusive; set one";
pub(super) const NO_THRESHOLD: &str = "needs a threshold; set `above` or `below`";

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

/// The value of `until`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExitConditionTable {
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
