//! The losses of group relative policy optimisation and their derivatives, by hand.
//!
//! Everything here works on flat slices: the log-probabilities of all completion tokens of a
//! micro-batch end to end, with the completions' lengths. The model's part of the derivative is
//! another crate's: this one ends at `d loss / d logp`.
//!
//! Source of the formulas: TRL's `grpo_trainer.py`, `_compute_loss`; names and defaults are TRL's.

mod stats;
mod terms;

use serde::{Deserialize, Serialize};

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
            continue;
        }
        let completion = Completion {
            logps: &batch.logps[tokens.clone()],
            old: batch.old.map(|old| &old[tokens.clone()]),
            reference: batch.reference.map(|reference| &reference[tokens.clone()]),
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
    advantage: f64,
}

impl Completion<'_> {
    /// Adds the completion's derivative to `dlogps`; gives its loss.
    fn add(&self, options: &Options, weight: f64, dlogps: &mut [f64], stats: &mut Stats) -> f64 {
        let policy = match options.importance_sampling_level {
            Level::Token => self.by_token(options, weight, dlogps, stats),
            Level::Sequence => self.by_sequence(options, weight, dlogps, stats),
        };
        policy + self.divergence(options, weight, dlogps, stats)
    }

    /// The logarithm of token `t`'s ratio.
    fn log_ratio(&self, t: usize) -> f64 {
        self.old.map_or(0.0, |old| self.logps[t] - old[t])
    }

    fn by_token(
        &self,
        options: &Options,
        weight: f64,
        dlogps: &mut [f64],
        stats: &mut Stats,
    ) -> f64 {
        let mut total = 0.0;
        let mut terms = stats.completion();
        for (t, dlogp) in dlogps.iter_mut().enumerate() {
            let ratio = self.log_ratio(t).exp();
            let term = Term::new(options, ratio, self.advantage, self.logps[t]);
            terms.token(&term);
            *dlogp += weight * (term.d_ratio * ratio + term.d_logp);
            total += weight * term.loss;
        }
        terms.finish();
        total
    }

    fn by_sequence(
        &self,
        options: &Options,
        weight: f64,
        dlogps: &mut [f64],
        stats: &mut Stats,
    ) -> f64 {
        let n = self.logps.len() as f64;
        let ratio = ((0..self.logps.len()).map(|t| self.log_ratio(t)).sum::<f64>() / n).exp();
        let mut total = 0.0;
        let mut d_ratio = 0.0;
        let mut terms = stats.completion();
        for (dlogp, &logp) in dlogps.iter_mut().zip(self.logps) {
            let term = Term::new(options, ratio, self.advantage, logp);
            terms.token(&term);
            d_ratio += weight * term.d_ratio;
            *dlogp += weight * term.d_logp;
            total += weight * term.loss;
        }
        terms.finish();
        // The ratio is the exponential of the mean: each token moves it by `ratio / n`.
        for dlogp in dlogps {
            *dlogp += d_ratio * ratio / n;
        }
        total
    }

    /// `beta` times the estimator k3, `exp(d) - d - 1` with `d = reference - logp`.
    fn divergence(
        &self,
        options: &Options,
        weight: f64,
        dlogps: &mut [f64],
        stats: &mut Stats,
    ) -> f64 {
        let Some(reference) = self.reference else { return 0.0 };
        let mut total = 0.0;
        for (t, dlogp) in dlogps.iter_mut().enumerate() {
            let k3 = terms::k3(reference[t] - self.logps[t]);
            stats.divergence(k3);
            *dlogp += weight * options.beta * k3.d_logp;
            total += weight * options.beta * k3.value;
        }
        total
    }
}

#[cfg(test)]
mod tests;
