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

pub(crate) fn forward(
    hidden: &Tensor,
    head: &Head<'_>,
    targets: &[u32],
    chunk: Option<usize>,
) -> Result<Scores> {
    let task = Task::new(hidden, head, targets, chunk.unwrap_or(CHUNK))?;
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
    chunk: Option<usize>,
) -> Result<Tensor> {
    let task = Task::new(hidden, head, targets, chunk.unwrap_or(CHUNK))?;
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
