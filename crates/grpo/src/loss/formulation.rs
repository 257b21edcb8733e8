//! The formulations of the loss.

use serde::{Deserialize, Serialize};

/// The loss formulation (TRL's `loss_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossType {
    /// The mean over completions of the mean over their tokens.
    #[default]
    Grpo,
    /// The mean over the tokens of a micro-batch.
    Bnpo,
    /// The sum over tokens, divided by completions × `max_completion_length`.
    DrGrpo,
    /// The mean over all tokens of the step.
    Dapo,
    /// As `dapo`, with a clipped, detached importance weight in place of the clipped ratio.
    Cispo,
    /// As `grpo`, with a sigmoid gate in place of the clip.
    Sapo,
}

/// The granularity of importance ratios (TRL's `importance_sampling_level`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImportanceSamplingLevel {
    /// One ratio per token.
    #[default]
    Token,
    /// One ratio per completion: the geometric mean of its tokens' ratios (GSPO).
    Sequence,
}
