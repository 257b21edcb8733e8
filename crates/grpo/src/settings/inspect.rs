//! Settings of a loss that is inspected.

use serde::{Deserialize, Serialize};

use super::faults::{Fault, Faults};
use super::flat::flat;
use super::{LossSettings, VisionSettings};

/// Settings on which a given batch's loss and its gradients depend.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct InspectSettings {
    /// The loss.
    #[serde(flatten)]
    pub loss: LossSettings,
    /// The vision encoder.
    #[serde(flatten)]
    pub vision: VisionSettings,
}

flat!(InspectSettings: LossSettings, VisionSettings);

impl InspectSettings {
    /// All invalid settings at once.
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = Faults(self.loss.faults());
        self.vision.add_faults(false, &mut faults);
        faults.0
    }
}
