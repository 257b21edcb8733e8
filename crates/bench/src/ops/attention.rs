//! Attention: prefill, backward, and decoding over paged KV caches.

use candle_core::{DType, Device, Tensor};
use embodied_r_kernels::Result;
use embodied_r_kernels::attention::{self, GroupSpan, Heads, Pattern};
use embodied_r_kernels::memory::tensor;
use embodied_r_kernels::paged_attention::{self, PAGE_SIZE, PageLayout, QueryChunk};

use super::op::{Op, Prepared, f32_bytes, matrix, uniform, values};

/// Heads as in Qwen2.5-0.5B.
const HEADS: Heads = Heads { query: 14, kv: 2, dim: 64 };

/// Causal attention without a window.
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

/// Pairs of a query and a key that it attends to.
fn pairs(tokens: usize) -> f64 {
    tokens as f64 * (tokens as f64 + 1.0) / 2.0 * HEADS.query as f64
}

fn span(tokens: usize) -> Vec<GroupSpan> {
    vec![GroupSpan { prompt: 0..tokens, completions: Vec::new(), kv_only: 0 }]
}

/// Elements of a token's query, key, value and output.
fn per_token() -> usize {
    2 * (HEADS.q_size() + HEADS.kv_size())
}

fn prefill(tokens: usize) -> Op {
    // Scores and weighted values: two products per pair.
    let work = (4.0 * pairs(tokens) * HEADS.dim as f64, f32_bytes(tokens * per_token()));
    Op::new("attention", format!("{tokens} tokens, 14:2x64"), work, move || {
        let q = matrix(tokens, HEADS.q_size(), 1)?;
        let (k, v) = (matrix(tokens, HEADS.kv_size(), 2)?, matrix(tokens, HEADS.kv_size(), 3)?);
        let (ref_q, ref_k, ref_v) = (values(&q)?, values(&k)?, values(&v)?);
        let reference = move |elements: &[usize]| {
            let width = HEADS.q_size();
            let at = |element: &usize| {
                let (token, within) = (element / width, element % width);
                let query = &ref_q[element / HEADS.dim * HEADS.dim..][..HEADS.dim];
                attended(query, &ref_k, &ref_v, token + 1, within)
            };
            elements.iter().map(at).collect()
        };
        let spans = span(tokens);
        let run = move || Ok(vec![attention::forward(&q, &k, &v, &spans, ALL)?.out]);
        Ok(Prepared::new(run, reference))
    })
}

/// One element of the output: `within` is its index in the token's row, `keys` the number of attended keys.
fn attended(query: &[f32], k: &[f32], v: &[f32], keys: usize, within: usize) -> f64 {
    let offset = within / HEADS.dim / HEADS.queries_per_kv() * HEADS.dim;
    let weights = softmax((0..keys).map(|key| {
        let key = &k[key * HEADS.kv_size() + offset..][..HEADS.dim];
        super::op::dot(query.iter().copied(), key.iter().copied()) / (HEADS.dim as f64).sqrt()
    }));
    let value = |key: usize| f64::from(v[key * HEADS.kv_size() + offset + within % HEADS.dim]);
    weights.iter().enumerate().map(|(key, weight)| weight * value(key)).sum()
}

fn softmax(scores: impl Iterator<Item = f64>) -> Vec<f64> {
    let scores: Vec<f64> = scores.collect();
    let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = scores.iter().map(|x| (x - top).exp()).sum();
    scores.iter().map(|x| (x - top).exp() / total).collect()
}

fn backward(tokens: usize) -> Op {
    // Recomputed scores, then the gradients of probabilities, values, queries and keys.
    let work = (10.0 * pairs(tokens) * HEADS.dim as f64, f32_bytes(2 * tokens * per_token()));
    Op::new("attention backward", format!("{tokens} tokens, 14:2x64"), work, move || {
        let q = matrix(tokens, HEADS.q_size(), 1)?;
        let (k, v) = (matrix(tokens, HEADS.kv_size(), 2)?, matrix(tokens, HEADS.kv_size(), 3)?);
        let d_out = matrix(tokens, HEADS.q_size(), 4)?;
        let inputs = [&q, &k, &v, &d_out].map(Tensor::clone);
        let reference = move |elements: &[usize]| {
            let all = gradients(&inputs)?;
            Ok(elements.iter().map(|element| all[*element]).collect())
        };
        let spans = span(tokens);
        let attended = attention::forward(&q, &k, &v, &spans, ALL)?;
        let run = move || {
            let of = attention::backward((&q, &k, &v), &attended, &d_out, &spans, ALL)?;
            Ok(vec![of.q, of.k, of.v])
        };
        Ok(Prepared::with_products(run, reference))
    })
}

/// The concatenated gradients of queries, keys and values in f64, from explicit probabilities.
fn gradients([q, k, v, d_out]: &[Tensor; 4]) -> Result<Vec<f64>> {
    let (tokens, scale) = (q.dim(0)?, 1.0 / (HEADS.dim as f64).sqrt());
    let zeros = || Tensor::zeros((tokens, HEADS.dim), DType::F64, &Device::Cpu);
    let square = |x| Tensor::from_vec(x, (tokens, tokens), &Device::Cpu);
    let mut dq = Vec::new();
    let mut dk = vec![zeros()?; HEADS.kv];
    let mut dv = dk.clone();
    for index in 0..HEADS.query {
        let kv = index / HEADS.queries_per_kv();
        let (q, d_out) = (head(q, index)?, head(d_out, index)?);
        let (k, v) = (head(k, kv)?, head(v, kv)?);
        let scores = (q.matmul(&k.t()?)? * scale)?.to_vec2::<f64>()?;
        let d_weights = d_out.matmul(&v.t()?)?.to_vec2::<f64>()?;
        let mut weights = vec![0.0; tokens * tokens];
        let mut d_scores = vec![0.0; tokens * tokens];
        for (token, (scores, d_weights)) in scores.iter().zip(&d_weights).enumerate() {
            let row = softmax(scores[..=token].iter().copied());
            let mean: f64 = row.iter().zip(d_weights).map(|(p, d)| p * d).sum();
            for (key, (p, d)) in row.iter().zip(d_weights).enumerate() {
                weights[token * tokens + key] = *p;
                d_scores[token * tokens + key] = p * (d - mean) * scale;
            }
        }
        let (weights, d_scores) = (square(weights)?, square(d_scores)?);
        dq.push(d_scores.matmul(&k)?);
        dk[kv] = (&dk[kv] + d_scores.t()?.matmul(&q)?)?;
        dv[kv] = (&dv[kv] + weights.t()?.matmul(&d_out)?)?;
    }
    let values = |heads: &[Tensor]| Tensor::stack(heads, 1)?.flatten_all()?.to_vec1::<f64>();
    Ok([values(&dq)?, values(&dk)?, values(&dv)?].concat())
}

/// A head's part of each row in f64: (tokens, head dimension).
fn head(of: &Tensor, index: usize) -> Result<Tensor> {
    Ok(of.narrow(1, index * HEADS.dim, HEADS.dim)?.to_dtype(DType::F64)?.contiguous()?)
}

/// Ownership of the sequences' KV cache pages.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cache {
    /// Each sequence has its own.
    Own,
    /// All sequences share theirs, as completions share their prompt's.
    Shared,
}

/// Decodes one token of each sequence over a paged KV cache.
fn decode(kind: Cache, sequences: usize, keys: usize) -> Op {
    let per_pair = 4.0 * HEADS.q_size() as f64;
    let cache = keys * HEADS.kv_size();
    let (name, caches) = match kind {
        Cache::Own => ("paged attention", sequences),
        Cache::Shared => ("paged attention, shared", 1),
    };
    let moved = 2 * (caches * cache + sequences * HEADS.q_size());
    let work = (per_pair * (sequences * keys) as f64, f32_bytes(moved));
    Op::new(name, format!("{sequences}x{keys} keys, 14:2x64"), work, move || {
        let q = uniform(sequences * HEADS.q_size(), 1);
        let (k, v) = (uniform(caches * cache, 2), uniform(caches * cache, 3));
        let (ref_q, ref_k, ref_v) = (q.clone(), k.clone(), v.clone());
        let reference = move |elements: &[usize]| {
            let width = HEADS.q_size();
            let at = |element: &usize| {
                let of = element / width % caches;
                let own = of * cache..(of + 1) * cache;
                let query = &ref_q[element / HEADS.dim * HEADS.dim..][..HEADS.dim];
                attended(query, &ref_k[own.clone()], &ref_v[own], keys, element % width)
            };
            elements.iter().map(at).collect()
        };
        let q = tensor(q, (sequences, HEADS.q_size()))?;
        let layout = PageLayout::new(HEADS);
        let page = PAGE_SIZE * HEADS.kv_size();
        let mut pages = Vec::new();
        for (k, v) in k.chunks(cache).zip(v.chunks(cache)) {
            for (k, v) in k.chunks(page).zip(v.chunks(page)) {
                let mut elements = vec![0.0; layout.elements()];
                layout.store(&mut elements, 0, k, v)?;
                pages.push(elements);
            }
        }
        let run = move || {
            let pages_of: Vec<Vec<&[f32]>> = pages
                .chunks(keys.div_ceil(PAGE_SIZE))
                .map(|own| own.iter().map(Vec::as_slice).collect())
                .collect();
            let run = |row: usize| QueryChunk {
                rows: row..row + 1,
                position: keys - 1,
                pages: pages_of[row % caches].clone(),
                causal: true,
            };
            let runs: Vec<QueryChunk<'_>> = (0..sequences).map(run).collect();
            Ok(vec![paged_attention::forward(&q, &runs, HEADS, None)?.out])
        };
        Ok(Prepared::new(run, reference))
    })
}
