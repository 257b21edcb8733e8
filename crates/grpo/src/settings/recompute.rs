//! Which layers a backward computes again.

use serde::{Deserialize, Serialize};

/// Which layers the backward computes again in place of keeping what their forward computed, be that the update's own
/// or the rollout's. It changes time and memory, and results by rounding alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recompute {
    /// Those for which there is no memory. A rollout is kept as far as the free memory allows it, and at most as much
    /// of it as the model's state takes, or a whole micro-batch.
    #[default]
    Auto,
    /// All; the rollout keeps nothing.
    All,
    /// None, and no forward but the rollout's.
    None,
}
