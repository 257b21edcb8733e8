//! LM head fused with log-softmax: log-probabilities of target tokens, and entropies.
//!
//! Logits are materialized for one chunk of tokens at a time, forward and backward. The backward takes those of the last
//! chunk from the forward and recomputes the others.

#[cfg(test)]
pub(crate) mod tests;

use std::sync::{Mutex, PoisonError};

use candle_core::Tensor;
use multiversion::multiversion;

use crate::device::on_device;
use crate::error::{Result, check};
use crate::linear::matmul_f32;
use crate::math::{exp, exp_moments, max, scale};
use crate::matmul::{Threads, View, ViewMut, WriteMode, accumulate_weight_grad, gemm};
use crate::memory::{Floats, floats, tensor, update};
use crate::panels::bf16::{self, PackedBf16};
use crate::parallel;
use crate::precision::Precision;

const OP: &str = "lm_head";

/// Maximum logits per chunk (64 MiB), unless a single row has more. Smaller chunks would read a large vocabulary's
/// weight for few tokens at a time.
const CHUNK_LEN: usize = 16 << 20;

/// Per-token outputs of the head, with what the backward needs.
pub struct LmHeadOutput {
    /// Natural log-probability of the target.
    pub logps: Vec<f32>,
    /// Entropy of the distribution, in nats.
    pub entropies: Vec<f32>,
    pub(crate) log_sum_exp: Vec<f32>,
    /// The logits of the last chunk, on the CPU and until a backward takes them.
    pub(crate) logits: Mutex<Vec<f32>>,
}

/// The LM head.
#[derive(Debug, Clone, Copy)]
pub struct LmHead<'a> {
    /// Unembedding matrix (vocabulary, hidden size).
    pub weight: &'a Tensor,
    /// Divisor of the logits.
    pub temperature: f64,
    /// Precision of the GEMMs.
    pub precision: Precision,
}

/// Scores `targets` under `softmax(hidden · weightᵀ / temperature)`.
///
/// # Shapes
/// `hidden` (tokens, hidden size), `targets` (tokens).
///
/// # Errors
/// The shapes are inconsistent, a target is outside the vocabulary, or a tensor is not contiguous `f32` on the CPU.
pub fn forward(hidden: &Tensor, head: &LmHead<'_>, targets: &[u32]) -> Result<LmHeadOutput> {
    check_shapes(hidden, head, targets)?;
    on_device!(hidden, lm_head::forward(hidden, head, targets));
    forward_within(hidden, head, targets, CHUNK_LEN)
}

/// [`forward`] on the CPU with a limit of `chunk` logits at a time.
fn forward_within(
    hidden: &Tensor,
    head: &LmHead<'_>,
    targets: &[u32],
    chunk: usize,
) -> Result<LmHeadOutput> {
    let task = Task::new(hidden, head, targets.len(), chunk)?;
    let mut scores = LmHeadOutput {
        logps: vec![0.0; targets.len()],
        entropies: vec![0.0; targets.len()],
        log_sum_exp: vec![0.0; targets.len()],
        logits: Mutex::default(),
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
    scores.logits = Mutex::new(logits);
    Ok(scores)
}

/// Returns the gradient of `hidden` and accumulates the weight gradient in `d_weight`; `None` for a frozen weight.
///
/// `d logits = d_logp · (one-hot(target) - softmax) / temperature`.
///
/// # Shapes
/// As [`forward`]; `d_logps` (tokens), `d_weight` (vocabulary, hidden size); returns (tokens, hidden size).
///
/// # Errors
/// As [`forward`].
pub fn backward(
    hidden: &Tensor,
    head: &LmHead<'_>,
    targets: &[u32],
    scores: &LmHeadOutput,
    d_logps: &[f32],
    d_weight: Option<&Tensor>,
) -> Result<Tensor> {
    check_shapes(hidden, head, targets)?;
    check(d_logps.len() == targets.len(), OP, || {
        "the numbers of gradients and targets differ".into()
    })?;
    let misfits = d_weight.is_some_and(|d_weight| d_weight.dims() != head.weight.dims());
    check(!misfits, OP, || "the shape of the weight gradient is wrong".into())?;
    check(scores.log_sum_exp.len() == targets.len(), OP, || {
        "the scores belong to other targets".into()
    })?;
    on_device!(hidden, lm_head::backward(hidden, head, targets, scores, d_logps, d_weight));
    backward_within((hidden, head, targets), scores, d_logps, d_weight, CHUNK_LEN)
}

/// [`backward`] on the CPU with a limit of `chunk` logits at a time.
fn backward_within(
    (hidden, head, targets): (&Tensor, &LmHead<'_>, &[u32]),
    scores: &LmHeadOutput,
    d_logps: &[f32],
    d_weight: Option<&Tensor>,
    chunk: usize,
) -> Result<Tensor> {
    let task = Task::new(hidden, head, targets.len(), chunk)?;
    let mut d_hidden = vec![0.0; targets.len() * task.hidden_size];
    let (weight, transposed) = (task.weight(), task.transposed_weight());
    let mut logits =
        std::mem::take(&mut *scores.logits.lock().unwrap_or_else(PoisonError::into_inner));
    let mut run = |mut d_weight: Option<&mut [f32]>| {
        // The last chunk comes first: its logits may be there. Another backward finds none.
        let mut are_kept = !logits.is_empty();
        for (first, rows) in task.chunks().rev() {
            if !std::mem::take(&mut are_kept) {
                task.logits(&weight, first, rows, &mut logits);
            }
            parallel::rows(&mut logits, task.vocabulary, |row, logits| {
                for (i, x) in logits.chunks_mut(task.vocabulary).enumerate() {
                    let token = first + row + i;
                    let d = d_logps[token] * task.scale;
                    negative_softmax(x, scores.log_sum_exp[token], d);
                    x[targets[token] as usize] += d;
                }
            });
            let span = first * task.hidden_size..(first + rows) * task.hidden_size;
            task.d_hidden(&transposed, &logits, rows, &mut d_hidden[span.clone()]);
            if let Some(d_weight) = d_weight.as_deref_mut() {
                task.add_d_weight(d_weight, &logits, &task.hidden[span], rows);
            }
        }
    };
    match d_weight {
        Some(d_weight) => update(d_weight, OP, |d_weight| run(Some(d_weight)))?,
        None => run(None),
    }
    tensor(d_hidden, (targets.len(), task.hidden_size))
}

fn check_shapes(hidden: &Tensor, head: &LmHead<'_>, targets: &[u32]) -> Result<()> {
    let (tokens, hidden_size) = hidden.dims2()?;
    let (vocabulary, columns) = head.weight.dims2()?;
    check(hidden_size == columns, OP, || "the hidden size differs from the weight's".into())?;
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

/// The head's GEMMs on checked tensors.
struct Task<'a> {
    hidden: Floats<'a>,
    weight: Floats<'a>,
    hidden_size: usize,
    vocabulary: usize,
    tokens: usize,
    /// Tokens per chunk.
    rows: usize,
    scale: f32,
    precision: Precision,
}

/// The weight as a GEMM operand; in bf16 packed once for all chunks.
enum Operand<'a> {
    F32(&'a [f32]),
    Bf16(PackedBf16),
}

impl<'a> Task<'a> {
    fn new(hidden: &'a Tensor, head: &LmHead<'a>, tokens: usize, chunk: usize) -> Result<Self> {
        let LmHead { weight, temperature, precision } = *head;
        let (vocabulary, hidden_size) = weight.dims2()?;
        let (hidden, weight) = (floats(hidden, OP)?, floats(weight, OP)?);
        let (rows, scale) = ((chunk / vocabulary).max(1), (1.0 / temperature) as f32);
        Ok(Self { hidden, weight, hidden_size, vocabulary, tokens, rows, scale, precision })
    }

    /// The operand for the logits.
    fn weight(&self) -> Operand<'_> {
        match self.precision {
            Precision::F32 => Operand::F32(&self.weight),
            Precision::Bf16 => {
                Operand::Bf16(PackedBf16::new(&self.weight, self.vocabulary, self.hidden_size))
            }
        }
    }

    /// The operand for the hidden states' gradient: in bf16 the packed transpose.
    fn transposed_weight(&self) -> Operand<'_> {
        match self.precision {
            Precision::F32 => Operand::F32(&self.weight),
            Precision::Bf16 => Operand::Bf16(PackedBf16::transposed(
                &self.weight,
                self.vocabulary,
                self.hidden_size,
            )),
        }
    }

    /// `(first token, tokens)` of each chunk.
    fn chunks(&self) -> impl DoubleEndedIterator<Item = (usize, usize)> + use<> {
        let (rows, tokens) = (self.rows, self.tokens);
        (0..tokens).step_by(rows).map(move |first| (first, rows.min(tokens - first)))
    }

    /// A chunk's logits, divided by the temperature.
    fn logits(&self, weight: &Operand<'_>, first: usize, rows: usize, logits: &mut Vec<f32>) {
        logits.resize(rows * self.vocabulary, 0.0);
        let hidden = &self.hidden[first * self.hidden_size..(first + rows) * self.hidden_size];
        match weight {
            Operand::F32(weight) => {
                matmul_f32(
                    logits,
                    WriteMode::Overwrite,
                    hidden,
                    weight,
                    (self.vocabulary, self.hidden_size),
                );
            }
            Operand::Bf16(weight) => bf16::matmul(logits, WriteMode::Overwrite, hidden, weight),
        }
        if self.scale != 1.0 {
            parallel::rows(logits, 1, |_, x| scale(x, self.scale));
        }
    }

    /// Gradient of a chunk's hidden states.
    fn d_hidden(&self, transposed: &Operand<'_>, d_logits: &[f32], rows: usize, out: &mut [f32]) {
        match transposed {
            Operand::F32(weight) => gemm(
                ViewMut::new(out, rows, self.hidden_size),
                WriteMode::Overwrite,
                View::new(d_logits, rows, self.vocabulary),
                View::new(weight, self.vocabulary, self.hidden_size),
                Threads::All,
            ),
            Operand::Bf16(transposed) => {
                bf16::matmul(out, WriteMode::Overwrite, d_logits, transposed)
            }
        }
    }

    /// Accumulates a chunk's weight gradient.
    fn add_d_weight(&self, d_weight: &mut [f32], d_logits: &[f32], hidden: &[f32], rows: usize) {
        let (a, b) = ((d_logits, self.vocabulary), (hidden, self.hidden_size));
        match self.precision {
            Precision::F32 => accumulate_weight_grad(d_weight, a, b, rows),
            Precision::Bf16 => bf16::accumulate_weight_grad(d_weight, a, b, rows),
        }
    }
}
