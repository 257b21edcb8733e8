use super::*;
use crate::decode_attention::{self, Cached, DecodeGroup, Row};

const HEADS: Heads = Heads { query: 4, kv: 2, dim: 8 };

fn spans() -> Vec<GroupSpan> {
    // A prompt longer than a block; an empty prompt; a group without completions.
    vec![
        GroupSpan { prompt: 0..70, completions: vec![70..75, 75..145, 145..145, 145..147] },
        GroupSpan { prompt: 147..147, completions: vec![147..150, 150..151] },
        GroupSpan { prompt: 151..155, completions: vec![] },
    ]
}

fn noise(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((state >> 40) as f32 / (1u64 << 23) as f32) - 1.0
    };
    std::iter::repeat_with(next).take(n).collect()
}

fn inputs() -> [Vec<f32>; 4] {
    let tokens = 155;
    [
        noise(tokens * HEADS.query_width(), 1),
        noise(tokens * HEADS.kv_width(), 2),
        noise(tokens * HEADS.kv_width(), 3),
        noise(tokens * HEADS.query_width(), 4),
    ]
}

/// Rows that the token in `row` sees.
fn visible(row: usize) -> Vec<usize> {
    for span in spans() {
        if span.prompt.contains(&row) {
            return (span.prompt.start..=row).collect();
        }
        for c in &span.completions {
            if c.contains(&row) {
                return span.prompt.clone().chain(c.start..=row).collect();
            }
        }
    }
    vec![]
}

/// `sum(d_out · attention(q, k, v))` in f64, written out.
fn objective(q: &[f64], k: &[f64], v: &[f64], d_out: &[f32]) -> f64 {
    let (mut total, dim) = (0.0, HEADS.dim);
    for row in 0..155 {
        let seen = visible(row);
        for head in 0..HEADS.query {
            let kv = head / HEADS.shared() * dim;
            let at = row * HEADS.query_width() + head * dim;
            let score = |r: &usize| -> f64 {
                let key = &k[r * HEADS.kv_width() + kv..][..dim];
                q[at..at + dim].iter().zip(key).map(|(a, b)| a * b).sum::<f64>()
                    / (dim as f64).sqrt()
            };
            let e: Vec<f64> = seen.iter().map(|r| score(r).exp()).collect();
            let z: f64 = e.iter().sum();
            for (r, e) in seen.iter().zip(&e) {
                let value = &v[r * HEADS.kv_width() + kv..][..dim];
                for d in 0..dim {
                    total += e / z * value[d] * f64::from(d_out[at + d]);
                }
            }
        }
    }
    total
}

fn tensors() -> [Tensor; 4] {
    let [q, k, v, d] = inputs();
    let (qw, kw) = (HEADS.query_width(), HEADS.kv_width());
    [(q, qw), (k, kw), (v, kw), (d, qw)].map(|(x, w)| tensor(x, (155, w)).unwrap())
}

#[test]
fn the_forward_equals_attention_written_out() {
    let [q, k, v, d] = tensors();
    let out = forward(&q, &k, &v, &spans(), HEADS).unwrap().out;
    let ours: f32 = (out * &d).unwrap().sum_all().unwrap().to_scalar().unwrap();
    let [q, k, v, d] = inputs();
    let wide = |x: &[f32]| x.iter().map(|x| f64::from(*x)).collect::<Vec<_>>();
    let truth = objective(&wide(&q), &wide(&k), &wide(&v), &d);
    assert!((f64::from(ours) - truth).abs() < 1e-3, "{ours} is not {truth}");
}

#[test]
fn the_gradients_equal_finite_differences() {
    let [q, k, v, d] = tensors();
    let attended = forward(&q, &k, &v, &spans(), HEADS).unwrap();
    let grads = backward((&q, &k, &v), &attended, &d, &spans(), HEADS).unwrap();
    let [q, k, v, d] = inputs();
    let wide = |x: &[f32]| x.iter().map(|x| f64::from(*x)).collect::<Vec<_>>();
    let base = [wide(&q), wide(&k), wide(&v)];
    for (which, grad) in [&grads.q, &grads.k, &grads.v].into_iter().enumerate() {
        let grad = grad.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for i in (0..grad.len()).step_by(grad.len() / 23) {
            let at = |h: f64| {
                let mut x = base.clone();
                x[which][i] += h;
                objective(&x[0], &x[1], &x[2], &d)
            };
            let truth = (at(1e-4) - at(-1e-4)) / 2e-4;
            let error = (f64::from(grad[i]) - truth).abs();
            assert!(error < 1e-4, "input {which}, element {i}: {} is not {truth}", grad[i]);
        }
    }
}

#[test]
fn decoding_over_a_cache_equals_the_last_row_of_the_whole() {
    let [q, k, v, _] = tensors();
    let whole = forward(&q, &k, &v, &spans(), HEADS).unwrap().out.to_vec2::<f32>().unwrap();
    let [q, k, v, _] = inputs();
    let cached = |from: usize, to: usize| Cached {
        k: &k[from * HEADS.kv_width()..to * HEADS.kv_width()],
        v: &v[from * HEADS.kv_width()..to * HEADS.kv_width()],
    };
    let rows = [74, 144, 149];
    let qs: Vec<f32> = rows
        .iter()
        .flat_map(|row| &q[row * HEADS.query_width()..(row + 1) * HEADS.query_width()])
        .copied()
        .collect();
    let groups = [
        DecodeGroup {
            prompt: cached(0, 70),
            rows: vec![Row { row: 0, own: cached(70, 75) }, Row { row: 1, own: cached(75, 145) }],
        },
        DecodeGroup { prompt: cached(0, 0), rows: vec![Row { row: 2, own: cached(147, 150) }] },
    ];
    let out = decode_attention::forward(&qs, &groups, HEADS).unwrap();
    for (i, row) in rows.iter().enumerate() {
        let ours = &out[i * HEADS.query_width()..(i + 1) * HEADS.query_width()];
        for (a, b) in ours.iter().zip(&whole[*row]) {
            assert!((a - b).abs() < 1e-5, "row {row}: {a} is not {b}");
        }
    }
}

#[test]
fn spans_that_leave_tokens_out_are_refused() {
    let [q, k, v, _] = tensors();
    let late = 71..155;
    let spans = vec![GroupSpan { prompt: 0..70, completions: vec![late] }];
    assert!(forward(&q, &k, &v, &spans, HEADS).is_err());
}
