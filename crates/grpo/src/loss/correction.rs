//! Importance weights that correct for a sampler in another precision than the update.

use serde::{Deserialize, Serialize};

/// How the ratio between update and sampler is bounded (TRL's `vllm_importance_sampling_mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImportanceSamplingMode {
    /// Clamp each token's ratio.
    TokenTruncate,
    /// Mask tokens whose ratio is out of bounds.
    TokenMask,
    /// Clamp the product of a completion's ratios.
    SequenceTruncate,
    /// Mask completions whose product of ratios is out of bounds.
    #[default]
    SequenceMask,
}

/// Importance correction for the mismatch between sampler and update.
///
/// Each token's loss is multiplied by `exp(old - sampling)`, or by the product of these over its completion. Source:
/// TRL's `grpo_trainer.py`, `_generate_and_score_completions`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ImportanceSamplingCorrection {
    /// How ratios are bounded.
    pub mode: ImportanceSamplingMode,
    /// Lower bound; `None` for none.
    pub clip_min: Option<f64>,
    /// Upper bound; `None` for none.
    pub clip_max: Option<f64>,
}

impl ImportanceSamplingCorrection {
    /// The importance weight of each token of a completion, from the old log-probabilities as the update and as the
    /// sampler computes them.
    ///
    /// # Shapes
    /// `old`, `sampling` and the result: tokens.
    pub fn ratios(&self, old: &[f64], sampling: &[f64]) -> Vec<f64> {
        let log_ratios = old.iter().zip(sampling).map(|(old, sampling)| old - sampling);
        match self.mode {
            ImportanceSamplingMode::TokenTruncate | ImportanceSamplingMode::TokenMask => {
                log_ratios.map(|log_ratio| self.bounded(log_ratio.exp())).collect()
            }
            ImportanceSamplingMode::SequenceTruncate | ImportanceSamplingMode::SequenceMask => {
                vec![self.bounded(log_ratios.sum::<f64>().exp()); old.len()]
            }
        }
    }

    fn bounded(&self, ratio: f64) -> f64 {
        let (min, max) =
            (self.clip_min.unwrap_or(f64::NEG_INFINITY), self.clip_max.unwrap_or(f64::INFINITY));
        match self.mode {
            ImportanceSamplingMode::TokenTruncate | ImportanceSamplingMode::SequenceTruncate => {
                ratio.max(min).min(max)
            }
            ImportanceSamplingMode::TokenMask | ImportanceSamplingMode::SequenceMask => {
                if ratio < min || ratio > max { 0.0 } else { ratio }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ratios 2, 1/2 and 4 per token, 4 per sequence.
    const OLD: [f64; 3] = [0.0, 0.0, 0.0];
    const SAMPLING: [f64; 3] =
        [-std::f64::consts::LN_2, std::f64::consts::LN_2, -1.386294361119890_6];

    fn ratios(mode: ImportanceSamplingMode) -> Vec<f64> {
        let correction =
            ImportanceSamplingCorrection { mode, clip_min: Some(0.7), clip_max: Some(3.0) };
        let found = correction.ratios(&OLD, &SAMPLING);
        found.iter().map(|ratio| (ratio * 1e9).round() / 1e9).collect()
    }

    #[test]
    fn token_modes_clamp_or_mask_each_token() {
        assert_eq!(ratios(ImportanceSamplingMode::TokenTruncate), [2.0, 0.7, 3.0]);
        assert_eq!(ratios(ImportanceSamplingMode::TokenMask), [2.0, 0.0, 0.0]);
    }

    #[test]
    fn sequence_modes_clamp_or_mask_the_completion() {
        assert_eq!(ratios(ImportanceSamplingMode::SequenceTruncate), [3.0; 3]);
        assert_eq!(ratios(ImportanceSamplingMode::SequenceMask), [0.0; 3]);
    }
}
