use std::ops::Range;

use super::*;

const HEADS: Heads = Heads { query: 6, kv: 2, dim: 20 };

fn values(n: usize, seed: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919 + seed * 104_729) % 1013) as f32 / 253.25 - 2.0).collect()
}

/// Row-major keys and values of a sequence, and its pages.
struct Sequence {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    pages: Vec<Vec<f32>>,
}

fn sequence(tokens: usize, seed: usize) -> Sequence {
    let width = HEADS.kv_size();
    let (k, v) = (values(tokens * width, seed), values(tokens * width, seed + 1));
    let layout = PageLayout::new(HEADS);
    let pages = k.chunks(PAGE_SIZE * width).zip(v.chunks(PAGE_SIZE * width)).map(|(k, v)| {
        // The page's previous content must not matter.
        let mut page = vec![f32::NAN; layout.elements()];
        let half = k.len() / width / 2 * width;
        layout.store(&mut page, 0, &k[..half], &v[..half]).unwrap();
        layout.store(&mut page, half / width, &k[half..], &v[half..]).unwrap();
        page
    });
    let pages = pages.collect();
    Sequence { q: values(tokens * HEADS.q_size(), seed + 2), k, v, pages }
}

/// Reference result of one token, in f64.
fn naive(s: &Sequence, position: usize, window: Option<usize>) -> Vec<f64> {
    let Heads { dim, .. } = HEADS;
    let first = window.map_or(0, |w| (position + 1).saturating_sub(w));
    let mut out = Vec::new();
    for head in 0..HEADS.query {
        let q = &s.q[position * HEADS.q_size() + head * dim..][..dim];
        let kv = |x: &[f32], token: usize, d: usize| {
            f64::from(x[token * HEADS.kv_size() + head / HEADS.queries_per_kv() * dim + d])
        };
        let score = |token| -> f64 {
            let products = (0..dim).map(|d| f64::from(q[d]) * kv(&s.k, token, d));
            products.sum::<f64>() / (dim as f64).sqrt()
        };
        let weights: Vec<f64> = (first..=position).map(|token| score(token).exp()).collect();
        let total: f64 = weights.iter().sum();
        out.extend((0..dim).map(|d| {
            let of = |(i, w): (usize, &f64)| w * kv(&s.v, first + i, d);
            weights.iter().enumerate().map(of).sum::<f64>() / total
        }));
    }
    out
}

fn pages(s: &Sequence, range: Range<usize>) -> Vec<&[f32]> {
    s.pages[range].iter().map(Vec::as_slice).collect()
}

/// The result for some tokens of a sequence alone.
fn alone(s: &Sequence, tokens: Range<usize>, window: Option<usize>) -> Vec<f32> {
    let width = HEADS.q_size();
    let last = tokens.end.div_ceil(PAGE_SIZE);
    let (rows, pages) = (0..tokens.len(), pages(s, 0..last));
    let chunk = QueryChunk { rows, position: tokens.start, pages, causal: true };
    attended(&s.q[tokens.start * width..tokens.end * width], &[chunk], window).unwrap()
}

fn attended(q: &[f32], chunks: &[QueryChunk<'_>], window: Option<usize>) -> Result<Vec<f32>> {
    let width = HEADS.q_size();
    let q = tensor(q.to_vec(), (q.len() / width, width))?;
    Ok(floats(&forward(&q, chunks, HEADS, window)?.out, OP)?.to_vec())
}

#[test]
fn every_token_equals_the_reference() {
    let s = sequence(200, 1);
    for window in [None, Some(1), Some(63), Some(70), Some(500)] {
        let actual = alone(&s, 0..200, window);
        for (position, actual) in actual.chunks(HEADS.q_size()).enumerate() {
            for (a, b) in actual.iter().zip(naive(&s, position, window)) {
                assert!((f64::from(*a) - b).abs() < 1e-5, "{window:?}, {position}: {a}, {b}");
            }
        }
    }
}

#[test]
fn chunks_of_a_prompt_give_the_same_bits_as_the_whole() {
    let s = sequence(150, 2);
    for window in [None, Some(80)] {
        let whole = alone(&s, 0..150, window);
        for split in [1, 63, 64, 65, 149] {
            let parts = [alone(&s, 0..split, window), alone(&s, split..150, window)].concat();
            assert_eq!(whole, parts, "split at {split}");
        }
    }
}

#[test]
fn sequences_that_share_pages_get_the_same_bits_as_each_alone() {
    let shared = sequence(128, 3);
    let extend = |seed: usize, more: usize| {
        let mut s = sequence(128 + more, seed);
        let width = HEADS.kv_size();
        s.k[..128 * width].copy_from_slice(&shared.k);
        s.v[..128 * width].copy_from_slice(&shared.v);
        s.pages[..2].clone_from_slice(&shared.pages);
        s
    };
    let all = [extend(10, 1), extend(20, 65), extend(30, 30)];
    let width = HEADS.q_size();
    let last = |s: &Sequence| s.q[s.q.len() - width..].to_vec();
    let q = all.iter().flat_map(last).collect::<Vec<f32>>();
    let chunks = all.iter().enumerate().map(|(row, s)| {
        let position = s.q.len() / width - 1;
        let own = pages(s, 2..s.pages.len());
        QueryChunk {
            rows: row..row + 1,
            position,
            pages: [pages(&shared, 0..2), own].concat(),
            causal: true,
        }
    });
    let batched = attended(&q, &chunks.collect::<Vec<_>>(), None).unwrap();
    for (s, batched) in all.iter().zip(batched.chunks(width)) {
        let tokens = s.q.len() / width;
        assert_eq!(alone(s, tokens - 1..tokens, None), batched);
    }
}

#[test]
fn invalid_chunks_are_rejected() {
    let s = sequence(70, 4);
    let q = vec![0.0; HEADS.q_size()];
    let chunk =
        |rows: Range<usize>, position, pages| QueryChunk { rows, position, pages, causal: true };
    assert!(attended(&q, &[chunk(0..1, 70, pages(&s, 0..1))], None).is_err());
    assert!(attended(&q, &[chunk(1..2, 3, pages(&s, 0..1))], None).is_err());
    let twice = || chunk(0..1, 3, pages(&s, 0..1));
    assert!(attended(&q, &[twice(), twice()], None).is_err());
    let short = [0.0; 7];
    assert!(attended(&q, &[chunk(0..1, 3, vec![&short[..]])], None).is_err());
}
