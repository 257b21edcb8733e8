//! Settings of advantages.

use serde::{Deserialize, Serialize};

use super::faults::Faults;
use crate::advantages::{AdvantageEstimator, ScaleRewards};

/// How rewards become advantages.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AdvantageSettings {
    /// Advantage estimator: `grpo`, `rloo`, `gdpo`, or `reinforce_plus_plus`, which whitens the rewards over all tokens of
    /// the batch and compares nothing within groups. Default: `grpo`.
    pub advantage_estimator: AdvantageEstimator,
    /// Reward scaling: `group` divides by the group's standard deviation, `batch` by the batch's, `none` not at all, as
    /// verl's `rloo`. Default: `group`.
    pub scale_rewards: ScaleRewards,
}

impl Default for AdvantageSettings {
    fn default() -> Self {
        Self { advantage_estimator: AdvantageEstimator::Grpo, scale_rewards: ScaleRewards::Group }
    }
}

impl AdvantageSettings {
    pub(super) fn add_faults(&self, faults: &mut Faults) {
        let name = match self.advantage_estimator {
            AdvantageEstimator::Grpo | AdvantageEstimator::Rloo => return,
            AdvantageEstimator::Gdpo => "gdpo",
            AdvantageEstimator::ReinforcePlusPlus => "reinforce_plus_plus",
        };
        faults.unless(self.scale_rewards == ScaleRewards::Group, "scale_rewards", || {
            format!(
                "must be `group` with `advantage_estimator = \"{name}\"`, which does its own scaling"
            )
        });
    }
}
