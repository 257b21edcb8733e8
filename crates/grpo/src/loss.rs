//! The GRPO losses and their analytic derivatives.
//!
//! Everything here works on flat slices: the concatenated log-probabilities of a micro-batch's completion tokens, with
//! the completions' lengths. The derivative ends at `d loss / d logp`; the model continues from there.
//!
//! Source of the formulas: TRL's `grpo_trainer.py`, `_compute_loss`; names and defaults are TRL's.

mod correction;
mod entropy;
mod formulation;
mod stats;
mod terms;

pub use correction::{ImportanceSamplingCorrection, ImportanceSamplingMode};
pub use entropy::entropy_threshold;
pub use formulation::{ImportanceSamplingLevel, LossType};
pub use stats::LossStats;
use terms::Term;

use crate::settings::LossSettings;

/// One micro-batch.
///
/// # Shapes
/// `logps`, `old` and `reference`: the sum of `lengths`; the others: completions.
#[derive(Debug, Clone, Copy)]
pub struct LossBatch<'a> {
    /// Log-probabilities under the policy.
    pub logps: &'a [f64],
    /// Old log-probabilities, under the policy that sampled; `None` if the policy has not changed since, so that every
    /// ratio is 1.
    pub old: Option<&'a [f64]>,
    /// Log-probabilities under the reference; `None` omits the KL term.
    pub reference: Option<&'a [f64]>,
    /// Log-probabilities reported by the sampler; `None` if it computes exactly as the policy does.
    pub sampling: Option<&'a [f64]>,
    /// Tokens that contribute to the policy loss; `None` for all.
    pub selected: Option<&'a [bool]>,
    /// Length of each completion in tokens, including the stop token.
    pub lengths: &'a [usize],
    /// Whether each completion contributes; masked completions have no loss and no tokens.
    pub unmasked: &'a [bool],
    /// The advantage of each completion.
    pub advantages: &'a [f64],
}

/// Normalization of a loss: counts over the entire optimizer step, independent of micro-batches.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossNormalizer {
    /// Completions of the step, masked ones included.
    pub sequences: f64,
    /// Tokens of the unmasked completions.
    pub tokens: f64,
    /// Maximum completion length, for `dr_grpo`.
    pub max_completion_length: f64,
}

/// The value and derivative of a micro-batch's share of the loss.
#[derive(Debug, Clone, PartialEq)]
pub struct LossOutput {
    /// This micro-batch's share; the shares of a step sum to its loss.
    pub loss: f64,
    /// `d loss / d logp`, one value per token.
    pub dlogps: Vec<f64>,
    /// Statistics to log.
    pub stats: LossStats,
}

/// The loss of one micro-batch.
pub fn loss(
    settings: &LossSettings,
    batch: &LossBatch<'_>,
    normalizer: &LossNormalizer,
) -> LossOutput {
    let mut out =
        LossOutput { loss: 0.0, dlogps: vec![0.0; batch.logps.len()], stats: LossStats::default() };
    let mut start = 0;
    for (index, &length) in batch.lengths.iter().enumerate() {
        let tokens = start..start + length;
        start += length;
        if !batch.unmasked[index] || length == 0 {
            out.stats.masked(settings.importance_sampling_level);
            continue;
        }
        let completion = Completion {
            logps: &batch.logps[tokens.clone()],
            old: batch.old.map(|old| &old[tokens.clone()]),
            reference: batch.reference.map(|reference| &reference[tokens.clone()]),
            sampling: batch.sampling.map(|sampling| &sampling[tokens.clone()]),
            selected: batch.selected.map(|selected| &selected[tokens.clone()]),
            advantage: batch.advantages[index],
        };
        let weight = token_weight(settings.loss_type, length, normalizer);
        out.loss += completion.add(settings, weight, &mut out.dlogps[tokens], &mut out.stats);
    }
    out
}

/// The weight of a token of a completion of `length` tokens in the loss.
fn token_weight(loss_type: LossType, length: usize, normalizer: &LossNormalizer) -> f64 {
    let sequences = normalizer.sequences.max(1.0);
    match loss_type {
        LossType::Grpo | LossType::Sapo => 1.0 / (sequences * length as f64),
        LossType::DrGrpo => 1.0 / (sequences * normalizer.max_completion_length),
        LossType::Bnpo | LossType::Dapo | LossType::Cispo => 1.0 / normalizer.tokens.max(1.0),
    }
}

/// One unmasked completion.
struct Completion<'a> {
    logps: &'a [f64],
    old: Option<&'a [f64]>,
    reference: Option<&'a [f64]>,
    sampling: Option<&'a [f64]>,
    selected: Option<&'a [bool]>,
    advantage: f64,
}

impl Completion<'_> {
    /// Adds the completion's derivative to `dlogps`; returns its loss.
    fn add(
        &self,
        settings: &LossSettings,
        weight: f64,
        dlogps: &mut [f64],
        stats: &mut LossStats,
    ) -> f64 {
        let n = self.logps.len();
        let log_ratios: Vec<f64> = (0..n).map(|t| self.log_ratio(t)).collect();
        let ratios = match settings.importance_sampling_level {
            ImportanceSamplingLevel::Token => {
                log_ratios.iter().map(|log_ratio| log_ratio.exp()).collect()
            }
            ImportanceSamplingLevel::Sequence => {
                vec![(log_ratios.iter().sum::<f64>() / n as f64).exp(); n]
            }
        };
        let weights = self.policy_weights(settings, weight);
        let mut terms = stats.completion(settings.importance_sampling_level);
        let mut total = 0.0;
        let mut d_ratios = vec![0.0; n];
        for t in 0..n {
            let term = Term::new(settings, ratios[t], self.advantage, self.logps[t]);
            terms.token(&term);
            d_ratios[t] += weights[t] * term.d_ratio;
            dlogps[t] += weights[t] * term.d_logp;
            // An infinite ratio times a weight of 0 would be NaN.
            total += if weights[t] == 0.0 { 0.0 } else { weights[t] * term.loss };
        }
        terms.finish();
        total += self.kl(settings, weight, &ratios, (dlogps, &mut d_ratios), stats);
        match settings.importance_sampling_level {
            ImportanceSamplingLevel::Token => {
                for ((dlogp, d_ratio), ratio) in dlogps.iter_mut().zip(d_ratios).zip(ratios) {
                    *dlogp += d_ratio * ratio;
                }
            }
            // The ratio is the exponential of the mean log-ratio: each token contributes `ratio / n`.
            ImportanceSamplingLevel::Sequence => {
                let each = d_ratios.iter().sum::<f64>() * ratios[0] / n as f64;
                dlogps.iter_mut().for_each(|dlogp| *dlogp += each);
            }
        }
        total
    }

    /// The log-ratio of token `t`.
    fn log_ratio(&self, t: usize) -> f64 {
        self.old.map_or(0.0, |old| self.logps[t] - old[t])
    }

    /// The weight of each token in the policy loss: `weight`, reduced if the completion is off-policy, the token is not
    /// selected, or the sampler's distribution differs.
    fn policy_weights(&self, settings: &LossSettings, weight: f64) -> Vec<f64> {
        let n = self.logps.len();
        if self.is_off_policy(settings) {
            return vec![0.0; n];
        }
        let mut weights = match (settings.correction(), self.sampling) {
            (Some(correction), Some(sampling)) => {
                correction.ratios(self.old.unwrap_or(self.logps), sampling)
            }
            _ => vec![1.0; n],
        };
        for (t, factor) in weights.iter_mut().enumerate() {
            let selected = self.selected.is_none_or(|selected| selected[t]);
            *factor *= if selected { weight } else { 0.0 };
        }
        weights
    }

    /// Whether a completion with a negative advantage is too far off-policy.
    ///
    /// Source: TRL's `get_off_policy_mask`.
    fn is_off_policy(&self, settings: &LossSettings) -> bool {
        let Some(threshold) = settings.off_policy_mask_threshold else { return false };
        let Some(sampling) = self.sampling.or(self.old) else { return false };
        let log_ratio_sum: f64 = sampling.iter().zip(self.logps).map(|(a, b)| a - b).sum();
        self.advantage < 0.0 && log_ratio_sum / self.logps.len() as f64 > threshold
    }

    /// `beta` times the k3 estimator, `exp(d) - d - 1` with `d = reference - logp`, optionally times the ratio.
    fn kl(
        &self,
        settings: &LossSettings,
        weight: f64,
        ratios: &[f64],
        (dlogps, d_ratios): (&mut [f64], &mut [f64]),
        stats: &mut LossStats,
    ) -> f64 {
        let Some(reference) = self.reference else { return 0.0 };
        let scale = weight * settings.beta;
        let mut total = 0.0;
        for t in 0..self.logps.len() {
            let k3 = terms::k3(reference[t] - self.logps[t]);
            let ratio = if settings.use_bias_correction_kl { ratios[t] } else { 1.0 };
            stats.add_kl(&k3, ratio);
            total += scale * k3.value * ratio;
            dlogps[t] += scale * k3.d_logp * ratio;
            if settings.use_bias_correction_kl {
                d_ratios[t] += scale * k3.value;
            }
        }
        total
    }
}

#[cfg(test)]
mod tests;
