//! Settings of the reference model.

use serde::{Deserialize, Serialize};

use super::faults::Faults;

/// Whether and how the reference model follows the policy.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReferenceSettings {
    /// Move the reference model towards the policy during training (TR-DPO). Default: false.
    pub sync_ref_model: bool,
    /// Mixing coefficient of each sync: `reference = alpha · policy + (1 - alpha) · reference`. Default: 0.6.
    pub ref_model_mixup_alpha: f64,
    /// Interval in steps between reference syncs. Default: 512.
    pub ref_model_sync_steps: u64,
}

impl Default for ReferenceSettings {
    fn default() -> Self {
        Self { sync_ref_model: false, ref_model_mixup_alpha: 0.6, ref_model_sync_steps: 512 }
    }
}

impl ReferenceSettings {
    pub(super) fn add_faults(&self, faults: &mut Faults) {
        faults.at_least("ref_model_sync_steps", self.ref_model_sync_steps, 1);
        let alpha = self.ref_model_mixup_alpha;
        faults.unless(alpha > 0.0 && alpha <= 1.0, "ref_model_mixup_alpha", || {
            format!("must be greater than 0 and at most 1, not {alpha}")
        });
    }
}
