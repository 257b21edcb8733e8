//! The losses of group relative policy optimisation and their derivatives, by hand.
//!
//! Everything here works on flat slices: the log-probabilities of all completion tokens of a
//! micro-batch end to end, with the completions' lengths. The model's part of the derivative is
//! another crate's: this one ends at `d loss / d logp`.
//!
//! Source of the formulas: TRL's `grpo_trainer.py`, `_compute_loss`; names and defaults are TRL's.

mod correction;
mod entropy;
mod stats;
mod terms;

use serde::{Deserialize, Serialize};

pub use correction::{Correction, CorrectionMode};
pub use entropy::entropy_threshold;
pub use stats::Stats;
use terms::Term;

/// The form of the loss (TRL's `loss_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossType {
    /// The mean over completions of the mean over their tokens.
    #[default]
    Grpo,
    /// The mean over the tokens of a micro-batch.
    Bnpo,
    /// The sum over tokens, by completions × `max_completion_length`.
    DrGrpo,
    /// The mean over all tokens of the step.
    Dapo,
    /// As `dapo`, but with a bounded, constant weight in place of the clipped ratio.
    Cispo,
    /// As `grpo`, with a sigmoid in place of the clip.
    Sapo,
}

/// What one importance ratio belongs to (TRL's `importance_sampling_level`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Each token has its own.
    #[default]
    Token,
    /// All tokens of a completion share the geometric mean of theirs (GSPO).
    Sequence,
}

/// The options of the loss, under TRL's names.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// The form of the loss.
    pub loss_type: LossType,
    /// Ratios by token or by completion.
    pub importance_sampling_level: Level,
    /// Lower clip: ratios below `1 - epsilon` are clipped.
    pub epsilon: f64,
    /// Upper clip: ratios above `1 + epsilon_high`. For `cispo` the bound itself.
    pub epsilon_high: f64,
    /// Upper bound of the unclipped ratio, for completions with a negative advantage.
    pub delta: Option<f64>,
    /// Weight of the divergence from the reference.
    pub beta: f64,
    /// Whether a token's divergence is multiplied by its importance ratio, which makes the gradient
    /// that of the reverse divergence (DeepSeek-V3.2, TRL's `use_bias_correction_kl`).
    pub use_bias_correction_kl: bool,
    /// Temperature of `sapo`'s sigmoid for positive advantages.
    pub sapo_temperature_pos: f64,
    /// Temperature of `sapo`'s sigmoid for all other advantages.
    pub sapo_temperature_neg: f64,
    /// Completions with a negative advantage count only while their mean `sampling - logp` is at most
    /// this (DeepSeek-V3.2, TRL's `off_policy_mask_threshold`).
    pub off_policy_mask_threshold: Option<f64>,
    /// What is done about completions that were sampled in another precision than the update's.
    pub correction: Option<Correction>,
}

impl Default for Options {
    /// TRL's defaults, but for `loss_type`.
    fn default() -> Self {
        Self {
            loss_type: LossType::Grpo,
            importance_sampling_level: Level::Token,
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

/// One micro-batch.
///
/// # Shapes
/// `logps`, `old` and `reference`: the sum of `lengths`; the others: completions.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// Log-probabilities under the policy.
    pub logps: &'a [f64],
    /// Log-probabilities when the completions were sampled; `None` if the policy has not changed
    /// since, so that every ratio is 1.
    pub old: Option<&'a [f64]>,
    /// Log-probabilities under the reference; `None` leaves the divergence out.
    pub reference: Option<&'a [f64]>,
    /// Log-probabilities that the sampler gave; `None` if it computes as the policy does.
    pub sampling: Option<&'a [f64]>,
    /// Which tokens the policy's part of the loss takes in; `None` for all.
    pub selected: Option<&'a [bool]>,
    /// Tokens of each completion, the stop token included.
    pub lengths: &'a [usize],
    /// Whether each completion counts; one that does not has no loss and no tokens.
    pub kept: &'a [bool],
    /// The advantage of each completion.
    pub advantages: &'a [f64],
}

/// What a loss is divided by: the counts of the whole optimiser step, whatever its micro-batches.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Counts {
    /// Completions of the step, those that do not count included.
    pub sequences: f64,
    /// Tokens of the completions that count.
    pub tokens: f64,
    /// Upper bound of a completion's length, for `dr_grpo`.
    pub max_completion_length: f64,
}

/// The value and derivative of a micro-batch's share of the loss.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// This micro-batch's share; the shares of a step add up to its loss.
    pub loss: f64,
    /// `d loss / d logp`, one value a token.
    pub dlogps: Vec<f64>,
    /// What is logged.
    pub stats: Stats,
}

/// The loss of one micro-batch.
pub fn loss(options: &Options, batch: &Batch<'_>, counts: &Counts) -> Output {
    let mut out =
        Output { loss: 0.0, dlogps: vec![0.0; batch.logps.len()], stats: Stats::default() };
    let mut start = 0;
    for (index, &length) in batch.lengths.iter().enumerate() {
        let tokens = start..start + length;
        start += length;
        if !batch.kept[index] || length == 0 {
            out.stats.left_out(options.importance_sampling_level);
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
        let weight = token_weight(options.loss_type, length, counts);
        out.loss += completion.add(options, weight, &mut out.dlogps[tokens], &mut out.stats);
    }
    out
}

/// What a token of a completion of `length` tokens counts in the loss.
fn token_weight(loss_type: LossType, length: usize, counts: &Counts) -> f64 {
    let sequences = counts.sequences.max(1.0);
    match loss_type {
        LossType::Grpo | LossType::Sapo => 1.0 / (sequences * length as f64),
        LossType::DrGrpo => 1.0 / (sequences * counts.max_completion_length),
        LossType::Bnpo | LossType::Dapo | LossType::Cispo => 1.0 / counts.tokens.max(1.0),
    }
}

/// One completion that counts.
struct Completion<'a> {
    logps: &'a [f64],
    old: Option<&'a [f64]>,
    reference: Option<&'a [f64]>,
    sampling: Option<&'a [f64]>,
    selected: Option<&'a [bool]>,
    advantage: f64,
}

impl Completion<'_> {
    /// Adds the completion's derivative to `dlogps`; gives its loss.
    fn add(&self, options: &Options, weight: f64, dlogps: &mut [f64], stats: &mut Stats) -> f64 {
        let n = self.logps.len();
        let log_ratios: Vec<f64> = (0..n).map(|t| self.log_ratio(t)).collect();
        let ratios = match options.importance_sampling_level {
            Level::Token => log_ratios.iter().map(|log_ratio| log_ratio.exp()).collect(),
            Level::Sequence => vec![(log_ratios.iter().sum::<f64>() / n as f64).exp(); n],
        };
        let weights = self.policy_weights(options, weight);
        let mut terms = stats.completion(options.importance_sampling_level);
        let mut total = 0.0;
        let mut d_ratios = vec![0.0; n];
        for t in 0..n {
            let term = Term::new(options, ratios[t], self.advantage, self.logps[t]);
            terms.token(&term);
            d_ratios[t] += weights[t] * term.d_ratio;
            dlogps[t] += weights[t] * term.d_logp;
            // A ratio without bound would make nothing of a weight of 0.
            total += if weights[t] == 0.0 { 0.0 } else { weights[t] * term.loss };
        }
        terms.finish();
        total += self.divergence(options, weight, &ratios, (dlogps, &mut d_ratios), stats);
        match options.importance_sampling_level {
            Level::Token => {
                for ((dlogp, d_ratio), ratio) in dlogps.iter_mut().zip(d_ratios).zip(ratios) {
                    *dlogp += d_ratio * ratio;
                }
            }
            // The ratio is the exponential of the mean: each token moves it by `ratio / n`.
            Level::Sequence => {
                let each = d_ratios.iter().sum::<f64>() * ratios[0] / n as f64;
                dlogps.iter_mut().for_each(|dlogp| *dlogp += each);
            }
        }
        total
    }

    /// The logarithm of token `t`'s ratio.
    fn log_ratio(&self, t: usize) -> f64 {
        self.old.map_or(0.0, |old| self.logps[t] - old[t])
    }

    /// What each token weighs in the policy's part of the loss: `weight`, or less where the
    /// completion is too far from the policy, the token is not selected, or the sampler drew it from
    /// another distribution.
    fn policy_weights(&self, options: &Options, weight: f64) -> Vec<f64> {
        let n = self.logps.len();
        if self.is_off_policy(options) {
            return vec![0.0; n];
        }
        let mut weights = match (&options.correction, self.sampling) {
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

    /// Whether the completion is to be unlearnt and the policy has left it already.
    ///
    /// Source: TRL's `get_off_policy_mask`.
    fn is_off_policy(&self, options: &Options) -> bool {
        let Some(threshold) = options.off_policy_mask_threshold else { return false };
        let Some(sampling) = self.sampling.or(self.old) else { return false };
        let apart: f64 = sampling.iter().zip(self.logps).map(|(a, b)| a - b).sum();
        self.advantage < 0.0 && apart / self.logps.len() as f64 > threshold
    }

    /// `beta` times the estimator k3, `exp(d) - d - 1` with `d = reference - logp`, times the ratio if
    /// the options say so.
    fn divergence(
        &self,
        options: &Options,
        weight: f64,
        ratios: &[f64],
        (dlogps, d_ratios): (&mut [f64], &mut [f64]),
        stats: &mut Stats,
    ) -> f64 {
        let Some(reference) = self.reference else { return 0.0 };
        let scale = weight * options.beta;
        let mut total = 0.0;
        for t in 0..self.logps.len() {
            let k3 = terms::k3(reference[t] - self.logps[t]);
            let ratio = if options.use_bias_correction_kl { ratios[t] } else { 1.0 };
            stats.divergence(&k3, ratio);
            total += scale * k3.value * ratio;
            dlogps[t] += scale * k3.d_logp * ratio;
            if options.use_bias_correction_kl {
                d_ratios[t] += scale * k3.value;
            }
        }
        total
    }
}

#[cfg(test)]
mod tests;
