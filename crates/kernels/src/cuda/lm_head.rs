//! The LM head on the device: logits for a chunk of tokens at a time.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::sync::Mutex;

use candle_core::Tensor;

use super::gemm::{Destination, Operand, gemm};
use super::linear::operand_dtype;
use super::memory::cast;
use super::{Dtype, Stream, create, launch, read, upload, upload_values, write};
use crate::error::Result;
use crate::lm_head::{LmHead, LmHeadOutput};
use crate::matmul::WriteMode;

const OP: &str = "lm_head";

/// Maximum logits per chunk (256 MiB), unless a single row has more.
const CHUNK: usize = 1 << 26;

/// Maximum rows per chunk: the grid's limit.
const MAX_ROWS: usize = 32768;

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

/// GEMM operands and sizes.
struct Task {
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    dtype: Dtype,
    tokens: usize,
    hidden_size: usize,
    vocabulary: usize,
    rows: usize,
    scale: f32,
    stream: Stream,
}

pub(crate) fn forward(hidden: &Tensor, head: &LmHead<'_>, targets: &[u32]) -> Result<LmHeadOutput> {
    forward_within(hidden, head, targets, CHUNK)
}

/// [`forward`] with a limit of `chunk` logits at a time.
fn forward_within(
    hidden: &Tensor,
    head: &LmHead<'_>,
    targets: &[u32],
    chunk: usize,
) -> Result<LmHeadOutput> {
    let task = Task::new(hidden, head, targets, chunk)?;
    let (device, f32) = (hidden.device(), Dtype::F32);
    let uninit = |count| create(device, count, f32, OP, |_| Ok(()));
    let (logits, out) = (uninit(task.rows * task.vocabulary)?, uninit(task.tokens * 3)?);
    let targets = read(&task.targets, OP)?;
    write([(&logits, f32), (&out, f32)], OP, |[logits, out]| {
        for (first, rows) in task.chunks() {
            task.logits(logits, first, rows)?;
            let out = out.wrapping_byte_add(first * 3 * f32.bytes());
            let targets = targets.ptr.wrapping_byte_add(first * Dtype::U32.bytes());
            let (n, vocabulary) = (rows as c_int, task.vocabulary as c_int);
            let (scale, stream) = (task.scale, task.stream);
            launch!(OP, er_lm_head_score(out, logits, targets, n, vocabulary, scale, stream))?;
        }
        Ok(())
    })?;
    let out: Vec<f32> = out.to_vec1()?;
    let column = |column: usize| out.iter().skip(column).step_by(3).copied().collect();
    Ok(LmHeadOutput {
        logps: column(0),
        entropies: column(1),
        log_sum_exp: column(2),
        logits: Mutex::default(),
    })
}

pub(crate) fn backward(
    hidden: &Tensor,
    head: &LmHead<'_>,
    targets: &[u32],
    scores: &LmHeadOutput,
    d_logps: &[f32],
    d_weight: Option<&Tensor>,
) -> Result<Tensor> {
    backward_within((hidden, head, targets), scores, d_logps, d_weight, CHUNK)
}

/// [`backward`] with a limit of `chunk` logits at a time.
fn backward_within(
    (hidden, head, targets): (&Tensor, &LmHead<'_>, &[u32]),
    scores: &LmHeadOutput,
    d_logps: &[f32],
    d_weight: Option<&Tensor>,
    chunk: usize,
) -> Result<Tensor> {
    let task = Task::new(hidden, head, targets, chunk)?;
    let (device, f32) = (hidden.device(), Dtype::F32);
    let uninit = |count, dtype| create(device, count, dtype, OP, |_| Ok(()));
    let count = task.rows * task.vocabulary;
    let logits = uninit(count, f32)?;
    // In f32 the gradients overwrite the logits.
    let in_place = task.dtype == f32;
    let typed = uninit(if in_place { 0 } else { count }, task.dtype)?;
    let sums = upload_values(&scores.log_sum_exp, device)?;
    let d_logps = upload_values(d_logps, device)?;
    let (of_hidden, bytes) = (Dtype::of(hidden, OP)?, f32.bytes());
    let d_hidden = uninit(task.tokens * task.hidden_size, of_hidden)?;
    let targets = read(&task.targets, OP)?;
    let (sums, d_logps) = (read(&sums, OP)?, read(&d_logps, OP)?);
    let weight = task.operand(&task.weight, 0, task.vocabulary)?;
    let run = |[logits, typed, d_hidden]: [*mut c_void; 3], d_weight: Option<Destination>| {
        let d_logits = if in_place { logits } else { typed };
        for (first, rows) in task.chunks() {
            task.logits(logits, first, rows)?;
            let of_rows = |values: *const c_void| values.wrapping_byte_add(first * bytes);
            let (sums, d_logps) = (of_rows(sums.ptr), of_rows(d_logps.ptr));
            let (n, vocabulary, dtype) = (rows as c_int, task.vocabulary as c_int, task.dtype);
            let (scale, stream) = (task.scale, task.stream);
            launch!(
                OP,
                er_lm_head_gradient(
                    d_logits,
                    logits,
                    of_rows(targets.ptr),
                    sums,
                    d_logps,
                    n,
                    vocabulary,
                    scale,
                    dtype,
                    stream
                )
            )?;
            let gradient = Operand {
                ptr: d_logits,
                dtype,
                rows,
                cols: task.vocabulary,
                row_stride: task.vocabulary,
                batch_stride: 0,
                transposed: false,
            };
            let at = d_hidden.wrapping_byte_add(first * task.hidden_size * of_hidden.bytes());
            let to = Destination::new(at, of_hidden, rows, task.hidden_size);
            gemm(device, to, gradient, weight, WriteMode::Overwrite.into(), OP)?;
            if let Some(to) = d_weight {
                let hidden = task.operand(&task.hidden, first, rows)?;
                gemm(device, to, gradient.t(), hidden, WriteMode::Accumulate.into(), OP)?;
            }
        }
        Ok(())
    };
    let buffers = [(&logits, f32), (&typed, task.dtype), (&d_hidden, of_hidden)];
    match d_weight {
        None => write(buffers, OP, |buffers| run(buffers, None))?,
        Some(d_weight) => {
            let dtype = Dtype::of(d_weight, OP)?;
            let [a, b, c] = buffers;
            write([a, b, c, (d_weight, dtype)], OP, |[logits, typed, d_hidden, at]| {
                let to = Destination::new(at, dtype, task.vocabulary, task.hidden_size);
                run([logits, typed, d_hidden], Some(to))
            })?;
        }
    }
    Ok(d_hidden.reshape((task.tokens, task.hidden_size))?)
}

impl Task {
    fn new(hidden: &Tensor, head: &LmHead<'_>, targets: &[u32], chunk: usize) -> Result<Self> {
        let (device, stream) = (hidden.device(), Stream::of(hidden)?);
        let ((tokens, hidden_size), vocabulary) = (hidden.dims2()?, head.weight.dims()[0]);
        let dtype = operand_dtype(hidden, head.precision, OP)?;
        let (hidden, weight) = (cast(hidden, dtype, OP)?, cast(head.weight, dtype, OP)?);
        Ok(Self {
            dtype,
            targets: upload(
                &targets.iter().map(|id| *id as usize).collect::<Vec<_>>(),
                device,
                OP,
            )?,
            rows: (chunk / vocabulary).clamp(1, MAX_ROWS).min(tokens.max(1)),
            scale: (1.0 / head.temperature) as f32,
            hidden,
            weight,
            tokens,
            hidden_size,
            vocabulary,
            stream,
        })
    }

    /// `(first token, tokens)` of each chunk.
    fn chunks(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (rows, tokens) = (self.rows, self.tokens);
        (0..tokens).step_by(rows).map(move |first| (first, rows.min(tokens - first)))
    }

    /// Rows of an operand from `first` on.
    fn operand(&self, of: &Tensor, first: usize, rows: usize) -> Result<Operand> {
        let values = read(of, OP)?.expect_dtype(self.dtype)?;
        let ptr = values.ptr.wrapping_byte_add(first * self.hidden_size * self.dtype.bytes());
        Ok(Operand { ptr, ..Operand::new(&values, rows, self.hidden_size) })
    }

    /// The logits of some tokens, not yet divided by the temperature.
    fn logits(&self, logits: *mut c_void, first: usize, rows: usize) -> Result<()> {
        let weight = self.operand(&self.weight, 0, self.vocabulary)?.t();
        let hidden = self.operand(&self.hidden, first, rows)?;
        let to = Destination::new(logits, Dtype::F32, rows, self.vocabulary);
        gemm(self.hidden.device(), to, hidden, weight, WriteMode::Overwrite.into(), OP)
    }
}

#[cfg(feature = "cuda-host")]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::with_cuda_emulation;
    use crate::lm_head::tests::{Case, Outputs};
    use crate::precision::Precision;

    fn results(case: &Case, chunk: usize) -> Outputs {
        let head = case.head();
        let scores = forward_within(&case.hidden, &head, &case.targets, chunk).unwrap();
        let d_weight = case.d_weight();
        let task = (&case.hidden, &head, case.targets.as_slice());
        let backward = |d_weight: Option<&Tensor>| {
            backward_within(task, &scores, &case.d_logps, d_weight, chunk).unwrap()
        };
        let d_hidden = backward(Some(&d_weight));
        let values = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(values(&d_hidden), values(&backward(None)), "a frozen weight");
        Outputs { scores, d_hidden, d_weight }
    }

    #[test]
    fn chunks_of_any_size_give_the_unchunked_results() {
        const VOCABULARY: usize = 77;
        with_cuda_emulation(|| {
            for precision in [Precision::F32, Precision::Bf16] {
                let case = Case::new(VOCABULARY, precision);
                // One token at a time, seven with a shorter last chunk, and all.
                for (chunk, rows) in [(1, 1), (8 * VOCABULARY - 1, 7), (CHUNK, 23)] {
                    let task = Task::new(&case.hidden, &case.head(), &case.targets, chunk).unwrap();
                    let chunks: Vec<_> = task.chunks().collect();
                    assert_eq!(chunks.len(), 23usize.div_ceil(rows));
                    assert_eq!(chunks.last(), Some(&(22 / rows * rows, 22 % rows + 1)));
                    case.assert_close(&results(&case, chunk));
                }
            }
        });
    }
    #[test]
    fn partial_results_of_chunks_in_bf16_are_accumulated_in_f32() {
        with_cuda_emulation(|| {
            let (case, chunk) = Case::qwen3();
            case.assert_accumulated_in_f32(&results(&case, chunk));
        });
    }
}
