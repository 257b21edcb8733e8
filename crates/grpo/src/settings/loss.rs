//! Settings of the loss by itself.

use serde::{Deserialize, Serialize};

use super::{Fault, Faults};
use crate::loss::{Correction, CorrectionMode, Level, LossType, Options};

/// What a loss follows from, apart from the run that it is part of. Names and defaults are TRL's; a
/// run has its own defaults for some of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LossSettings {
    /// The form of the loss.
    pub loss_type: LossType,
    /// Ratios by token or by completion.
    pub importance_sampling_level: Level,
    /// Lower clip.
    pub epsilon: f64,
    /// Upper clip; without it as `epsilon`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epsilon_high: Option<f64>,
    /// Upper bound of the unclipped ratio.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delta: Option<f64>,
    /// Weight of the divergence from the reference.
    pub beta: f64,
    /// Whether the divergence is multiplied by the importance ratio.
    pub use_bias_correction_kl: bool,
    /// Temperature of the log-probabilities.
    pub temperature: f64,
    /// What `dr_grpo` divides by.
    pub max_completion_length: usize,
    /// Completions that were cut off do not count.
    pub mask_truncated_completions: bool,
    /// Share of the tokens, those with the highest entropy, that the policy learns from.
    pub top_entropy_quantile: f64,
    /// Temperature of `sapo`'s sigmoid for positive advantages.
    pub sapo_temperature_pos: f64,
    /// Temperature of `sapo`'s sigmoid for all other advantages.
    pub sapo_temperature_neg: f64,
    /// Mean distance from the sampler at which a completion with a negative advantage is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub off_policy_mask_threshold: Option<f64>,
    /// Whether completions of a sampler that computes in another way are weighed by its distance.
    pub importance_sampling_correction: bool,
    /// How these weights are bounded.
    pub importance_sampling_mode: CorrectionMode,
    /// Their lower bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub importance_sampling_clip_min: Option<f64>,
    /// Their upper bound.
    pub importance_sampling_clip_max: f64,
}

impl Default for LossSettings {
    fn default() -> Self {
        Self {
            loss_type: LossType::Dapo,
            importance_sampling_level: Level::Token,
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
            importance_sampling_mode: CorrectionMode::SequenceMask,
            importance_sampling_clip_min: None,
            importance_sampling_clip_max: 3.0,
        }
    }
}

impl LossSettings {
    /// All faults that the types leave possible, at once.
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = Faults::default();
        self.add_faults(&mut faults);
        faults.0
    }

    pub(super) fn add_faults(&self, faults: &mut Faults) {
        faults.share("epsilon", self.epsilon);
        faults.not_negative("beta", self.beta);
        faults.positive("temperature", self.temperature);
        faults.at_least("max_completion_length", self.max_completion_length as u64, 1);
        faults.positive("sapo_temperature_pos", self.sapo_temperature_pos);
        faults.positive("sapo_temperature_neg", self.sapo_temperature_neg);
        let share = self.top_entropy_quantile;
        faults.unless(share > 0.0 && share <= 1.0, "top_entropy_quantile", || {
            format!("is {share}, must be greater than 0 and at most 1")
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
            format!("is {min}, must be at least 0 and below `importance_sampling_clip_max` = {max}")
        });
    }

    /// The options of the loss.
    pub fn options(&self) -> Options {
        Options {
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
            correction: self.importance_sampling_correction.then_some(Correction {
                mode: self.importance_sampling_mode,
                clip_min: self.importance_sampling_clip_min,
                clip_max: Some(self.importance_sampling_clip_max),
            }),
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
    fn every_number_out_of_range_is_named_at_once() {
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
