//! Settings of advantages.

use serde::{Deserialize, Serialize};

use super::faults::Faults;
use crate::advantages::{AdvantageEstimator, ScaleRewards};

/// How rewards become advantages.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AdvantageSettings {
    /// Advantage estimator: `grpo`, `rloo` or `gdpo`. Default: `grpo`.
    pub advantage_estimator: AdvantageEstimator,
    /// Reward scaling: `group` divides by the group's standard deviation, `batch` by the batch's, `none` not at all.
    /// Default: `group`.
    pub scale_rewards: ScaleRewards,
}

impl Default for AdvantageSettings {
    fn default() -> Self {
        Self { advantage_estimator: AdvantageEstimator::Grpo, scale_rewards: ScaleRewards::Group }
    }
}

impl AdvantageSettings {
    pub(super) fn add_faults(&self, faults: &mut Faults) {
        let gdpo = self.advantage_estimator == AdvantageEstimator::Gdpo;
        faults.unless(!gdpo || self.scale_rewards == ScaleRewards::Group, "scale_rewards", || {
            "must be `group` with `advantage_estimator = \"gdpo\"`, which does its own scaling"
                .into()
        });
    }
}
