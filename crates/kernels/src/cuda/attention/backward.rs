//! Attention backward, block by block.

use candle_core::Tensor;

use super::block_gemms::{BlockGemms, WorkspaceSizes};
use super::blocks::chunks;
use super::kernels::Launcher;
use super::scores::{OP, at, at_mut};
use super::{MAX_SCORES, uninit};
use crate::attention::{AttentionGradients, AttentionOutput, GroupSpan, Pattern};
use crate::cuda::{Dtype, Stream, create, read, write};
use crate::error::Result;
use crate::matmul::WriteMode;

pub(crate) fn backward(
    inputs: (&Tensor, &Tensor, &Tensor),
    attended: &AttentionOutput,
    d_out: &Tensor,
    spans: &[GroupSpan],
    pattern: Pattern,
) -> Result<AttentionGradients> {
    backward_within(inputs, attended, d_out, spans, pattern, MAX_SCORES)
}

/// [`backward`] with a limit of `scores` scores at a time.
pub(super) fn backward_within(
    (q, k, v): (&Tensor, &Tensor, &Tensor),
    attended: &AttentionOutput,
    d_out: &Tensor,
    spans: &[GroupSpan],
    pattern: Pattern,
    scores: usize,
) -> Result<AttentionGradients> {
    let (device, stream, heads, f32) = (q.device(), Stream::of(q)?, pattern.heads, Dtype::F32);
    let ((rows, width), kv_shape) = (q.dims2()?, k.dims2()?);
    let chunks = chunks(spans, pattern, scores);
    let q = read(q, OP)?.expect_float()?;
    let dtype = q.dtype;
    let (k, v) = (read(k, OP)?.expect_dtype(dtype)?, read(v, OP)?.expect_dtype(dtype)?);
    let (out, d_out) =
        (read(&attended.out, OP)?.expect_dtype(dtype)?, read(d_out, OP)?.expect_dtype(dtype)?);
    let sums = read(&attended.log_sum_exp, OP)?.expect_dtype(f32)?;
    let launcher = Launcher { pattern, dtype, stream };
    let WorkspaceSizes { queries, scores } = WorkspaceSizes::of(&chunks, pattern.heads);
    let packed_rows = queries * heads.query;
    let f32s = |count| uninit(device, count, f32);
    let typed = |count| uninit(device, count, dtype);
    let (packed_q, packed_d) = (typed(packed_rows * heads.dim)?, typed(packed_rows * heads.dim)?);
    let (packed_dq, delta, packed_sums) =
        (f32s(packed_rows * heads.dim)?, f32s(packed_rows)?, f32s(packed_rows)?);
    let (scores, d_weights) = (f32s(scores)?, f32s(scores)?);
    // In f32 the weights overwrite the scores, and the scores' gradients the weights' gradients.
    let in_place = dtype == f32;
    let typed_scores = if in_place { 1 } else { scores.elem_count() };
    let (weights, d_scores) = (typed(typed_scores)?, typed(typed_scores)?);
    let (dk, dv) = (f32s(kv_shape.0 * kv_shape.1)?, f32s(kv_shape.0 * kv_shape.1)?);
    let dq = uninit(device, rows * width, dtype)?;
    let buffers = [
        (&dq, dtype),
        (&dk, f32),
        (&dv, f32),
        (&packed_q, dtype),
        (&packed_d, dtype),
        (&packed_dq, f32),
        (&delta, f32),
        (&packed_sums, f32),
        (&scores, f32),
        (&d_weights, f32),
        (&weights, dtype),
        (&d_scores, dtype),
    ];
    write(
        buffers,
        OP,
        |[dq, dk, dv, packed_q, packed_d, packed_dq, delta, packed_sums, rest @ ..]| {
            let [scores, d_weights, weights, d_scores] = rest;
            let (weights, d_scores) =
                if in_place { (scores, d_weights) } else { (weights, d_scores) };
            for sum in [dk, dv] {
                launcher.fill(sum, kv_shape.0 * kv_shape.1, 0.0)?;
            }
            for chunk in &chunks {
                let (rows, first) = (chunk.rows.len(), chunk.rows.start);
                let (blocks, q_per_kv) =
                    (BlockGemms { device, launcher, rows }, heads.queries_per_kv());
                let query = |data| at(data, first * heads.q_size(), dtype);
                let of_sums = at(sums.ptr, first * heads.query, f32);
                launcher.pack(packed_q, query(q.ptr), rows)?;
                let from = [query(d_out.ptr), query(out.ptr), of_sums];
                launcher.gradient_rows([packed_d, delta, packed_sums], from, rows)?;
                launcher.fill(packed_dq, rows * heads.q_size(), 0.0)?;
                for block in chunk.blocks() {
                    blocks.query_key(scores, packed_q, k.ptr, block)?;
                    blocks.query_key(d_weights, packed_d, v.ptr, block)?;
                    let of_row = |data| at(data, block.queries.start * q_per_kv, f32);
                    let from = [scores.cast_const(), d_weights, of_row(packed_sums), of_row(delta)];
                    launcher.scores_gradient([weights, d_scores], from, block, rows * q_per_kv)?;
                    blocks.accumulate_kv_grad(dv, weights, packed_d, block)?;
                    blocks.accumulate_kv_grad(dk, d_scores, packed_q, block)?;
                    blocks.weighted_values(
                        packed_dq,
                        d_scores,
                        k.ptr,
                        block,
                        WriteMode::Accumulate,
                    )?;
                }
                let to = at_mut(dq, first * heads.q_size(), dtype);
                launcher.unpack(to, packed_dq, rows)?;
            }
            Ok(())
        },
    )?;
    let narrowed = |sum: Tensor| match in_place {
        true => Ok(sum),
        false => {
            let from = read(&sum, OP)?;
            create(device, sum.elem_count(), dtype, OP, |to| {
                launcher.narrow(to, from.ptr, kv_shape)
            })
        }
    };
    Ok(AttentionGradients {
        q: dq.reshape((rows, width))?,
        k: narrowed(dk)?.reshape(kv_shape)?,
        v: narrowed(dv)?.reshape(kv_shape)?,
    })
}
