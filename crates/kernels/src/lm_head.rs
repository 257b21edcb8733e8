//! The LM head with log-softmax, the log-probabilities of given tokens, and entropies.
//!
//! The logits exist for a chunk of tokens at a time, forward and backward.

use candle_core::Tensor;
use multiversion::multiversion;

use crate::error::{Result, check};
use crate::math::{exp, exp_moments, max, scale};
use crate::matmul::{Into, Threads, View, ViewMut, add_product_over_rows, product};
use crate::memory::{Floats, floats, tensor, update};
use crate::parallel;

const OP: &str = "lm_head";

/// Logits that a chunk holds: 16 MiB of them.
const CHUNK_LEN: usize = 4 << 20;

/// What the head gives for each token, and what its backward needs.
pub struct Scores {
    /// Natural log-probability of the target.
    pub logps: Vec<f32>,
    /// Entropy of the distribution, in nats.
    pub entropies: Vec<f32>,
    log_sum_exp: Vec<f32>,
}

/// Scores `targets` under `softmax(hidden · weightᵀ / temperature)`.
///
/// # Shapes
/// `hidden` (tokens, width), `weight` (vocabulary, width), `targets` (tokens).
///
/// # Errors
/// The shapes do not fit, a target is outside the vocabulary, or a tensor is not contiguous `f32`
/// on the CPU.
pub fn forward(
    hidden: &Tensor,
    weight: &Tensor,
    targets: &[u32],
    temperature: f64,
) -> Result<Scores> {
    let head = Head::new(hidden, weight, targets, temperature)?;
    let mut scores = Scores {
        logps: vec![0.0; targets.len()],
        entropies: vec![0.0; targets.len()],
        log_sum_exp: vec![0.0; targets.len()],
    };
    let mut logits = Vec::new();
    for (first, rows) in head.chunks() {
        head.logits(first, rows, &mut logits);
        let mut out = vec![0.0; rows * 3];
        parallel::rows2((&mut logits, head.vocabulary), (&mut out, 3), |row, logits, out| {
            score(logits, head.vocabulary, &targets[first + row..], out);
        });
        for (i, out) in out.chunks(3).enumerate() {
            scores.logps[first + i] = out[0];
            scores.entropies[first + i] = out[1];
            scores.log_sum_exp[first + i] = out[2];
        }
    }
    Ok(scores)
}

/// Gives the gradient of `hidden` and adds that of the weight to `d_weight`.
///
/// `d logits = d_logp · (one-hot(target) - softmax) / temperature`.
///
/// # Shapes
/// As [`forward`]; `d_logps` (tokens), `d_weight` (vocabulary, width); gives (tokens, width).
///
/// # Errors
/// As [`forward`].
pub fn backward(
    hidden: &Tensor,
    weight: &Tensor,
    targets: &[u32],
    temperature: f64,
    scores: &Scores,
    d_logps: &[f32],
    d_weight: &Tensor,
) -> Result<Tensor> {
    let head = Head::new(hidden, weight, targets, temperature)?;
    check(d_logps.len() == targets.len(), OP, || "as many gradients as targets are due".into())?;
    check(d_weight.dims() == weight.dims(), OP, || "the weight's gradient misfits".into())?;
    let mut d_hidden = vec![0.0; targets.len() * head.width];
    let mut logits = Vec::new();
    update(d_weight, OP, |d_weight| {
        for (first, rows) in head.chunks() {
            head.logits(first, rows, &mut logits);
            parallel::rows(&mut logits, head.vocabulary, |row, logits| {
                for (i, x) in logits.chunks_mut(head.vocabulary).enumerate() {
                    let token = first + row + i;
                    let d = d_logps[token] * head.scale;
                    negative_softmax(x, scores.log_sum_exp[token], d);
                    x[targets[token] as usize] += d;
                }
            });
            let d_logits = View::new(&logits, rows, head.vocabulary);
            let span = first * head.width..(first + rows) * head.width;
            product(
                ViewMut::new(&mut d_hidden[span.clone()], rows, head.width),
                Into::Replace,
                d_logits,
                View::new(&head.weight, head.vocabulary, head.width),
                Threads::All,
            );
            let hidden = (&head.hidden[span], head.width);
            add_product_over_rows(d_weight, (&logits, head.vocabulary), hidden, rows);
        }
    })?;
    tensor(d_hidden, (targets.len(), head.width))
}

/// The logits of each token over the whole vocabulary (tokens, vocabulary): for sampling.
///
/// # Errors
/// As [`forward`].
pub fn logits(hidden: &Tensor, weight: &Tensor) -> Result<Tensor> {
    crate::linear::forward(hidden, weight, None)
}

/// Log-probability, entropy and log-sum-exp for each row of logits.
#[multiversion(targets = "simd")]
fn score(logits: &[f32], vocabulary: usize, targets: &[u32], out: &mut [f32]) {
    for ((x, target), out) in logits.chunks(vocabulary).zip(targets).zip(out.chunks_mut(3)) {
        let top = max(x);
        let (total, weighted) = exp_moments(x, top);
        out[0] = x[*target as usize] - top - total.ln();
        out[1] = total.ln() - weighted / total;
        out[2] = top + total.ln();
    }
}

/// Replaces each logit by `-d · e^(logit - log_sum_exp)`.
#[multiversion(targets = "simd")]
fn negative_softmax(x: &mut [f32], log_sum_exp: f32, d: f32) {
    for x in x {
        *x = -d * exp(*x - log_sum_exp);
    }
}

struct Head<'a> {
    hidden: Floats<'a>,
    weight: Floats<'a>,
    width: usize,
    vocabulary: usize,
    tokens: usize,
    scale: f32,
}

impl<'a> Head<'a> {
    fn new(
        hidden: &'a Tensor,
        weight: &'a Tensor,
        targets: &[u32],
        temperature: f64,
    ) -> Result<Self> {
        let (tokens, width) = hidden.dims2()?;
        let (vocabulary, columns) = weight.dims2()?;
        check(width == columns, OP, || "the hidden states do not fit the weight".into())?;
        check(tokens == targets.len(), OP, || {
            format!("{tokens} hidden states, but {} targets", targets.len())
        })?;
        check(temperature > 0.0, OP, || "the temperature must be above 0".into())?;
        let outside = targets.iter().find(|target| **target as usize >= vocabulary);
        check(outside.is_none(), OP, || {
            format!("token {} is outside a vocabulary of {vocabulary}", outside.unwrap_or(&0))
        })?;
        let (hidden, weight) = (floats(hidden, OP)?, floats(weight, OP)?);
        let scale = (1.0 / temperature) as f32;
        Ok(Self { hidden, weight, width, vocabulary, tokens, scale })
    }

    /// `(first token, number of tokens)` of each chunk.
    fn chunks(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (rows, tokens) = ((CHUNK_LEN / self.vocabulary).max(1), self.tokens);
        (0..tokens).step_by(rows).map(move |first| (first, rows.min(tokens - first)))
    }

    /// The chunk's logits over the temperature.
    fn logits(&self, first: usize, rows: usize, logits: &mut Vec<f32>) {
        logits.resize(rows * self.vocabulary, 0.0);
        product(
            ViewMut::new(logits, rows, self.vocabulary),
            Into::Replace,
            View::new(&self.hidden[first * self.width..], rows, self.width),
            View::new(&self.weight, self.vocabulary, self.width).t(),
            Threads::All,
        );
        if self.scale != 1.0 {
            parallel::rows(logits, 1, |_, x| scale(x, self.scale));
        }
    }
}
