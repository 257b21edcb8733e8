//! The LM head on the device: logits for a chunk of tokens at a time.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};

use candle_core::Tensor;

use super::linear::factors;
use super::memory::held_as;
use super::product::{Destination, Factor, product};
use super::{Dtype, Stream, create, launch, read, upload, write};
use crate::error::Result;
use crate::lm_head::{Head, Scores};
use crate::matmul::Into;

const OP: &str = "lm_head";

/// Logits of a chunk, at most, unless a single row has more: 256 MiB of them.
const CHUNK: usize = 1 << 26;

/// Rows of a chunk, at most: what a grid takes.
const MOST_ROWS: usize = 32768;

unsafe extern "C" {
    fn er_lm_head_score(
        out: *mut c_void,
        logits: *const c_void,
        targets: *const c_void,
        rows: c_int,
        vocabulary: c_int,
        scale: f32,
        stream: Stream,
    ) -> c_int;
    fn er_lm_head_gradient(
        d_logits: *mut c_void,
        logits: *const c_void,
        targets: *const c_void,
        log_sum_exp: *const c_void,
        d_logps: *const c_void,
        rows: c_int,
        vocabulary: c_int,
        scale: f32,
        dtype: Dtype,
        stream: Stream,
    ) -> c_int;
}

/// The factors of the products, and the sizes.
struct Task {
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    dtype: Dtype,
    tokens: usize,
    width: usize,
    vocabulary: usize,
    rows: usize,
    scale: f32,
    stream: Stream,
}

pub(crate) fn forward(hidden: &Tensor, head: &Head<'_>, targets: &[u32]) -> Result<Scores> {
    forward_within(hidden, head, targets, CHUNK)
}

/// As [`forward`], with so many logits at the same time.
fn forward_within(
    hidden: &Tensor,
    head: &Head<'_>,
    targets: &[u32],
    chunk: usize,
) -> Result<Scores> {
    let task = Task::new(hidden, head, targets, chunk)?;
    let (device, f32) = (hidden.device(), Dtype::F32);
    let room = |count| create(device, count, f32, OP, |_| Ok(()));
    let (logits, out) = (room(task.rows * task.vocabulary)?, room(task.tokens * 3)?);
    let targets = read(&task.targets, OP)?;
    write([(&logits, f32), (&out, f32)], OP, |[logits, out]| {
        for (first, rows) in task.chunks() {
            task.logits(logits, first, rows)?;
            let out = out.wrapping_byte_add(first * 3 * f32.bytes());
            let targets = targets.at.wrapping_byte_add(first * Dtype::U32.bytes());
            let (n, vocabulary) = (rows as c_int, task.vocabulary as c_int);
            let (scale, stream) = (task.scale, task.stream);
            launch!(OP, er_lm_head_score(out, logits, targets, n, vocabulary, scale, stream))?;
        }
        Ok(())
    })?;
    let out: Vec<f32> = out.to_vec1()?;
    let column = |column: usize| out.iter().skip(column).step_by(3).copied().collect();
    Ok(Scores { logps: column(0), entropies: column(1), log_sum_exp: column(2) })
}

pub(crate) fn backward(
    hidden: &Tensor,
    head: &Head<'_>,
    targets: &[u32],
    scores: &Scores,
    d_logps: &[f32],
    d_weight: Option<&Tensor>,
) -> Result<Tensor> {
    backward_within((hidden, head, targets), scores, d_logps, d_weight, CHUNK)
}

/// As [`backward`], with so many logits at the same time.
fn backward_within(
    (hidden, head, targets): (&Tensor, &Head<'_>, &[u32]),
    scores: &Scores,
    d_logps: &[f32],
    d_weight: Option<&Tensor>,
    chunk: usize,
) -> Result<Tensor> {
    let task = Task::new(hidden, head, targets, chunk)?;
    let (device, f32) = (hidden.device(), Dtype::F32);
    let room = |count, dtype| create(device, count, dtype, OP, |_| Ok(()));
    let count = task.rows * task.vocabulary;
    let logits = room(count, f32)?;
    // In f32 the gradients take the logits' place.
    let in_place = task.dtype == f32;
    let typed = room(if in_place { 0 } else { count }, task.dtype)?;
    let sums = Tensor::from_slice(&scores.log_sum_exp, task.tokens, device)?;
    let d_logps = Tensor::from_slice(d_logps, task.tokens, device)?;
    let (of_hidden, bytes) = (Dtype::of(hidden, OP)?, f32.bytes());
    let d_hidden = room(task.tokens * task.width, of_hidden)?;
    let targets = read(&task.targets, OP)?;
    let (sums, d_logps) = (read(&sums, OP)?, read(&d_logps, OP)?);
    let weight = task.factor(&task.weight, 0, task.vocabulary)?;
    let run = |[logits, typed, d_hidden]: [*mut c_void; 3], d_weight: Option<Destination>| {
        let d_logits = if in_place { logits } else { typed };
        for (first, rows) in task.chunks() {
            task.logits(logits, first, rows)?;
            let of_rows = |numbers: *const c_void| numbers.wrapping_byte_add(first * bytes);
            let (sums, d_logps) = (of_rows(sums.at), of_rows(d_logps.at));
            let (n, vocabulary, dtype) = (rows as c_int, task.vocabulary as c_int, task.dtype);
            let (scale, stream) = (task.scale, task.stream);
            launch!(
                OP,
                er_lm_head_gradient(
                    d_logits,
                    logits,
                    of_rows(targets.at),
                    sums,
                    d_logps,
                    n,
                    vocabulary,
                    scale,
                    dtype,
                    stream
                )
            )?;
            let gradient = Factor {
                at: d_logits,
                dtype,
                rows,
                cols: task.vocabulary,
                row_stride: task.vocabulary,
                batch_stride: 0,
                transposed: false,
            };
            let at = d_hidden.wrapping_byte_add(first * task.width * of_hidden.bytes());
            let to = Destination::new(at, of_hidden, rows, task.width);
            product(device, to, gradient, weight, Into::Replace.into(), OP)?;
            if let Some(to) = d_weight {
                let hidden = task.factor(&task.hidden, first, rows)?;
                product(device, to, gradient.t(), hidden, Into::Add.into(), OP)?;
            }
        }
        Ok(())
    };
    let held = [(&logits, f32), (&typed, task.dtype), (&d_hidden, of_hidden)];
    match d_weight {
        None => write(held, OP, |held| run(held, None))?,
        Some(d_weight) => {
            let dtype = Dtype::of(d_weight, OP)?;
            let [a, b, c] = held;
            write([a, b, c, (d_weight, dtype)], OP, |[logits, typed, d_hidden, at]| {
                let to = Destination::new(at, dtype, task.vocabulary, task.width);
                run([logits, typed, d_hidden], Some(to))
            })?;
        }
    }
    Ok(d_hidden.reshape((task.tokens, task.width))?)
}

impl Task {
    fn new(hidden: &Tensor, head: &Head<'_>, targets: &[u32], chunk: usize) -> Result<Self> {
        let (device, stream) = (hidden.device(), Stream::of(hidden)?);
        let ((tokens, width), vocabulary) = (hidden.dims2()?, head.weight.dims()[0]);
        let dtype = factors(hidden, head.precision, OP)?;
        let (hidden, weight) = (held_as(hidden, dtype, OP)?, held_as(head.weight, dtype, OP)?);
        Ok(Self {
            dtype,
            targets: upload(
                &targets.iter().map(|id| *id as usize).collect::<Vec<_>>(),
                device,
                OP,
            )?,
            rows: (chunk / vocabulary).clamp(1, MOST_ROWS).min(tokens.max(1)),
            scale: (1.0 / head.temperature) as f32,
            hidden,
            weight,
            tokens,
            width,
            vocabulary,
            stream,
        })
    }

    /// `(first token, number of tokens)` of each chunk.
    fn chunks(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (rows, tokens) = (self.rows, self.tokens);
        (0..tokens).step_by(rows).map(move |first| (first, rows.min(tokens - first)))
    }

    /// Rows of a factor from `first` on.
    fn factor(&self, of: &Tensor, first: usize, rows: usize) -> Result<Factor> {
        let numbers = read(of, OP)?.of(self.dtype)?;
        let at = numbers.at.wrapping_byte_add(first * self.width * self.dtype.bytes());
        Ok(Factor { at, ..Factor::new(&numbers, rows, self.width) })
    }

    /// The logits of some tokens, before the temperature.
    fn logits(&self, logits: *mut c_void, first: usize, rows: usize) -> Result<()> {
        let weight = self.factor(&self.weight, 0, self.vocabulary)?.t();
        let hidden = self.factor(&self.hidden, first, rows)?;
        let to = Destination::new(logits, Dtype::F32, rows, self.vocabulary);
        product(self.hidden.device(), to, hidden, weight, Into::Replace.into(), OP)
    }
}

#[cfg(feature = "cuda-host")]
#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::device::through_kernels;
    use crate::precision::Precision;

    fn noise(seed: u32, rows: usize, width: usize) -> Tensor {
        let number = |i: u32| ((i * 7919 + seed * 104_729) % 1013) as f32 / 506.5 - 1.0;
        let numbers: Vec<f32> = (0..(rows * width) as u32).map(number).collect();
        Tensor::from_vec(numbers, (rows, width), &Device::Cpu).unwrap()
    }

    /// Log-probabilities, entropies, and the gradients of hidden states and of the weight.
    fn results(chunk: usize) -> [Vec<f32>; 4] {
        const VOCABULARY: usize = 30;
        let (hidden, weight) = (noise(1, 11, 8), noise(2, VOCABULARY, 8));
        let head = Head { weight: &weight, temperature: 0.8, precision: Precision::F32 };
        let targets: Vec<u32> = (0..11).map(|i| i * 7 % VOCABULARY as u32).collect();
        let d_logps: Vec<f32> = (0..11).map(|i| i as f32 / 4.0 - 1.0).collect();
        let d_weight = noise(3, VOCABULARY, 8);
        let scores = forward_within(&hidden, &head, &targets, chunk).unwrap();
        let task = (&hidden, &head, targets.as_slice());
        let d_hidden = backward_within(task, &scores, &d_logps, Some(&d_weight), chunk).unwrap();
        let numbers = |x: Tensor| x.flatten_all().unwrap().to_vec1().unwrap();
        [scores.logps, scores.entropies, numbers(d_hidden), numbers(d_weight)]
    }

    #[test]
    fn chunks_of_any_size_give_the_same() {
        through_kernels(|| {
            let whole = results(1 << 20);
            // A row at a time, and four, of which the last chunk has fewer.
            for chunk in [1, 120] {
                for (found, expected) in results(chunk).iter().zip(&whole) {
                    assert_eq!(found.len(), expected.len());
                    for (found, expected) in found.iter().zip(expected) {
                        assert!(
                            (found - expected).abs() < 1e-5,
                            "{chunk}: {found}, not {expected}"
                        );
                    }
                }
            }
        });
    }
}
