//! The LM head with log-softmax, the log-probabilities of given tokens, and entropies.
//!
//! The logits exist for a chunk of tokens at a time, forward and backward.

use candle_core::Tensor;
use multiversion::multiversion;

use crate::device::on_device;
use crate::error::{Result, check};
use crate::linear::times;
use crate::math::{exp, exp_moments, max, scale};
use crate::matmul::{Into, Threads, View, ViewMut, add_product_over_rows, product};
use crate::memory::{Floats, floats, tensor, update};
use crate::panels::bf16::{self, Packed};
use crate::parallel;
use crate::precision::Precision;

const OP: &str = "lm_head";

/// Logits that a chunk holds: 64 MiB of them, or the weight of a large vocabulary would be read for a
/// few tokens at a time.
const CHUNK_LEN: usize = 16 << 20;

/// What the head gives for each token, and what its backward needs.
pub struct Scores {
    /// Natural log-probability of the target.
    pub logps: Vec<f32>,
    /// Entropy of the distribution, in nats.
    pub entropies: Vec<f32>,
    pub(crate) log_sum_exp: Vec<f32>,
}

/// The head: what the logits are made with.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// A row for each token of the vocabulary (vocabulary, width).
    pub weight: &'a Tensor,
    /// What the logits are divided by.
    pub temperature: f64,
    /// What the products are made of.
    pub precision: Precision,
}

/// Scores `targets` under `softmax(hidden · weightᵀ / temperature)`.
///
/// # Shapes
/// `hidden` (tokens, width), `targets` (tokens).
///
/// # Errors
/// The shapes do not fit, a target is outside the vocabulary, or a tensor is not contiguous `f32`
/// on the CPU.
pub fn forward(hidden: &Tensor, head: &Head<'_>, targets: &[u32]) -> Result<Scores> {
    check_shapes(hidden, head, targets)?;
    on_device!(hidden, lm_head::forward(hidden, head, targets));
    let task = Task::new(hidden, head, targets.len())?;
    let mut scores = Scores {
        logps: vec![0.0; targets.len()],
        entropies: vec![0.0; targets.len()],
        log_sum_exp: vec![0.0; targets.len()],
    };
    let (weight, mut logits) = (task.weight(), Vec::new());
    for (first, rows) in task.chunks() {
        task.logits(&weight, first, rows, &mut logits);
        let mut out = vec![0.0; rows * 3];
        parallel::rows2((&mut logits, task.vocabulary), (&mut out, 3), |row, logits, out| {
            score(logits, task.vocabulary, &targets[first + row..], out);
        });
        for (i, out) in out.chunks(3).enumerate() {
            scores.logps[first + i] = out[0];
            scores.entropies[first + i] = out[1];
            scores.log_sum_exp[first + i] = out[2];
        }
    }
    Ok(scores)
}

/// Gives the gradient of `hidden` and adds that of the weight to `d_weight`, unless the weight is frozen.
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
    head: &Head<'_>,
    targets: &[u32],
    scores: &Scores,
    d_logps: &[f32],
    d_weight: Option<&Tensor>,
) -> Result<Tensor> {
    check_shapes(hidden, head, targets)?;
    check(d_logps.len() == targets.len(), OP, || "as many gradients as targets are due".into())?;
    let misfits = d_weight.is_some_and(|d_weight| d_weight.dims() != head.weight.dims());
    check(!misfits, OP, || "the weight's gradient misfits".into())?;
    check(scores.log_sum_exp.len() == targets.len(), OP, || "the scores are of others".into())?;
    on_device!(hidden, lm_head::backward(hidden, head, targets, scores, d_logps, d_weight));
    let task = Task::new(hidden, head, targets.len())?;
    let mut d_hidden = vec![0.0; targets.len() * task.width];
    let (weight, turned, mut logits) = (task.weight(), task.turned_weight(), Vec::new());
    let mut run = |mut d_weight: Option<&mut [f32]>| {
        for (first, rows) in task.chunks() {
            task.logits(&weight, first, rows, &mut logits);
            parallel::rows(&mut logits, task.vocabulary, |row, logits| {
                for (i, x) in logits.chunks_mut(task.vocabulary).enumerate() {
                    let token = first + row + i;
                    let d = d_logps[token] * task.scale;
                    negative_softmax(x, scores.log_sum_exp[token], d);
                    x[targets[token] as usize] += d;
                }
            });
            let span = first * task.width..(first + rows) * task.width;
            task.d_hidden(&turned, &logits, rows, &mut d_hidden[span.clone()]);
            if let Some(d_weight) = d_weight.as_deref_mut() {
                task.add_d_weight(d_weight, &logits, &task.hidden[span], rows);
            }
        }
    };
    match d_weight {
        Some(d_weight) => update(d_weight, OP, |d_weight| run(Some(d_weight)))?,
        None => run(None),
    }
    tensor(d_hidden, (targets.len(), task.width))
}

fn check_shapes(hidden: &Tensor, head: &Head<'_>, targets: &[u32]) -> Result<()> {
    let (tokens, width) = hidden.dims2()?;
    let (vocabulary, columns) = head.weight.dims2()?;
    check(width == columns, OP, || "the hidden states do not fit the weight".into())?;
    check(tokens == targets.len(), OP, || {
        format!("{tokens} hidden states, but {} targets", targets.len())
    })?;
    check(head.temperature > 0.0, OP, || "the temperature must be above 0".into())?;
    let outside = targets.iter().find(|target| **target as usize >= vocabulary);
    check(outside.is_none(), OP, || {
        format!("token {} is outside a vocabulary of {vocabulary}", outside.unwrap_or(&0))
    })
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

/// The head's products with checked tensors.
struct Task<'a> {
    hidden: Floats<'a>,
    weight: Floats<'a>,
    width: usize,
    vocabulary: usize,
    tokens: usize,
    scale: f32,
    precision: Precision,
}

/// The weight as a product takes it: packed once for all chunks in bf16.
enum Factor<'a> {
    F32(&'a [f32]),
    Bf16(Packed),
}

impl<'a> Task<'a> {
    fn new(hidden: &'a Tensor, head: &Head<'a>, tokens: usize) -> Result<Self> {
        let Head { weight, temperature, precision } = *head;
        let (vocabulary, width) = weight.dims2()?;
        let (hidden, weight) = (floats(hidden, OP)?, floats(weight, OP)?);
        let scale = (1.0 / temperature) as f32;
        Ok(Self { hidden, weight, width, vocabulary, tokens, scale, precision })
    }

    /// The weight, for the logits.
    fn weight(&self) -> Factor<'_> {
        match self.precision {
            Precision::F32 => Factor::F32(&self.weight),
            Precision::Bf16 => Factor::Bf16(Packed::new(&self.weight, self.vocabulary, self.width)),
        }
    }

    /// The transposed weight, for the gradient of the hidden states.
    fn turned_weight(&self) -> Factor<'_> {
        match self.precision {
            Precision::F32 => Factor::F32(&self.weight),
            Precision::Bf16 => {
                Factor::Bf16(Packed::transposed(&self.weight, self.vocabulary, self.width))
            }
        }
    }

    /// `(first token, number of tokens)` of each chunk.
    fn chunks(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (rows, tokens) = ((CHUNK_LEN / self.vocabulary).max(1), self.tokens);
        (0..tokens).step_by(rows).map(move |first| (first, rows.min(tokens - first)))
    }

    /// The chunk's logits over the temperature.
    fn logits(&self, weight: &Factor<'_>, first: usize, rows: usize, logits: &mut Vec<f32>) {
        logits.resize(rows * self.vocabulary, 0.0);
        let hidden = &self.hidden[first * self.width..(first + rows) * self.width];
        match weight {
            Factor::F32(weight) => {
                times(logits, Into::Replace, hidden, weight, (self.vocabulary, self.width));
            }
            Factor::Bf16(weight) => bf16::product(logits, Into::Replace, hidden, weight),
        }
        if self.scale != 1.0 {
            parallel::rows(logits, 1, |_, x| scale(x, self.scale));
        }
    }

    /// The gradient of a chunk's hidden states from that of its logits.
    fn d_hidden(&self, turned: &Factor<'_>, d_logits: &[f32], rows: usize, out: &mut [f32]) {
        match turned {
            Factor::F32(weight) => product(
                ViewMut::new(out, rows, self.width),
                Into::Replace,
                View::new(d_logits, rows, self.vocabulary),
                View::new(weight, self.vocabulary, self.width),
                Threads::All,
            ),
            Factor::Bf16(turned) => bf16::product(out, Into::Replace, d_logits, turned),
        }
    }

    /// Adds a chunk's part to the gradient of the weight.
    fn add_d_weight(&self, d_weight: &mut [f32], d_logits: &[f32], hidden: &[f32], rows: usize) {
        let (a, b) = ((d_logits, self.vocabulary), (hidden, self.width));
        match self.precision {
            Precision::F32 => add_product_over_rows(d_weight, a, b, rows),
            Precision::Bf16 => bf16::add_product_over_rows(d_weight, a, b, rows),
        }
    }
}
