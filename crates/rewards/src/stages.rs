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

mod checks;
mod exit_condition;
mod from_toml;
mod stage;

use serde::Serialize;

use crate::names::RewardNames;
use crate::validation::ValidationErrors;
use checks::{NO_STAGE, StagePosition};
pub use exit_condition::{ExitCondition, STEP_METRICS, Threshold};
pub use stage::{Stage, StageLength, Weights, blend, weight};

/// The stages of a run in order; never empty.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct RewardSchedule {
    stages: Vec<Stage>,
}

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
            errors.extend(checks::stage_errors(&position, stage, names));
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

#[cfg(test)]
mod tests;
