//! Settings of the optimizer.

use serde::{Deserialize, Serialize};

use super::faults::Faults;

/// The optimizer (TRL's `optim`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Optim {
    /// AdamW for all parameters.
    #[default]
    Adamw,
    /// Muon for the matrices between embedding and LM head, AdamW for all other parameters.
    Muon,
}

/// The optimizer and its hyperparameters, constant over a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OptimizerSettings {
    /// Optimizer: `adamw`, or `muon`, which uses Muon for the matrices between embedding and LM head. Default: `adamw`.
    pub optim: Optim,
    /// AdamW's decay rate of the first moment. Default: 0.9.
    pub adam_beta1: f64,
    /// AdamW's decay rate of the second moment. Default: 0.95.
    pub adam_beta2: f64,
    /// AdamW's epsilon, added to the denominator. Default: 1e-8.
    pub adam_epsilon: f64,
    /// Decoupled weight decay of matrices; norms and biases have none. Default: 0.1.
    pub weight_decay: f64,
    /// Maximum gradient norm for clipping. Default: 1.
    pub max_grad_norm: f64,
}

impl Default for OptimizerSettings {
    fn default() -> Self {
        Self {
            optim: Optim::Adamw,
            adam_beta1: 0.9,
            adam_beta2: 0.95,
            adam_epsilon: 1e-8,
            weight_decay: 0.1,
            max_grad_norm: 1.0,
        }
    }
}

impl OptimizerSettings {
    pub(super) fn add_faults(&self, faults: &mut Faults) {
        faults.fraction("adam_beta1", self.adam_beta1);
        faults.fraction("adam_beta2", self.adam_beta2);
        faults.positive("adam_epsilon", self.adam_epsilon);
        faults.not_negative("weight_decay", self.weight_decay);
        faults.positive("max_grad_norm", self.max_grad_norm);
    }
}
