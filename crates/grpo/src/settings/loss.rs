//! Settings of the loss alone.

use serde::{Deserialize, Serialize};

use super::{Fault, Faults};
use crate::loss::{
    ImportanceSamplingCorrection, ImportanceSamplingLevel, ImportanceSamplingMode, LossOptions,
    LossType,
};

/// The settings that a loss depends on. Names and defaults are TRL's; a GRPO run overrides some defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LossSettings {
    /// Loss formulation: `grpo`, `bnpo`, `dr_grpo`, `dapo`, `cispo` or `sapo`. Default: `dapo`.
    pub loss_type: LossType,
    /// Granularity of the importance ratios: `token`, or `sequence` (GSPO). Default: `token`.
    pub importance_sampling_level: ImportanceSamplingLevel,
    /// Clip range below 1: ratios are clipped at `1 - epsilon`. Default: 0.2.
    pub epsilon: f64,
    /// Clip range above 1: ratios are clipped at `1 + epsilon_high`. Default: `epsilon`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epsilon_high: Option<f64>,
    /// Upper bound of the unclipped ratio (two-sided clipping). Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delta: Option<f64>,
    /// KL coefficient; above 0 the batch needs reference log-probabilities. Default: 0.
    pub beta: f64,
    /// Multiply each token's KL by its importance ratio, as in DeepSeek-V3.2. Default: true.
    pub use_bias_correction_kl: bool,
    /// Sampling temperature, applied to the logits before the log-probabilities. Default: 1.
    pub temperature: f64,
    /// Normalization constant of `dr_grpo`, in tokens. Default: 512.
    pub max_completion_length: usize,
    /// Exclude truncated completions from the loss. Default: false.
    pub mask_truncated_completions: bool,
    /// Fraction of tokens, by highest entropy, that contribute to the policy loss; 1 keeps all. Default: 1.
    pub top_entropy_quantile: f64,
    /// Temperature of `sapo`'s gate for positive advantages. Default: 1.
    pub sapo_temperature_pos: f64,
    /// Temperature of `sapo`'s gate for all other advantages. Default: 1.05.
    pub sapo_temperature_neg: f64,
    /// Mean `sampling_logp - logp` above which a completion with a negative advantage is masked. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub off_policy_mask_threshold: Option<f64>,
    /// Correct for the mismatch between sampler and trainer with importance weights. Default: true.
    pub importance_sampling_correction: bool,
    /// How these weights are bounded: truncated or masked, per token or per sequence. Default: `sequence_mask`.
    pub importance_sampling_mode: ImportanceSamplingMode,
    /// Lower bound of these weights. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub importance_sampling_clip_min: Option<f64>,
    /// Upper bound of these weights. Default: 3.
    pub importance_sampling_clip_max: f64,
}

impl Default for LossSettings {
    fn default() -> Self {
        Self {
            loss_type: LossType::Dapo,
            importance_sampling_level: ImportanceSamplingLevel::Token,
            epsilon: 0.2,
            epsilon_high: None,
            delta: None,
            beta: 0.0,
            use_bias_correction_kl: true,
            temperature: 1.0,
            max_completion_length: 512,
            mask_truncated_completions: false,
            top_entropy_quantile: 1.0,
            sapo_temperature_pos: 1.0,
            sapo_temperature_neg: 1.05,
            off_policy_mask_threshold: None,
            importance_sampling_correction: true,
            importance_sampling_mode: ImportanceSamplingMode::SequenceMask,
            importance_sampling_clip_min: None,
            importance_sampling_clip_max: 3.0,
        }
    }
}

impl LossSettings {
    /// All invalid settings at once.
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = Faults::default();
        self.add_faults(&mut faults);
        faults.0
    }

    pub(super) fn add_faults(&self, faults: &mut Faults) {
        faults.fraction("epsilon", self.epsilon);
        faults.not_negative("beta", self.beta);
        faults.positive("temperature", self.temperature);
        faults.at_least("max_completion_length", self.max_completion_length as u64, 1);
        faults.positive("sapo_temperature_pos", self.sapo_temperature_pos);
        faults.positive("sapo_temperature_neg", self.sapo_temperature_neg);
        let share = self.top_entropy_quantile;
        faults.unless(share > 0.0 && share <= 1.0, "top_entropy_quantile", || {
            format!("must be greater than 0 and at most 1, not {share}")
        });
        for (key, value) in [
            ("epsilon_high", self.epsilon_high),
            ("delta", self.delta),
            ("off_policy_mask_threshold", self.off_policy_mask_threshold),
        ] {
            if let Some(value) = value {
                faults.positive(key, value);
            }
        }
        let (min, max) = (self.importance_sampling_clip_min, self.importance_sampling_clip_max);
        faults.positive("importance_sampling_clip_max", max);
        let ordered = min.is_none_or(|min| min >= 0.0 && min < max);
        faults.unless(ordered, "importance_sampling_clip_min", || {
            let min = min.unwrap_or_default();
            format!(
                "must be at least 0 and below `importance_sampling_clip_max` = {max}, not {min}"
            )
        });
    }

    /// The options of the loss.
    pub fn options(&self) -> LossOptions {
        LossOptions {
            loss_type: self.loss_type,
            importance_sampling_level: self.importance_sampling_level,
            epsilon: self.epsilon,
            epsilon_high: self.epsilon_high.unwrap_or(self.epsilon),
            delta: self.delta,
            beta: self.beta,
            use_bias_correction_kl: self.use_bias_correction_kl,
            sapo_temperature_pos: self.sapo_temperature_pos,
            sapo_temperature_neg: self.sapo_temperature_neg,
            off_policy_mask_threshold: self.off_policy_mask_threshold,
            correction: self.importance_sampling_correction.then_some(
                ImportanceSamplingCorrection {
                    mode: self.importance_sampling_mode,
                    clip_min: self.importance_sampling_clip_min,
                    clip_max: Some(self.importance_sampling_clip_max),
                },
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_have_no_fault() {
        assert_eq!(LossSettings::default().faults(), []);
    }

    #[test]
    fn every_value_out_of_range_is_reported_at_once() {
        let settings = LossSettings {
            epsilon: 1.5,
            temperature: 0.0,
            top_entropy_quantile: 1.5,
            importance_sampling_clip_min: Some(4.0),
            ..LossSettings::default()
        };
        let keys: Vec<String> = settings.faults().into_iter().map(|fault| fault.key).collect();
        let expected =
            ["epsilon", "temperature", "top_entropy_quantile", "importance_sampling_clip_min"];
        assert_eq!(keys, expected);
    }
}
