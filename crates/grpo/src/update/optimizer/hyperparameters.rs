//! The optimizer and its hyperparameters.

use serde::{Deserialize, Serialize};

use crate::settings::Faults;

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

/// Hyperparameters of the optimizer, constant over a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OptimizerSettings {
    /// The optimizer.
    pub optim: Optim,
    /// Decay rate of the first moment.
    pub beta1: f64,
    /// Decay rate of the second moment.
    pub beta2: f64,
    /// Added to the denominator.
    pub epsilon: f64,
    /// Decoupled weight decay of matrices.
    pub weight_decay: f64,
    /// Maximum gradient norm for clipping.
    pub max_grad_norm: f64,
}

impl OptimizerSettings {
    pub(crate) fn faults(&self, faults: &mut Faults) {
        faults.fraction("adam_beta1", self.beta1);
        faults.fraction("adam_beta2", self.beta2);
        faults.positive("adam_epsilon", self.epsilon);
        faults.not_negative("weight_decay", self.weight_decay);
        faults.positive("max_grad_norm", self.max_grad_norm);
    }
}
