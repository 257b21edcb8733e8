//! Attention: a prompt, its gradients, and one token for each of many sequences.

use embodied_r_kernels::attention::{self, GroupSpan, Heads, Pattern};
use embodied_r_kernels::memory::tensor;
use embodied_r_kernels::paged_attention::{self, PAGE, PageLayout, Run};

use super::op::{Op, Prepared, f32_bytes, matrix, numbers, values};

/// Heads as in Qwen2.5-0.5B.
const HEADS: Heads = Heads { query: 14, kv: 2, dim: 64 };

/// Every query sees all keys up to its own.
const ALL: Pattern = Pattern { heads: HEADS, window: None, causal: true };

pub(super) fn ops() -> Vec<Op> {
    vec![
        prefill(2_048),
        backward(1_024),
        decode(Cache::Own, 16, 1_024),
        decode(Cache::Shared, 16, 1_024),
        decode(Cache::Own, 1, 8_192),
    ]
}

/// Pairs of a query and a key that it sees.
fn pairs(tokens: usize) -> f64 {
    tokens as f64 * (tokens as f64 + 1.0) / 2.0 * HEADS.query as f64
}

fn span(tokens: usize) -> Vec<GroupSpan> {
    vec![GroupSpan { prompt: 0..tokens, completions: Vec::new(), silent: 0 }]
}

/// Numbers of a token's query, key, value and result.
fn per_token() -> usize {
    2 * (HEADS.query_width() + HEADS.kv_width())
}

fn prefill(tokens: usize) -> Op {
    // Scores and weighted values: two products for each pair.
    let work = (4.0 * pairs(tokens) * HEADS.dim as f64, f32_bytes(tokens * per_token()));
    Op::new("attention", format!("{tokens} tokens, 14:2x64"), work, move || {
        let q = matrix(tokens, HEADS.query_width(), 1)?;
        let (k, v) = (matrix(tokens, HEADS.kv_width(), 2)?, matrix(tokens, HEADS.kv_width(), 3)?);
        let (plain_q, plain_k, plain_v) = (values(&q)?, values(&k)?, values(&v)?);
        let plain = move |places: &[usize]| {
            let width = HEADS.query_width();
            let at = |place: &usize| {
                let (token, within) = (place / width, place % width);
                let query = &plain_q[place / HEADS.dim * HEADS.dim..][..HEADS.dim];
                attended(query, &plain_k, &plain_v, token + 1, within)
            };
            places.iter().map(at).collect()
        };
        let spans = span(tokens);
        let run = move || Ok(vec![attention::forward(&q, &k, &v, &spans, ALL)?.out]);
        Ok(Prepared::new(run, plain))
    })
}

/// One number of the result: `within` is its place in the token's row, `keys` how many are seen.
fn attended(query: &[f32], k: &[f32], v: &[f32], keys: usize, within: usize) -> f64 {
    let offset = within / HEADS.dim / HEADS.shared() * HEADS.dim;
    let weights = softmax((0..keys).map(|key| {
        let key = &k[key * HEADS.kv_width() + offset..][..HEADS.dim];
        super::op::dot(query.iter().copied(), key.iter().copied()) / (HEADS.dim as f64).sqrt()
    }));
    let value = |key: usize| f64::from(v[key * HEADS.kv_width() + offset + within % HEADS.dim]);
    weights.iter().enumerate().map(|(key, weight)| weight * value(key)).sum()
}

fn softmax(scores: impl Iterator<Item = f64>) -> Vec<f64> {
    let scores: Vec<f64> = scores.collect();
    let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = scores.iter().map(|x| (x - top).exp()).sum();
    scores.iter().map(|x| (x - top).exp() / total).collect()
}

fn backward(tokens: usize) -> Op {
    // The scores again, then the gradients of probabilities, values, queries and keys.
    let work = (10.0 * pairs(tokens) * HEADS.dim as f64, f32_bytes(2 * tokens * per_token()));
    Op::new("attention backward", format!("{tokens} tokens, 14:2x64"), work, move || {
        let q = matrix(tokens, HEADS.query_width(), 1)?;
        let (k, v) = (matrix(tokens, HEADS.kv_width(), 2)?, matrix(tokens, HEADS.kv_width(), 3)?);
        let d_out = matrix(tokens, HEADS.query_width(), 4)?;
        let inputs = [values(&q)?, values(&k)?, values(&v)?, values(&d_out)?];
        let plain = move |places: &[usize]| {
            let all = gradients(&inputs, tokens);
            places.iter().map(|place| all[*place]).collect()
        };
        let spans = span(tokens);
        let attended = attention::forward(&q, &k, &v, &spans, ALL)?;
        let run = move || {
            let of = attention::backward((&q, &k, &v), &attended, &d_out, &spans, ALL)?;
            Ok(vec![of.q, of.k, of.v])
        };
        Ok(Prepared::new(run, plain))
    })
}

/// The gradients of queries, keys and values, end to end, pair by pair.
fn gradients([q, k, v, d_out]: &[Vec<f32>; 4], tokens: usize) -> Vec<f64> {
    let (dim, scale) = (HEADS.dim, 1.0 / (HEADS.dim as f64).sqrt());
    let (mut dq, mut dk, mut dv) = (vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]);
    let product = |a: &[f32], b: &[f32]| super::op::dot(a.iter().copied(), b.iter().copied());
    for token in 0..tokens {
        for head in 0..HEADS.query {
            let at = token * HEADS.query_width() + head * dim;
            let (query, d) = (&q[at..at + dim], &d_out[at..at + dim]);
            let place = |key: usize| key * HEADS.kv_width() + head / HEADS.shared() * dim;
            let p = softmax((0..=token).map(|key| product(query, &k[place(key)..][..dim]) * scale));
            let dp: Vec<f64> = (0..=token).map(|key| product(d, &v[place(key)..][..dim])).collect();
            let mean: f64 = p.iter().zip(&dp).map(|(p, dp)| p * dp).sum();
            for key in 0..=token {
                let ds = p[key] * (dp[key] - mean) * scale;
                for i in 0..dim {
                    let to = place(key) + i;
                    dq[at + i] += ds * f64::from(k[to]);
                    dk[to] += ds * f64::from(query[i]);
                    dv[to] += p[key] * f64::from(d[i]);
                }
            }
        }
    }
    [dq, dk, dv].concat()
}

/// Whose the pages of the sequences are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cache {
    /// Each has its own.
    Own,
    /// All have the same, as the completions of a prompt have the prompt's.
    Shared,
}

/// One new token for each of some sequences, over pages of keys and values.
fn decode(kind: Cache, sequences: usize, keys: usize) -> Op {
    let per_pair = 4.0 * HEADS.query_width() as f64;
    let cache = keys * HEADS.kv_width();
    let (name, caches) = match kind {
        Cache::Own => ("paged attention", sequences),
        Cache::Shared => ("paged attention, shared", 1),
    };
    let moved = 2 * (caches * cache + sequences * HEADS.query_width());
    let work = (per_pair * (sequences * keys) as f64, f32_bytes(moved));
    Op::new(name, format!("{sequences}x{keys} keys, 14:2x64"), work, move || {
        let q = numbers(sequences * HEADS.query_width(), 1);
        let (k, v) = (numbers(caches * cache, 2), numbers(caches * cache, 3));
        let (plain_q, plain_k, plain_v) = (q.clone(), k.clone(), v.clone());
        let plain = move |places: &[usize]| {
            let width = HEADS.query_width();
            let at = |place: &usize| {
                let of = place / width % caches;
                let own = of * cache..(of + 1) * cache;
                let query = &plain_q[place / HEADS.dim * HEADS.dim..][..HEADS.dim];
                attended(query, &plain_k[own.clone()], &plain_v[own], keys, place % width)
            };
            places.iter().map(at).collect()
        };
        let q = tensor(q, (sequences, HEADS.query_width()))?;
        let layout = PageLayout::new(HEADS);
        let page = PAGE * HEADS.kv_width();
        let mut pages = Vec::new();
        for (k, v) in k.chunks(cache).zip(v.chunks(cache)) {
            for (k, v) in k.chunks(page).zip(v.chunks(page)) {
                let mut numbers = vec![0.0; layout.numbers()];
                layout.store(&mut numbers, 0, k, v)?;
                pages.push(numbers);
            }
        }
        let run = move || {
            let pages_of: Vec<Vec<&[f32]>> = pages
                .chunks(keys.div_ceil(PAGE))
                .map(|own| own.iter().map(Vec::as_slice).collect())
                .collect();
            let run = |row: usize| Run {
                rows: row..row + 1,
                position: keys - 1,
                pages: pages_of[row % caches].clone(),
                causal: true,
            };
            let runs: Vec<Run<'_>> = (0..sequences).map(run).collect();
            Ok(vec![paged_attention::forward(&q, &runs, HEADS, None)?.out])
        };
        Ok(Prepared::new(run, plain))
    })
}
