//! Attention over packed groups on the device: dense GEMMs of queries and keys, in chunks of queries that bound the
//! memory for scores. Completions' results over their prompt and over themselves are merged by their log-sum-exp.
//!
//! Queries are packed by KV head, so that all query heads of a KV head form one matrix and each GEMM is a batch over
//! the KV heads. Scores, statistics and accumulators are f32; GEMM operands keep the inputs' dtype.

mod backward;
mod block_gemms;
mod blocks;
mod kernels;
mod scores;

use std::ptr::null;

use candle_core::{Device, Tensor};

use super::{Dtype, Stream, create, read, write};
use crate::attention::{AttentionOutput, GroupSpan, Pattern};
use crate::error::Result;
use crate::matmul::WriteMode;
pub(crate) use backward::backward;
use block_gemms::{BlockGemms, WorkspaceSizes};
use blocks::chunks;
use kernels::Launcher;
use scores::{OP, at, at_mut};

/// Maximum scores in memory at a time (128 MiB), unless a single query has more.
const MAX_SCORES: usize = 1 << 25;

/// Uninitialized memory.
fn uninit(device: &Device, count: usize, dtype: Dtype) -> Result<Tensor> {
    create(device, count, dtype, OP, |_| Ok(()))
}

pub(crate) fn forward(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    spans: &[GroupSpan],
    pattern: Pattern,
) -> Result<AttentionOutput> {
    forward_within(q, k, v, spans, pattern, MAX_SCORES)
}

/// [`forward`] with a limit of `scores` scores at a time.
fn forward_within(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    spans: &[GroupSpan],
    pattern: Pattern,
    scores: usize,
) -> Result<AttentionOutput> {
    let (device, rows) = (q.device(), q.dims()[0]);
    let dtype = Dtype::of(q, OP)?;
    let out = uninit(device, rows * pattern.heads.q_size(), dtype)?;
    let log_sum_exp = uninit(device, rows * pattern.heads.query, Dtype::F32)?;
    forward_chunked((&out, &log_sum_exp), (q, k, v), spans, pattern, scores)?;
    Ok(AttentionOutput {
        out: out.reshape((rows, pattern.heads.q_size()))?,
        log_sum_exp: log_sum_exp.reshape((rows, pattern.heads.query))?,
    })
}

/// [`forward`] into existing tensors.
pub(super) fn forward_into(
    results: (&Tensor, &Tensor),
    inputs: (&Tensor, &Tensor, &Tensor),
    spans: &[GroupSpan],
    pattern: Pattern,
) -> Result<()> {
    forward_chunked(results, inputs, spans, pattern, MAX_SCORES)
}

fn forward_chunked(
    (out, log_sum_exp): (&Tensor, &Tensor),
    (q, k, v): (&Tensor, &Tensor, &Tensor),
    spans: &[GroupSpan],
    pattern: Pattern,
    scores: usize,
) -> Result<()> {
    let (device, stream, heads) = (q.device(), Stream::of(q)?, pattern.heads);
    let chunks = chunks(spans, pattern, scores);
    let q = read(q, OP)?.expect_float()?;
    let dtype = q.dtype;
    let (k, v) = (read(k, OP)?.expect_dtype(dtype)?, read(v, OP)?.expect_dtype(dtype)?);
    let launcher = Launcher { pattern, dtype, stream };
    let WorkspaceSizes { queries, scores } = WorkspaceSizes::of(&chunks, pattern.heads);
    let of_queries = queries * heads.query;
    let f32s = |count| uninit(device, count, Dtype::F32);
    let (packed, weights) =
        (uninit(device, of_queries * heads.dim, dtype)?, uninit(device, scores, dtype)?);
    let scores = f32s(scores)?;
    let results = [f32s(of_queries * heads.dim)?, f32s(of_queries * heads.dim)?];
    let sums = [f32s(of_queries)?, f32s(of_queries)?];
    let f32 = Dtype::F32;
    let buffers = [
        (out, dtype),
        (log_sum_exp, f32),
        (&packed, dtype),
        (&weights, dtype),
        (&scores, f32),
        (&results[0], f32),
        (&results[1], f32),
        (&sums[0], f32),
        (&sums[1], f32),
    ];
    write(buffers, OP, |[out, log_sum_exp, packed, weights, scores, first, second, a, b]| {
        let (results, sums) = ([first, second], [a, b]);
        for chunk in &chunks {
            let (rows, first) = (chunk.rows.len(), chunk.rows.start);
            let blocks = BlockGemms { device, launcher, rows };
            launcher.pack(packed, at(q.ptr, first * heads.q_size(), dtype), rows)?;
            let mut parts = [(null(), null()); 2];
            for (part, of_part) in chunk.parts.iter().enumerate() {
                if of_part.is_empty() {
                    continue;
                }
                parts[part] = (results[part].cast_const(), sums[part].cast_const());
                // With a sliding window some queries attend to nothing of the prompt.
                launcher.fill(sums[part], rows * heads.query, f32::NEG_INFINITY)?;
                for block in of_part {
                    blocks.query_key(scores, packed, k.ptr, block)?;
                    let sums =
                        at_mut(sums[part], block.queries.start * heads.queries_per_kv(), f32);
                    launcher.softmax(
                        (weights, sums),
                        scores,
                        block,
                        rows * heads.queries_per_kv(),
                    )?;
                    blocks.weighted_values(
                        results[part],
                        weights,
                        v.ptr,
                        block,
                        WriteMode::Overwrite,
                    )?;
                }
            }
            let to = (
                at_mut(out, first * heads.q_size(), dtype),
                at_mut(log_sum_exp, first * heads.query, f32),
            );
            launcher.merge(to, parts, rows)?;
        }
        Ok(())
    })
}

#[cfg(feature = "cuda-host")]
#[cfg(test)]
mod tests;
