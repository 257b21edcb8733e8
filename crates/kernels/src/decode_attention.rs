//! Attention of one new token for each of many sequences, over their cached keys and values.

use multiversion::multiversion;
use rayon::prelude::*;

use crate::attention::Heads;
use crate::error::{Error, Result, check};
use crate::math::{axpy, dot, exp_sum, max};
use crate::matmul::{Into, Threads, View, ViewMut, product};

const OP: &str = "decode_attention";

/// Cached keys and values, token after token (tokens, kv heads · dim).
#[derive(Clone, Copy)]
pub struct Cached<'a> {
    /// The keys.
    pub k: &'a [f32],
    /// The values.
    pub v: &'a [f32],
}

/// A sequence of a group: its row in the batch, and what it has beyond the prompt.
pub struct Row<'a> {
    /// Row of its query, and of its result.
    pub row: usize,
    /// Keys and values of its own tokens, the newest included.
    pub own: Cached<'a>,
}

/// Sequences that share a prompt, whose keys are read once for all of them.
pub struct DecodeGroup<'a> {
    /// The prompt's keys and values.
    pub prompt: Cached<'a>,
    /// The sequences.
    pub rows: Vec<Row<'a>>,
}

/// Attention of each row's query over its group's prompt and its own tokens.
///
/// # Shapes
/// `q` and the result (rows, query heads · dim), row-major.
///
/// # Errors
/// A row lies outside the batch, or stands in two groups.
pub fn forward(q: &[f32], groups: &[DecodeGroup<'_>], heads: Heads) -> Result<Vec<f32>> {
    let width = heads.query_width();
    let rows = q.len() / width;
    let mut taken = vec![false; rows];
    for row in groups.iter().flat_map(|group| &group.rows) {
        let free = row.row < rows && !std::mem::replace(&mut taken[row.row], true);
        check(free, OP, || format!("row {} is not there, or there twice", row.row))?;
    }
    let tasks: Vec<(usize, usize)> =
        (0..groups.len()).flat_map(|g| (0..heads.kv).map(move |head| (g, head))).collect();
    let parts: Vec<Vec<f32>> = tasks
        .par_iter()
        .with_max_len(1)
        .map(|&(g, kv_head)| attend(q, &groups[g], kv_head, heads))
        .collect();
    let mut out = vec![0.0; rows * width];
    let part_width = heads.shared() * heads.dim;
    for (&(g, kv_head), part) in tasks.iter().zip(&parts) {
        for (row, values) in groups[g].rows.iter().zip(part.chunks(part_width)) {
            let start = row.row * width + kv_head * part_width;
            out[start..start + part_width].copy_from_slice(values);
        }
    }
    if out.len() == q.len() { Ok(out) } else { Err(Error::Storage { op: OP }) }
}

/// One group and one key and value head; rows are (sequence, query head) pairs.
fn attend(q: &[f32], group: &DecodeGroup<'_>, kv_head: usize, heads: Heads) -> Vec<f32> {
    let (shared, dim, kv_width) = (heads.shared(), heads.dim, heads.kv_width());
    let rows = group.rows.len() * shared;
    let scale = 1.0 / (dim as f32).sqrt();
    let mut queries = Vec::with_capacity(rows * dim);
    for row in &group.rows {
        let start = row.row * heads.query_width() + kv_head * shared * dim;
        queries.extend(q[start..start + shared * dim].iter().map(|x| x * scale));
    }
    let offset = kv_head * dim;
    let prompt = group.prompt.k.len() / kv_width;
    let longest = group.rows.iter().map(|row| row.own.k.len() / kv_width).max().unwrap_or(0);
    let keys = prompt + longest;
    let mut p = vec![0.0; rows * keys];
    if prompt > 0 {
        product(
            ViewMut::strided(&mut p, rows, prompt, keys),
            Into::Replace,
            View::new(&queries, rows, dim),
            View::strided(&group.prompt.k[offset..], prompt, dim, kv_width).t(),
            Threads::One,
        );
    }
    let mut out = vec![0.0; rows * dim];
    let strided = Strided { width: kv_width, offset, dim };
    for (i, (p, query)) in p.chunks_mut(keys).zip(queries.chunks(dim)).enumerate() {
        let own = group.rows[i / shared].own;
        weigh(query, own.k, strided, prompt, p);
    }
    if prompt > 0 {
        product(
            ViewMut::new(&mut out, rows, dim),
            Into::Replace,
            View::strided(&p, rows, prompt, keys),
            View::strided(&group.prompt.v[offset..], prompt, dim, kv_width),
            Threads::One,
        );
    }
    for (i, (p, out)) in p.chunks(keys).zip(out.chunks_mut(dim)).enumerate() {
        gather(&p[prompt..], group.rows[i / shared].own.v, strided, out);
    }
    out
}

/// Where one head's numbers stand within a token's.
#[derive(Clone, Copy)]
struct Strided {
    width: usize,
    offset: usize,
    dim: usize,
}

/// Adds the scores of the own keys to those of the prompt in `p`, and makes them probabilities.
#[multiversion(targets = "simd")]
fn weigh(query: &[f32], keys: &[f32], at: Strided, prompt: usize, p: &mut [f32]) {
    let (seen, hidden) = p.split_at_mut(prompt + keys.len() / at.width);
    for (score, key) in seen[prompt..].iter_mut().zip(keys.chunks(at.width)) {
        *score = dot(query, &key[at.offset..at.offset + at.dim]);
    }
    let top = max(seen);
    let norm = 1.0 / exp_sum(seen, top);
    for x in seen {
        *x *= norm;
    }
    hidden.fill(0.0);
}

/// Adds the values, weighted, to `out`.
#[multiversion(targets = "simd")]
fn gather(weights: &[f32], values: &[f32], at: Strided, out: &mut [f32]) {
    for (weight, value) in weights.iter().zip(values.chunks(at.width)) {
        axpy(out, *weight, &value[at.offset..at.offset + at.dim]);
    }
}
