//! Settings of the loss alone.

use serde::{Deserialize, Serialize};

use super::faults::{Fault, Faults, MAX_COUNT};
use crate::loss::{
    ImportanceSamplingCorrection, ImportanceSamplingLevel, ImportanceSamplingMode, LossType,
};

/// The settings that a loss depends on. Names and defaults are TRL's; a GRPO run overrides some defaults.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LossSettings {
    /// Maximum number of new tokens per completion; also the normalization constant of `dr_grpo`. Default: 512.
    pub max_completion_length: usize,
    /// Sampling temperature, also applied to the logits before the log-probabilities of the loss. Default: 1.
    pub temperature: f64,
    /// Loss formulation: `grpo`, `bnpo`, `dr_grpo`, `dapo`, `cispo` or `sapo`. Default: `dapo`.
    pub loss_type: LossType,
    /// Granularity of the importance ratios: `token`, or `sequence` (GSPO). Default: `token`.
    pub importance_sampling_level: ImportanceSamplingLevel,
    /// Clip range below 1: ratios are clipped at `1 - epsilon`. Default: 0.2.
    pub epsilon: f64,
    /// Clip range above 1: ratios are clipped at `1 + epsilon_high`; for `cispo` the upper bound of the ratio itself.
    /// DAPO recommends 0.28. Default: `epsilon`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epsilon_high: Option<f64>,
    /// Upper bound of the unclipped ratio (two-sided clipping, or dual clip), above `1 + epsilon_high`: bounds the loss where
    /// the advantage is negative. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delta: Option<f64>,
    /// KL coefficient; 0 trains without a KL term and does not load a reference model for it. Default: 0.
    pub beta: f64,
    /// Multiply each token's KL by its importance ratio, as in DeepSeek-V3.2. Default: true.
    pub use_bias_correction_kl: bool,
    /// Exclude completions truncated at `max_completion_length` from the loss. Default: false.
    pub mask_truncated_completions: bool,
    /// Fraction of a step's tokens, by highest entropy, that contribute to the policy loss; 1 keeps all. Default: 1.
    pub top_entropy_quantile: f64,
    /// Temperature of `sapo`'s gate for positive advantages. Default: 1.
    pub sapo_temperature_pos: f64,
    /// Temperature of `sapo`'s gate for all other advantages. Default: 1.05.
    pub sapo_temperature_neg: f64,
    /// Mean `sampling_logp - logp` above which a completion with a negative advantage is masked (DeepSeek-V3.2).
    /// Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub off_policy_mask_threshold: Option<f64>,
    /// Correct for a rollout in another precision with importance weights. Default: true.
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
            max_completion_length: 512,
            temperature: 1.0,
            loss_type: LossType::Dapo,
            importance_sampling_level: ImportanceSamplingLevel::Token,
            epsilon: 0.2,
            epsilon_high: None,
            delta: None,
            beta: 0.0,
            use_bias_correction_kl: true,
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
        let longest = self.max_completion_length as u64;
        faults.between("max_completion_length", longest, 1..=MAX_COUNT);
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

    /// The upper clip range: ratios above `1 + epsilon_high` are clipped. For `cispo` the upper bound itself.
    pub fn epsilon_high(&self) -> f64 {
        self.epsilon_high.unwrap_or(self.epsilon)
    }

    /// The correction for a sampler in another precision than the update.
    pub fn correction(&self) -> Option<ImportanceSamplingCorrection> {
        self.importance_sampling_correction.then_some(ImportanceSamplingCorrection {
            mode: self.importance_sampling_mode,
            clip_min: self.importance_sampling_clip_min,
            clip_max: Some(self.importance_sampling_clip_max),
        })
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
