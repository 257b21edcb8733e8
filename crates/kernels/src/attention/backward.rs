//! The gradients of attention, with the scores computed again block by block.

use candle_core::Tensor;
use multiversion::multiversion;
use rayon::prelude::*;

use super::block::Block;
use super::{
    Attended, BLOCK, Group, GroupSpan, OP, Pattern, assemble, check_shapes, groups, tasks,
};
use crate::error::{Result, check};
use crate::math::{dot, scale};
use crate::matmul::{Into, Threads, View, ViewMut, product};
use crate::memory::{floats, tensor};

/// The gradients of queries, keys and values, each of its tensor's shape.
pub struct Gradients {
    /// Of the queries (tokens, query heads · dim).
    pub q: Tensor,
    /// Of the keys (tokens, kv heads · dim): a prompt's are the sum over its completions.
    pub k: Tensor,
    /// Of the values (tokens, kv heads · dim), likewise.
    pub v: Tensor,
}

/// The gradients of attention's inputs from that of its output.
///
/// With `P` the probabilities: `dV = Pᵀ·dO`, `dS = P ∘ (dO·Vᵀ - rowsum(dO ∘ O))`,
/// `dQ = dS·K / sqrt(dim)`, `dK = dSᵀ·Q / sqrt(dim)` (Dao, FlashAttention-2, 2023, algorithm 2).
///
/// # Shapes
/// As [`super::forward`]; `d_out` has the shape of its output.
///
/// # Errors
/// As [`super::forward`].
pub fn backward(
    (q, k, v): (&Tensor, &Tensor, &Tensor),
    attended: &Attended,
    d_out: &Tensor,
    spans: &[GroupSpan],
    pattern: Pattern,
) -> Result<Gradients> {
    let heads = pattern.heads;
    check_shapes(q, k, v, spans, pattern)?;
    check(d_out.dims() == q.dims(), OP, || "the output's gradient misfits".into())?;
    let inputs = Inputs {
        q: &floats(q, OP)?,
        k: &floats(k, OP)?,
        v: &floats(v, OP)?,
        out: &floats(&attended.out, OP)?,
        log_sum_exp: &floats(&attended.log_sum_exp, OP)?,
        d_out: &floats(d_out, OP)?,
    };
    let groups = groups(spans);
    let parts: Vec<Part> = tasks(&groups, heads)
        .map(|(group, kv_head)| part(group, kv_head, &inputs, pattern))
        .collect();
    let width = heads.shared() * heads.dim;
    let dq = assemble(&parts, &groups, heads, width, |group| group.queries(), |part| &part.dq);
    let dk = assemble(&parts, &groups, heads, heads.dim, |group| group.keys(), |part| &part.dk);
    let dv = assemble(&parts, &groups, heads, heads.dim, |group| group.keys(), |part| &part.dv);
    Ok(Gradients {
        q: tensor(dq, q.shape())?,
        k: tensor(dk, k.shape())?,
        v: tensor(dv, v.shape())?,
    })
}

struct Inputs<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    out: &'a [f32],
    log_sum_exp: &'a [f32],
    d_out: &'a [f32],
}

/// The gradients for one group and one key and value head, rows within the group.
struct Part {
    dq: Vec<f32>,
    dk: Vec<f32>,
    dv: Vec<f32>,
}

fn part(group: &Group<'_>, kv_head: usize, inputs: &Inputs<'_>, pattern: Pattern) -> Part {
    let heads = pattern.heads;
    let (silent, tokens) = (group.span.silent, group.keys().len());
    let (shared, dim) = (heads.shared(), heads.dim);
    let width = shared * dim;
    let mut part = Part {
        dq: vec![0.0; group.queries().len() * width],
        dk: vec![0.0; tokens * dim],
        dv: vec![0.0; tokens * dim],
    };
    let mut block = Block::new(pattern, kv_head, group);
    let (mut d_out, mut deltas, mut ds) = (Vec::new(), Vec::new(), Vec::new());
    for segment in group.span.segments() {
        for queries in segment.blocks(BLOCK, silent) {
            block.scores(inputs.q, inputs.k, &segment, queries.clone());
            let query_row = |row| group.first_query + row - silent;
            block.softmax_again(&segment, |row, head| {
                inputs.log_sum_exp[query_row(row) * heads.query + kv_head * shared + head]
            });
            d_out.clear();
            deltas.clear();
            for row in queries.clone() {
                let at = block.query_part(row);
                let (d, out) = (&inputs.d_out[at.clone()], &inputs.out[at]);
                d_out.extend_from_slice(d);
                let first = deltas.len();
                deltas.resize(first + shared, 0.0);
                row_dots(d, out, dim, &mut deltas[first..]);
            }
            let (rows, keys) = (block.rows(), block.keys());
            ds.resize(rows * keys, 0.0);
            block.against(&d_out, inputs.v, &segment, &mut ds);
            for ((ds, p), delta) in ds.chunks_mut(keys).zip(block.p.chunks(keys)).zip(&deltas) {
                score_gradient(p, *delta, ds);
            }
            let dq = &mut part.dq[(queries.start - silent) * width..(queries.end - silent) * width];
            block.combine(&ds, inputs.k, &segment, dq);
            scale(dq, block.scale());
            for (column, first, n) in block.runs(&segment) {
                if n == 0 {
                    continue;
                }
                let own = first * dim..(first + n) * dim;
                let columns = |x| View::strided(x, rows, n, keys).t();
                for (out, weights, by) in [
                    (&mut part.dk[own.clone()], &ds[column..], &block.q),
                    (&mut part.dv[own], &block.p[column..], &d_out),
                ] {
                    product(
                        ViewMut::new(out, n, dim),
                        Into::Add,
                        columns(weights),
                        View::new(by, rows, dim),
                        Threads::One,
                    );
                }
            }
        }
    }
    part
}

/// The scalar product of each run of `dim` numbers of `a` with that of `b`.
#[multiversion(targets = "simd")]
fn row_dots(a: &[f32], b: &[f32], dim: usize, out: &mut [f32]) {
    for ((a, b), out) in a.chunks(dim).zip(b.chunks(dim)).zip(out) {
        *out = dot(a, b);
    }
}

/// `ds = p · (ds - delta)`.
#[multiversion(targets = "simd")]
fn score_gradient(p: &[f32], delta: f32, ds: &mut [f32]) {
    for (ds, p) in ds.iter_mut().zip(p) {
        *ds = p * (*ds - delta);
    }
}
