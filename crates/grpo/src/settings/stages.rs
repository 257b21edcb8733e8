//! Settings of a GRPO run's length and stages.

use std::collections::BTreeMap;

use embodied_r_rewards::Stage;
use serde::{Deserialize, Serialize};

/// The length of a GRPO run, and the reward weights over it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StageSettings {
    /// Number of training epochs; needs `reward_weights`, since stages set their own lengths. Default: 1 with
    /// `reward_weights`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_train_epochs: Option<f64>,
    /// Maximum number of training steps; ends the run early. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<u64>,
    /// Reward weights of the whole run, by name. Default: the stages' weights.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub reward_weights: BTreeMap<String, f64>,
    /// Stages of a curriculum, with the fields `epochs` or `steps`, `weights`, `until`, `blend_steps`, `restart_schedule` and
    /// `reset_reference`. Default: the paper's three.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stage: Vec<Stage>,
}
