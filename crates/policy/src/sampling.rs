//! How tokens are drawn from logits.

use std::sync::Arc;

use crate::error::{Error, Result};

/// How tokens are drawn. Fields bear the names of `transformers` and vLLM; the default draws from
/// the whole distribution.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the likeliest token always.
    pub temperature: f64,
    /// Draw among so many of the likeliest tokens; 0 means all.
    pub top_k: usize,
    /// Draw among the likeliest tokens that together have this probability; 1 means all.
    pub top_p: f64,
    /// Draw among tokens with at least this share of the likeliest one's probability; 0 means all.
    pub min_p: f64,
    /// Divides the positive logits, and multiplies the negative ones, of tokens that the prompt or
    /// the completion has; 1 leaves them.
    pub repetition_penalty: f64,
    /// Taken from the logits of tokens that the completion has.
    pub presence_penalty: f64,
    /// Taken from the logits of tokens once for each time that the completion has them.
    pub frequency_penalty: f64,
    /// Added to the logits of single tokens.
    pub logit_bias: Vec<(u32, f32)>,
    /// Draw among these tokens only.
    pub allowed_token_ids: Option<Arc<[u32]>>,
    /// Most tokens of a completion.
    pub max_new_tokens: usize,
    /// No stop token is drawn before a completion has so many tokens.
    pub min_new_tokens: usize,
    /// Tokens that end a completion; they are part of it.
    pub stop_ids: Vec<u32>,
    /// Report each token's log-probability at temperature 1 before any penalty, and so many of the
    /// likeliest tokens beside it.
    pub logprobs: Option<usize>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            allowed_token_ids: None,
            max_new_tokens: 256,
            min_new_tokens: 0,
            stop_ids: Vec::new(),
            logprobs: None,
        }
    }
}

impl Sampling {
    /// The likeliest token always.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// Refuses numbers that mean nothing.
    ///
    /// # Errors
    /// [`Error::Sampling`] names the first such field.
    pub fn check(&self) -> Result<()> {
        let Self { temperature, top_p, .. } = *self;
        if !(temperature.is_finite() && temperature >= 0.0) {
            let want = "a number of 0 or more";
            return Err(Error::Sampling { field: "temperature", found: temperature, want });
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            let want = "a number above 0 and at most 1";
            return Err(Error::Sampling { field: "top_p", found: top_p, want });
        }
        Ok(())
    }
}

/// A drawn token.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// Its natural log-probability under the full softmax at the sampling temperature (at 1 for
    /// temperature 0), whatever penalties, bias, top-k, top-p and min-p made of it.
    pub logp: f32,
    /// What [`Sampling::logprobs`] asks for.
    pub report: Option<Report>,
}

/// Log-probabilities at temperature 1, before any penalty.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Of the drawn token.
    pub logprob: f32,
    /// The likeliest tokens, the likeliest first.
    pub top: Vec<(u32, f32)>,
}

/// What a completion has so far, for the penalties.
#[derive(Debug, Clone, Copy)]
pub(crate) struct History<'a> {
    /// Ids of the prompt.
    pub(crate) prompt: &'a [u32],
    /// Ids of the completion.
    pub(crate) completion: &'a [u32],
}

/// Draws the token at `uniform`, a number in [0, 1), of the cumulative distribution.
///
/// # Shapes
/// `logits` (vocabulary).
pub(crate) fn draw(
    logits: &[f32],
    sampling: &Sampling,
    _history: History<'_>,
    uniform: f64,
) -> Token {
    let (id, logp) = draw_id(logits, sampling, uniform);
    Token { id, logp, report: None }
}

/// The token at `uniform` of the cumulative distribution, and its log-probability.
fn draw_id(logits: &[f32], sampling: &Sampling, uniform: f64) -> (u32, f32) {
    let greedy = sampling.temperature == 0.0;
    let scale = if greedy { 1.0 } else { 1.0 / sampling.temperature };
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f64> = logits.iter().map(|x| (f64::from(x - top) * scale).exp()).collect();
    let total: f64 = weights.iter().sum();
    let id = if greedy {
        logits.iter().position(|x| *x == top).unwrap_or(0)
    } else if sampling.top_k == 0 && sampling.top_p >= 1.0 {
        at(weights.iter().copied().enumerate(), uniform * total)
    } else {
        truncated(&weights, total, sampling, uniform)
    };
    (id as u32, (weights[id] / total).ln() as f32)
}

/// Draws among the tokens that top-k and then top-p leave.
fn truncated(weights: &[f64], total: f64, sampling: &Sampling, uniform: f64) -> usize {
    let mut order: Vec<usize> = (0..weights.len()).collect();
    // Equal weights go by id, so that the choice is the same everywhere.
    order.sort_unstable_by(|a, b| weights[*b].total_cmp(&weights[*a]).then(a.cmp(b)));
    if sampling.top_k > 0 {
        order.truncate(sampling.top_k);
    }
    let kept: f64 = order.iter().map(|id| weights[*id]).sum();
    let base = if sampling.top_k > 0 { kept } else { total };
    let mut sum = 0.0;
    let nucleus = order.iter().take_while(|id| {
        let open = sum < sampling.top_p * base;
        sum += weights[**id];
        open
    });
    let count = nucleus.count().max(1);
    order.truncate(count);
    let kept: f64 = order.iter().map(|id| weights[*id]).sum();
    at(order.iter().map(|id| (*id, weights[*id])), uniform * kept)
}

/// The first token at which the running sum of the weights exceeds `target`.
fn at(weights: impl Iterator<Item = (usize, f64)>, target: f64) -> usize {
    let (mut sum, mut chosen) = (0.0, 0);
    for (id, weight) in weights {
        // Rounding may leave the sum just below the target: the last token with weight stands in.
        if weight > 0.0 {
            chosen = id;
        }
        sum += weight;
        if sum > target {
            break;
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampling(temperature: f64, top_k: usize, top_p: f64) -> Sampling {
        Sampling { temperature, top_k, top_p, max_new_tokens: 1, ..Sampling::default() }
    }

    /// Shares of each token over an even grid of uniforms.
    fn shares(logits: &[f32], sampling: &Sampling) -> Vec<f64> {
        let n = 10_000;
        let mut counts = vec![0.0; logits.len()];
        for i in 0..n {
            let (id, _) = draw_id(logits, sampling, (f64::from(i) + 0.5) / f64::from(n));
            counts[id as usize] += 1.0 / f64::from(n);
        }
        counts
    }

    #[track_caller]
    fn close(ours: &[f64], truth: &[f64]) {
        for (a, b) in ours.iter().zip(truth) {
            assert!((a - b).abs() < 2e-4, "{ours:?} is not {truth:?}");
        }
    }

    #[test]
    fn tokens_are_drawn_by_their_probability() {
        let logits = [0.5f32.ln(), 0.3f32.ln(), 0.2f32.ln()];
        close(&shares(&logits, &sampling(1.0, 0, 1.0)), &[0.5, 0.3, 0.2]);
        let squares = [0.25 / 0.38, 0.09 / 0.38, 0.04 / 0.38];
        close(&shares(&logits, &sampling(0.5, 0, 1.0)), &squares);
    }

    #[test]
    fn top_k_and_top_p_leave_the_likeliest() {
        let logits = [0.2f32.ln(), 0.5f32.ln(), 0.3f32.ln()];
        close(&shares(&logits, &sampling(1.0, 2, 1.0)), &[0.0, 0.625, 0.375]);
        close(&shares(&logits, &sampling(1.0, 0, 0.6)), &[0.0, 0.625, 0.375]);
        close(&shares(&logits, &sampling(1.0, 0, 0.4)), &[0.0, 1.0, 0.0]);
        close(&shares(&logits, &sampling(1.0, 1, 1.0)), &[0.0, 1.0, 0.0]);
    }

    #[test]
    fn temperature_0_takes_the_first_of_the_likeliest() {
        let (id, logp) = draw_id(&[1.0, 2.0, 2.0], &sampling(0.0, 0, 1.0), 0.99);
        assert_eq!(id, 1);
        assert!((f64::from(logp) - (1.0 / (2.0 + (-1.0f64).exp())).ln()).abs() < 1e-6);
    }

    #[test]
    fn the_log_probability_is_that_of_the_full_softmax() {
        let (_, logp) = draw_id(&[0.5f32.ln(), 0.5f32.ln()], &sampling(1.0, 1, 1.0), 0.0);
        assert!((logp - 0.5f32.ln()).abs() < 1e-6);
    }
}
