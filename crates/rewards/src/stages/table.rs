//! A stage as it is written.

use serde::{Deserialize, Serialize};

use super::until::Mark;
use super::{Length, Stage, Until, Weights};

/// A `[[stage]]` table, field by field.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    epochs: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    steps: Option<u64>,
    weights: Weights,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<Until>,
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

/// Why two fields do not say how long a stage lasts, without the stage's place.
pub(super) const BOTH_LENGTHS: &str = "has both `epochs` and `steps`, keep one of them";
pub(super) const NO_LENGTH: &str = "needs `epochs` or `steps`, how long it lasts";

/// Why two fields do not say what mark is meant, without their place.
pub(super) const BOTH_MARKS: &str = "has both `above` and `below`, keep one of them";
pub(super) const NO_MARK: &str = "needs `above` or `below`, the mark to pass";

impl TryFrom<Table> for Stage {
    type Error = &'static str;

    fn try_from(table: Table) -> Result<Self, Self::Error> {
        let length = match (table.epochs, table.steps) {
            (Some(epochs), None) => Length::Epochs(epochs),
            (None, Some(steps)) => Length::Steps(steps),
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
            Length::Epochs(epochs) => (Some(epochs), None),
            Length::Steps(steps) => (None, Some(steps)),
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

/// The value of `until`, field by field.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UntilTable {
    metric: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    above: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    below: Option<f64>,
    window: u64,
}

impl TryFrom<UntilTable> for Until {
    type Error = &'static str;

    fn try_from(table: UntilTable) -> Result<Self, Self::Error> {
        let mark = match (table.above, table.below) {
            (Some(above), None) => Mark::Above(above),
            (None, Some(below)) => Mark::Below(below),
            (Some(_), Some(_)) => return Err(BOTH_MARKS),
            (None, None) => return Err(NO_MARK),
        };
        Ok(Self { metric: table.metric, mark, window: table.window })
    }
}

impl From<Until> for UntilTable {
    fn from(until: Until) -> Self {
        let (above, below) = match until.mark {
            Mark::Above(above) => (Some(above), None),
            Mark::Below(below) => (None, Some(below)),
        };
        Self { metric: until.metric, above, below, window: until.window }
    }
}
