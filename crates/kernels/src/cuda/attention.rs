//! Attention over packed groups on the device: dense products of queries with keys, in chunks of queries that bound
//! the memory for scores; the completions' results with their prompt and with themselves are merged by their
//! log-sum-exp.
//!
//! Queries are packed by key head, so that those of all its query heads are one matrix and each product one batch
//! over the key heads. Scores, statistics and sums are f32; the factors of products are held as the inputs are.

mod backward;
mod blocks;
mod kernels;
mod plan;

use std::ffi::c_void;
use std::ptr::null;

use candle_core::{Device, Tensor};

use super::{Dtype, Stream, create, read, write};
use crate::attention::{Attended, GroupSpan, Pattern};
use crate::error::Result;
use crate::matmul::Into;
pub(crate) use backward::backward;
use blocks::{Blocks, Sizes};
use kernels::Launcher;
use plan::chunks;

const OP: &str = "attention";

/// Scores that exist at the same time, at most, unless a single query has more: 128 MiB of them.
const SCORES: usize = 1 << 25;

/// Keys made a multiple of 8, so that rows of scores begin where products like them to.
fn stride(keys: usize) -> usize {
    keys.next_multiple_of(8)
}

/// Address of the `index`-th number.
fn at(numbers: *const c_void, index: usize, dtype: Dtype) -> *const c_void {
    numbers.wrapping_byte_add(index * dtype.bytes())
}

fn at_mut(numbers: *mut c_void, index: usize, dtype: Dtype) -> *mut c_void {
    numbers.wrapping_byte_add(index * dtype.bytes())
}

/// Numbers that will be written later.
fn room(device: &Device, count: usize, dtype: Dtype) -> Result<Tensor> {
    create(device, count, dtype, OP, |_| Ok(()))
}

pub(crate) fn forward(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    spans: &[GroupSpan],
    pattern: Pattern,
) -> Result<Attended> {
    forward_within(q, k, v, spans, pattern, SCORES)
}

/// As [`forward`], with so many scores at the same time.
fn forward_within(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    spans: &[GroupSpan],
    pattern: Pattern,
    scores: usize,
) -> Result<Attended> {
    let (device, rows) = (q.device(), q.dims()[0]);
    let dtype = Dtype::of(q, OP)?;
    let out = room(device, rows * pattern.heads.query_width(), dtype)?;
    let log_sum_exp = room(device, rows * pattern.heads.query, Dtype::F32)?;
    forward_into((&out, &log_sum_exp), (q, k, v), spans, pattern, scores)?;
    Ok(Attended {
        out: out.reshape((rows, pattern.heads.query_width()))?,
        log_sum_exp: log_sum_exp.reshape((rows, pattern.heads.query))?,
    })
}

/// As [`forward`], into tensors that are there.
pub(super) fn forward_over(
    results: (&Tensor, &Tensor),
    inputs: (&Tensor, &Tensor, &Tensor),
    spans: &[GroupSpan],
    pattern: Pattern,
) -> Result<()> {
    forward_into(results, inputs, spans, pattern, SCORES)
}

fn forward_into(
    (out, log_sum_exp): (&Tensor, &Tensor),
    (q, k, v): (&Tensor, &Tensor, &Tensor),
    spans: &[GroupSpan],
    pattern: Pattern,
    scores: usize,
) -> Result<()> {
    let (device, stream, heads) = (q.device(), Stream::of(q)?, pattern.heads);
    let chunks = chunks(spans, pattern, scores);
    let q = read(q, OP)?.float()?;
    let dtype = q.dtype;
    let (k, v) = (read(k, OP)?.of(dtype)?, read(v, OP)?.of(dtype)?);
    let launcher = Launcher { pattern, dtype, stream };
    let Sizes { queries, scores } = Sizes::of(&chunks, pattern.heads);
    let of_queries = queries * heads.query;
    let f32s = |count| room(device, count, Dtype::F32);
    let (packed, weights) =
        (room(device, of_queries * heads.dim, dtype)?, room(device, scores, dtype)?);
    let scores = f32s(scores)?;
    let results = [f32s(of_queries * heads.dim)?, f32s(of_queries * heads.dim)?];
    let sums = [f32s(of_queries)?, f32s(of_queries)?];
    let f32 = Dtype::F32;
    let held = [
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
    write(held, OP, |[out, log_sum_exp, packed, weights, scores, first, second, a, b]| {
        let (results, sums) = ([first, second], [a, b]);
        for chunk in &chunks {
            let (rows, first) = (chunk.rows.len(), chunk.rows.start);
            let blocks = Blocks { device, launcher, rows };
            launcher.pack(packed, at(q.at, first * heads.query_width(), dtype), rows)?;
            let mut parts = [(null(), null()); 2];
            for (part, of_part) in chunk.parts.iter().enumerate() {
                if of_part.is_empty() {
                    continue;
                }
                parts[part] = (results[part].cast_const(), sums[part].cast_const());
                // Not every query sees something of the prompt through a window.
                launcher.fill(sums[part], rows * heads.query, f32::NEG_INFINITY)?;
                for block in of_part {
                    blocks.with_keys(scores, packed, k.at, block)?;
                    let sums = at_mut(sums[part], block.queries.start * heads.shared(), f32);
                    launcher.softmax((weights, sums), scores, block, rows * heads.shared())?;
                    blocks.of_keys(results[part], weights, v.at, block, Into::Replace)?;
                }
            }
            let to = (
                at_mut(out, first * heads.query_width(), dtype),
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
