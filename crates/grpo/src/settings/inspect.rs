//! Settings of a loss that is inspected.

use embodied_r_policy::Trainable;
use serde::{Deserialize, Serialize};

use super::faults::{Fault, Faults};
use super::flat::flat;
use super::{LossSettings, TrainableSettings, VisionSettings};

/// Settings on which a given batch's loss and its gradients depend.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct InspectSettings {
    /// The loss.
    #[serde(flatten)]
    pub loss: LossSettings,
    /// The trainable parameters. An adapter has no dropout, so that its gradients can be compared.
    #[serde(flatten)]
    pub trainable: TrainableSettings,
    /// The vision encoder.
    #[serde(flatten)]
    pub vision: VisionSettings,
}

flat!(InspectSettings: LossSettings, TrainableSettings, VisionSettings);

impl InspectSettings {
    /// All invalid settings at once.
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = Faults(self.loss.faults());
        self.trainable.add_faults(&self.vision, &mut faults);
        let dropout = self.trainable.lora_dropout;
        let is_off = [0.0, TrainableSettings::default().lora_dropout].contains(&dropout);
        faults.unless(is_off, "lora_dropout", || {
            "has no effect: an inspected loss has no dropout".into()
        });
        self.vision.add_faults(&mut faults);
        faults.0
    }

    /// The trainable parameters of `model`, without dropout.
    #[must_use]
    pub fn trainable(&self, model: &str) -> Trainable {
        let trainable = TrainableSettings { lora_dropout: 0.0, ..self.trainable.clone() };
        trainable.trainable(model, &self.vision)
    }
}
