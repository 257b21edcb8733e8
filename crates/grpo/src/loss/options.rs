//! The options of the loss.

use serde::{Deserialize, Serialize};

use super::ImportanceSamplingCorrection;

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

/// The options of the loss, under TRL's names.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossOptions {
    /// Loss formulation.
    pub loss_type: LossType,
    /// Granularity of the importance ratios.
    pub importance_sampling_level: ImportanceSamplingLevel,
    /// Lower clip range: ratios below `1 - epsilon` are clipped.
    pub epsilon: f64,
    /// Upper clip range: ratios above `1 + epsilon_high` are clipped. For `cispo` the upper bound itself.
    pub epsilon_high: f64,
    /// Upper bound of the unclipped ratio, effective for negative advantages.
    pub delta: Option<f64>,
    /// KL coefficient.
    pub beta: f64,
    /// Whether a token's KL is multiplied by its importance ratio, which gives the unbiased gradient of the reverse KL
    /// (DeepSeek-V3.2, TRL's `use_bias_correction_kl`).
    pub use_bias_correction_kl: bool,
    /// Temperature of `sapo`'s gate for positive advantages.
    pub sapo_temperature_pos: f64,
    /// Temperature of `sapo`'s gate for all other advantages.
    pub sapo_temperature_neg: f64,
    /// Mask completions with a negative advantage whose mean `sampling - logp` exceeds this (DeepSeek-V3.2, TRL's
    /// `off_policy_mask_threshold`).
    pub off_policy_mask_threshold: Option<f64>,
    /// Importance correction for a sampler in another precision than the update.
    pub correction: Option<ImportanceSamplingCorrection>,
}

impl Default for LossOptions {
    /// TRL's defaults, but for `loss_type`.
    fn default() -> Self {
        Self {
            loss_type: LossType::Grpo,
            importance_sampling_level: ImportanceSamplingLevel::Token,
            epsilon: 0.2,
            epsilon_high: 0.2,
            delta: None,
            beta: 0.0,
            use_bias_correction_kl: true,
            sapo_temperature_pos: 1.0,
            sapo_temperature_neg: 1.05,
            off_policy_mask_threshold: None,
            correction: None,
        }
    }
}
