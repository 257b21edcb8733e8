use super::*;

const HEADS: Heads = Heads { query: 6, kv: 2, dim: 20 };

fn numbers(n: usize, seed: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919 + seed * 104_729) % 1013) as f32 / 253.25 - 2.0).collect()
}

/// Keys and values of a sequence, row-major, and the pages that hold them.
struct Sequence {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    pages: Vec<Vec<f32>>,
}

fn sequence(tokens: usize, seed: usize) -> Sequence {
    let width = HEADS.kv_width();
    let (k, v) = (numbers(tokens * width, seed), numbers(tokens * width, seed + 1));
    let layout = PageLayout::new(HEADS);
    let pages = k.chunks(PAGE * width).zip(v.chunks(PAGE * width)).map(|(k, v)| {
        // What a page had before must not matter.
        let mut page = vec![f32::NAN; layout.numbers()];
        let half = k.len() / width / 2 * width;
        layout.store(&mut page, 0, &k[..half], &v[..half]).unwrap();
        layout.store(&mut page, half / width, &k[half..], &v[half..]).unwrap();
        page
    });
    let pages = pages.collect();
    Sequence { q: numbers(tokens * HEADS.query_width(), seed + 2), k, v, pages }
}

/// One token's result in f64.
fn naive(s: &Sequence, position: usize, window: Option<usize>) -> Vec<f64> {
    let Heads { dim, .. } = HEADS;
    let first = window.map_or(0, |w| (position + 1).saturating_sub(w));
    let mut out = Vec::new();
    for head in 0..HEADS.query {
        let q = &s.q[position * HEADS.query_width() + head * dim..][..dim];
        let kv = |x: &[f32], token: usize, d: usize| {
            f64::from(x[token * HEADS.kv_width() + head / HEADS.shared() * dim + d])
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

/// The result for the tokens `tokens` of a sequence alone.
fn alone(s: &Sequence, tokens: Range<usize>, window: Option<usize>) -> Vec<f32> {
    let width = HEADS.query_width();
    let last = tokens.end.div_ceil(PAGE);
    let (rows, pages) = (0..tokens.len(), pages(s, 0..last));
    let run = Run { rows, position: tokens.start, pages, causal: true };
    attended(&s.q[tokens.start * width..tokens.end * width], &[run], window).unwrap()
}

fn attended(q: &[f32], runs: &[Run<'_>], window: Option<usize>) -> Result<Vec<f32>> {
    let width = HEADS.query_width();
    let q = tensor(q.to_vec(), (q.len() / width, width))?;
    Ok(floats(&forward(&q, runs, HEADS, window)?.out, OP)?.to_vec())
}

#[test]
fn every_token_is_the_weighted_mean_of_the_values_before_it() {
    let s = sequence(200, 1);
    for window in [None, Some(1), Some(63), Some(70), Some(500)] {
        let ours = alone(&s, 0..200, window);
        for (position, ours) in ours.chunks(HEADS.query_width()).enumerate() {
            for (a, b) in ours.iter().zip(naive(&s, position, window)) {
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
        for cut in [1, 63, 64, 65, 149] {
            let parts = [alone(&s, 0..cut, window), alone(&s, cut..150, window)].concat();
            assert_eq!(whole, parts, "cut at {cut}");
        }
    }
}

#[test]
fn sequences_that_share_pages_get_the_same_bits_as_each_alone() {
    let shared = sequence(128, 3);
    let extend = |seed: usize, more: usize| {
        let mut s = sequence(128 + more, seed);
        let width = HEADS.kv_width();
        s.k[..128 * width].copy_from_slice(&shared.k);
        s.v[..128 * width].copy_from_slice(&shared.v);
        s.pages[..2].clone_from_slice(&shared.pages);
        s
    };
    let all = [extend(10, 1), extend(20, 65), extend(30, 30)];
    let width = HEADS.query_width();
    let last = |s: &Sequence| s.q[s.q.len() - width..].to_vec();
    let q = all.iter().flat_map(last).collect::<Vec<f32>>();
    let runs = all.iter().enumerate().map(|(row, s)| {
        let position = s.q.len() / width - 1;
        let own = pages(s, 2..s.pages.len());
        Run {
            rows: row..row + 1,
            position,
            pages: [pages(&shared, 0..2), own].concat(),
            causal: true,
        }
    });
    let together = attended(&q, &runs.collect::<Vec<_>>(), None).unwrap();
    for (s, together) in all.iter().zip(together.chunks(width)) {
        let tokens = s.q.len() / width;
        assert_eq!(alone(s, tokens - 1..tokens, None), together);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let s = sequence(70, 4);
    let q = vec![0.0; HEADS.query_width()];
    let run = |rows: Range<usize>, position, pages| Run { rows, position, pages, causal: true };
    assert!(attended(&q, &[run(0..1, 70, pages(&s, 0..1))], None).is_err());
    assert!(attended(&q, &[run(1..2, 3, pages(&s, 0..1))], None).is_err());
    let twice = || run(0..1, 3, pages(&s, 0..1));
    assert!(attended(&q, &[twice(), twice()], None).is_err());
    let short = [0.0; 7];
    assert!(attended(&q, &[run(0..1, 3, vec![&short[..]])], None).is_err());
}
