//! Activation recomputation policy.

use serde::{Deserialize, Serialize};

/// Activation recomputation (gradient checkpointing) policy. It trades time for memory; results change only by
/// rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recompute {
    /// Recompute only the layers whose activations do not fit in memory. The update reuses the rollout's activations as
    /// far as memory allows: up to half of the free memory, and at most the larger of the model's state and one
    /// micro-batch.
    #[default]
    Auto,
    /// Recompute every layer; the update does not reuse the rollout's activations.
    All,
    /// Keep all activations; at equal precision, the update reuses the rollout's.
    None,
}
