//! The gradients of attention, block by block.

use candle_core::Tensor;

use super::blocks::{Blocks, Sizes};
use super::kernels::Launcher;
use super::plan::chunks;
use super::{OP, SCORES, at, at_mut, room};
use crate::attention::{Attended, Gradients, GroupSpan, Pattern};
use crate::cuda::{Dtype, Stream, create, read, write};
use crate::error::Result;
use crate::matmul::Into;

pub(crate) fn backward(
    inputs: (&Tensor, &Tensor, &Tensor),
    attended: &Attended,
    d_out: &Tensor,
    spans: &[GroupSpan],
    pattern: Pattern,
) -> Result<Gradients> {
    backward_within(inputs, attended, d_out, spans, pattern, SCORES)
}

/// As [`backward`], with so many scores at the same time.
pub(super) fn backward_within(
    (q, k, v): (&Tensor, &Tensor, &Tensor),
    attended: &Attended,
    d_out: &Tensor,
    spans: &[GroupSpan],
    pattern: Pattern,
    scores: usize,
) -> Result<Gradients> {
    let (device, stream, heads, f32) = (q.device(), Stream::of(q)?, pattern.heads, Dtype::F32);
    let ((rows, width), of_keys) = (q.dims2()?, k.dims2()?);
    let chunks = chunks(spans, pattern, scores);
    let q = read(q, OP)?.float()?;
    let dtype = q.dtype;
    let (k, v) = (read(k, OP)?.of(dtype)?, read(v, OP)?.of(dtype)?);
    let (out, d_out) = (read(&attended.out, OP)?.of(dtype)?, read(d_out, OP)?.of(dtype)?);
    let sums = read(&attended.log_sum_exp, OP)?.of(f32)?;
    let launcher = Launcher { pattern, dtype, stream };
    let Sizes { queries, scores } = Sizes::of(&chunks, pattern.heads);
    let packed_rows = queries * heads.query;
    let f32s = |count| room(device, count, f32);
    let typed = |count| room(device, count, dtype);
    let (packed_q, packed_d) = (typed(packed_rows * heads.dim)?, typed(packed_rows * heads.dim)?);
    let (packed_dq, delta, packed_sums) =
        (f32s(packed_rows * heads.dim)?, f32s(packed_rows)?, f32s(packed_rows)?);
    let (scores, d_weights) = (f32s(scores)?, f32s(scores)?);
    // In f32 the weights take the place of the scores, and the scores' gradients that of the weights'.
    let in_place = dtype == f32;
    let typed_scores = if in_place { 1 } else { scores.elem_count() };
    let (weights, d_scores) = (typed(typed_scores)?, typed(typed_scores)?);
    let (dk, dv) = (f32s(of_keys.0 * of_keys.1)?, f32s(of_keys.0 * of_keys.1)?);
    let dq = room(device, rows * width, dtype)?;
    let held = [
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
        held,
        OP,
        |[dq, dk, dv, packed_q, packed_d, packed_dq, delta, packed_sums, rest @ ..]| {
            let [scores, d_weights, weights, d_scores] = rest;
            let (weights, d_scores) =
                if in_place { (scores, d_weights) } else { (weights, d_scores) };
            for sum in [dk, dv] {
                launcher.fill(sum, of_keys.0 * of_keys.1, 0.0)?;
            }
            for chunk in &chunks {
                let (rows, first) = (chunk.rows.len(), chunk.rows.start);
                let (blocks, shared) = (Blocks { device, launcher, rows }, heads.shared());
                let query = |numbers| at(numbers, first * heads.query_width(), dtype);
                let of_sums = at(sums.at, first * heads.query, f32);
                launcher.pack(packed_q, query(q.at), rows)?;
                let from = [query(d_out.at), query(out.at), of_sums];
                launcher.gradient_rows([packed_d, delta, packed_sums], from, rows)?;
                launcher.fill(packed_dq, rows * heads.query_width(), 0.0)?;
                for block in chunk.blocks() {
                    blocks.with_keys(scores, packed_q, k.at, block)?;
                    blocks.with_keys(d_weights, packed_d, v.at, block)?;
                    let of_row = |numbers| at(numbers, block.queries.start * shared, f32);
                    let from = [scores.cast_const(), d_weights, of_row(packed_sums), of_row(delta)];
                    launcher.scores_gradient([weights, d_scores], from, block, rows * shared)?;
                    blocks.add_to_keys(dv, weights, packed_d, block)?;
                    blocks.add_to_keys(dk, d_scores, packed_q, block)?;
                    blocks.of_keys(packed_dq, d_scores, k.at, block, Into::Add)?;
                }
                let to = at_mut(dq, first * heads.query_width(), dtype);
                launcher.unpack(to, packed_dq, rows)?;
            }
            Ok(())
        },
    )?;
    let narrowed = |sum: Tensor| match in_place {
        true => Ok(sum),
        false => {
            let from = read(&sum, OP)?;
            create(device, sum.elem_count(), dtype, OP, |to| launcher.narrow(to, from.at, of_keys))
        }
    };
    Ok(Gradients {
        q: dq.reshape((rows, width))?,
        k: narrowed(dk)?.reshape(of_keys)?,
        v: narrowed(dv)?.reshape(of_keys)?,
    })
}
