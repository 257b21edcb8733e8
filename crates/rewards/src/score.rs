//! Scores of completions.

use serde::{Deserialize, Serialize};

/// A raw, unweighted score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// A finite number: from 0 to 1 for accuracy, format and consistency, 0 or less for penalties,
    /// any value for external rewards. `None` if the reward does not apply or could not be
    /// computed; such a score adds nothing to the weighted sum and is excluded from means.
    pub value: Option<f64>,
    /// Why the score is below the maximum.
    #[serde(rename = "why")]
    pub reason: Option<String>,
}

impl Score {
    /// Full score.
    pub fn full() -> Self {
        Self { value: Some(1.0), reason: None }
    }

    /// Score 0, with the reason.
    pub fn zero(reason: impl Into<String>) -> Self {
        Self { value: Some(0.0), reason: Some(reason.into()) }
    }

    /// No score (`None`), with the reason.
    pub fn absent(reason: impl Into<String>) -> Self {
        Self { value: None, reason: Some(reason.into()) }
    }

    /// No score of a length-based reward for text without token ids.
    pub(crate) fn unknown_length() -> Self {
        Self::absent("the token count is unknown")
    }
}
