//! Settings of supervised fine-tuning alone.

use serde::{Deserialize, Serialize};

use super::faults::Faults;

/// Length and batches of a supervised run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SupervisedSettings {
    /// Number of training epochs. Default: 3.
    pub num_train_epochs: u64,
    /// Maximum number of training steps; ends the run early. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<u64>,
    /// Global batch size: assistant messages per optimizer step, over all ranks. Default: 16.
    pub train_batch_size: usize,
    /// Maximum sequence length in tokens, prompt included; never more than the model's context. Default: 8192.
    pub max_length: usize,
    /// Checkpoint interval in steps. Default: one checkpoint per epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub save_steps: Option<u64>,
}

impl Default for SupervisedSettings {
    fn default() -> Self {
        Self {
            num_train_epochs: 3,
            max_steps: None,
            train_batch_size: 16,
            max_length: 8192,
            save_steps: None,
        }
    }
}

impl SupervisedSettings {
    pub(super) fn add_faults(&self, faults: &mut Faults) {
        faults.at_least("num_train_epochs", self.num_train_epochs, 1);
        faults.at_least("train_batch_size", self.train_batch_size as u64, 1);
        faults.at_least("max_length", self.max_length as u64, 2);
        for (key, steps) in [("max_steps", self.max_steps), ("save_steps", self.save_steps)] {
            if let Some(steps) = steps {
                faults.at_least(key, steps, 1);
            }
        }
    }
}
