//! Which layers a backward computes again.

use serde::{Deserialize, Serialize};

/// Which layers the backward computes again in place of keeping what their forward computed. It changes
/// time and memory, and no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recompute {
    /// Those for which there is no memory.
    #[default]
    Auto,
    /// All.
    All,
    /// None.
    None,
}
