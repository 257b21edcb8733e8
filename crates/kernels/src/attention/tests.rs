use std::ops::Range;

use super::*;
use crate::memory::tensor;
use crate::paged_attention::{self, PAGE_SIZE, PageLayout, QueryChunk};

const HEADS: Heads = Heads { query: 4, kv: 2, dim: 8 };

fn spans() -> Vec<GroupSpan> {
    // A prompt longer than a block; an empty prompt; a group without completions.
    vec![
        GroupSpan {
            prompt: 0..70,
            completions: vec![70..75, 75..145, 145..145, 145..147],
            kv_only: 0,
        },
        GroupSpan { prompt: 147..147, completions: vec![147..150, 150..151], kv_only: 0 },
        GroupSpan { prompt: 151..155, completions: vec![], kv_only: 0 },
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
        noise(tokens * HEADS.q_size(), 1),
        noise(tokens * HEADS.kv_size(), 2),
        noise(tokens * HEADS.kv_size(), 3),
        noise(tokens * HEADS.q_size(), 4),
    ]
}

/// Windows that end within a block, at its edges, within the prompt, and beyond the sequence.
const WINDOWS: [Option<usize>; 6] = [None, Some(1), Some(5), Some(64), Some(71), Some(500)];

fn causal(window: Option<usize>) -> Pattern {
    Pattern { heads: HEADS, window, causal: true }
}

/// Each window, and bidirectional attention.
fn patterns() -> impl Iterator<Item = Pattern> {
    let bidirectional = Pattern { causal: false, ..causal(None) };
    WINDOWS.into_iter().map(causal).chain([bidirectional])
}

/// Rows that the token in `row` attends to.
fn visible(row: usize, Pattern { window, causal, .. }: Pattern) -> Vec<usize> {
    let of_sequence: Vec<usize> = spans()
        .iter()
        .find(|span| span.rows().contains(&row))
        .map(|span| match span.completions.iter().find(|c| c.contains(&row)) {
            Some(own) => span.prompt.clone().chain(own.clone()).collect(),
            None => span.prompt.clone().collect(),
        })
        .unwrap_or_default();
    let visible = of_sequence.iter().filter(|other| !causal || **other <= row);
    let visible: Vec<usize> = visible.copied().collect();
    let hidden = window.map_or(0, |window| visible.len().saturating_sub(window));
    visible[hidden..].to_vec()
}

/// Reference attention in f64.
fn reference(q: &[f64], k: &[f64], v: &[f64], pattern: Pattern) -> Vec<f64> {
    let dim = HEADS.dim;
    let mut out = vec![0.0; q.len()];
    for row in 0..155 {
        let visible = visible(row, pattern);
        for head in 0..HEADS.query {
            let kv = head / HEADS.queries_per_kv() * dim;
            let at = row * HEADS.q_size() + head * dim;
            let score = |r: &usize| -> f64 {
                let key = &k[r * HEADS.kv_size() + kv..][..dim];
                q[at..at + dim].iter().zip(key).map(|(a, b)| a * b).sum::<f64>()
                    / (dim as f64).sqrt()
            };
            let e: Vec<f64> = visible.iter().map(|r| score(r).exp()).collect();
            let z: f64 = e.iter().sum();
            for (r, e) in visible.iter().zip(&e) {
                let value = &v[r * HEADS.kv_size() + kv..][..dim];
                for d in 0..dim {
                    out[at + d] += e / z * value[d];
                }
            }
        }
    }
    out
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|x| f64::from(*x)).collect()
}

fn tensors() -> [Tensor; 4] {
    let [q, k, v, d] = inputs();
    let (qw, kw) = (HEADS.q_size(), HEADS.kv_size());
    [(q, qw), (k, kw), (v, kw), (d, qw)].map(|(x, w)| tensor(x, (155, w)).unwrap())
}

fn values(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn the_forward_equals_the_reference_for_every_pattern() {
    let [q, k, v, _] = tensors();
    let [wide_q, wide_k, wide_v, _] = inputs().map(|x| wide(&x));
    for pattern in patterns() {
        let actual = values(&forward(&q, &k, &v, &spans(), pattern).unwrap().out);
        let expected = reference(&wide_q, &wide_k, &wide_v, pattern);
        for (i, (actual, expected)) in actual.iter().zip(&expected).enumerate() {
            let error = (f64::from(*actual) - expected).abs();
            assert!(error < 1e-5, "{pattern:?}, element {i}: {actual} is not {expected}");
        }
    }
}

#[test]
fn the_gradients_equal_finite_differences_for_every_pattern() {
    let [q, k, v, d] = tensors();
    let [wide_q, wide_k, wide_v, wide_d] = inputs().map(|x| wide(&x));
    let base = [wide_q, wide_k, wide_v];
    for pattern in patterns() {
        let attended = forward(&q, &k, &v, &spans(), pattern).unwrap();
        let grads = backward((&q, &k, &v), &attended, &d, &spans(), pattern).unwrap();
        for (which, grad) in [&grads.q, &grads.k, &grads.v].into_iter().enumerate() {
            let grad = values(grad);
            for i in (0..grad.len()).step_by(grad.len() / 23) {
                let at = |h: f64| -> f64 {
                    let mut x = base.clone();
                    x[which][i] += h;
                    let out = reference(&x[0], &x[1], &x[2], pattern);
                    out.iter().zip(&wide_d).map(|(out, d)| out * d).sum()
                };
                let expected = (at(1e-4) - at(-1e-4)) / 2e-4;
                let error = (f64::from(grad[i]) - expected).abs();
                assert!(
                    error < 1e-4,
                    "{pattern:?}, input {which}, element {i}: {} is not {expected}",
                    grad[i]
                );
            }
        }
    }
}

#[test]
fn keys_outside_the_window_of_neighboring_queries_are_never_read() {
    let [q, k, v, d] = tensors();
    let [_, mut poisoned_k, mut poisoned_v, _] = inputs();
    let before = 60 * HEADS.kv_size();
    poisoned_k[..before].fill(f32::NAN);
    poisoned_v[..before].fill(f32::NAN);
    let shape = (155, HEADS.kv_size());
    let (bad_k, bad_v) = (tensor(poisoned_k, shape).unwrap(), tensor(poisoned_v, shape).unwrap());
    let pass = |k: &Tensor, v: &Tensor| {
        let attended = forward(&q, k, v, &spans(), causal(Some(5))).unwrap();
        let grads = backward((&q, k, v), &attended, &d, &spans(), causal(Some(5))).unwrap();
        [values(&attended.out), values(&grads.q)]
    };
    // The completions' queries attend to nothing before row 60.
    let later = 70 * HEADS.q_size();
    for (clean, poisoned) in pass(&k, &v).iter().zip(&pass(&bad_k, &bad_v)) {
        assert!(clean[later..] == poisoned[later..], "a key outside the window has been read");
    }
}

#[test]
fn a_window_of_0_or_without_causality_is_rejected() {
    let [q, k, v, _] = tensors();
    assert!(forward(&q, &k, &v, &spans(), causal(Some(0))).is_err());
    let bidirectional = Pattern { causal: false, ..causal(Some(5)) };
    assert!(forward(&q, &k, &v, &spans(), bidirectional).is_err());
}

/// Gathers rows.
fn picked(x: &[f32], rows: &[usize], width: usize) -> Vec<f32> {
    rows.iter().flat_map(|row| &x[row * width..(row + 1) * width]).copied().collect()
}

#[test]
fn paged_decoding_equals_the_last_row_of_the_full_forward_for_every_window() {
    let [q, k, v, _] = tensors();
    let [qs, ks, vs, _] = inputs();
    let (width, layout) = (HEADS.kv_size(), PageLayout::new(HEADS));
    let completions = spans().into_iter().flat_map(|GroupSpan { prompt, completions, .. }| {
        let own = completions.into_iter().filter(|own| !own.is_empty());
        own.map(move |own| prompt.clone().chain(own).collect::<Vec<usize>>())
    });
    let completions: Vec<Vec<usize>> = completions.collect();
    assert_eq!(completions.len(), 5);
    for window in WINDOWS {
        let full = forward(&q, &k, &v, &spans(), causal(window)).unwrap().out;
        let full = full.to_vec2::<f32>().unwrap();
        for rows in &completions {
            let pages: Vec<Vec<f32>> = rows
                .chunks(PAGE_SIZE)
                .map(|rows| {
                    let mut page = vec![0.0; layout.elements()];
                    let (k, v) = (picked(&ks, rows, width), picked(&vs, rows, width));
                    layout.store(&mut page, 0, &k, &v).unwrap();
                    page
                })
                .collect();
            let last = *rows.last().unwrap();
            let chunk = QueryChunk {
                rows: 0..1,
                position: rows.len() - 1,
                pages: pages.iter().map(Vec::as_slice).collect(),
                causal: true,
            };
            let query = picked(&qs, &[last], HEADS.q_size());
            let query = tensor(query, (1, HEADS.q_size())).unwrap();
            let actual = paged_attention::forward(&query, &[chunk], HEADS, window).unwrap();
            for (a, b) in values(&actual.out).iter().zip(&full[last]) {
                assert!((a - b).abs() < 1e-5, "{window:?}, row {last}: {a} is not {b}");
            }
        }
    }
}

#[test]
fn spans_that_skip_tokens_are_rejected() {
    let [q, k, v, _] = tensors();
    let late = 71..155;
    let spans = vec![GroupSpan { prompt: 0..70, completions: vec![late], kv_only: 0 }];
    assert!(forward(&q, &k, &v, &spans, causal(None)).is_err());
}

/// The first group of [`spans`] alone: its tensors and its span.
fn first_group() -> ([Tensor; 4], Vec<GroupSpan>) {
    let spans = spans()[..1].to_vec();
    let tokens = spans[0].rows().end;
    (tensors().map(|x| x.narrow(0, 0, tokens).unwrap()), spans)
}

#[test]
fn a_prompt_computed_separately_gives_the_same_results() {
    let ([q, k, v, d], spans) = first_group();
    let (prompt, tokens) = (spans[0].prompt.end, spans[0].rows().end);
    let part = |x: &Tensor, rows: Range<usize>| x.narrow(0, rows.start, rows.len()).unwrap();
    let own = prompt..tokens;
    let alone = [GroupSpan { prompt: 0..prompt, completions: vec![], kv_only: 0 }];
    let kv_only = [GroupSpan { kv_only: prompt, ..spans[0].clone() }];
    for pattern in patterns() {
        let full = forward(&q, &k, &v, &spans, pattern).unwrap();
        let suffix = forward(&part(&q, own.clone()), &k, &v, &kv_only, pattern).unwrap();
        assert_eq!(values(&suffix.out), values(&part(&full.out, own.clone())), "{pattern:?}");

        let d_full = backward((&q, &k, &v), &full, &d, &spans, pattern).unwrap();
        let own_q = part(&q, own.clone());
        let d_own = part(&d, own.clone());
        let d_suffix = backward((&own_q, &k, &v), &suffix, &d_own, &kv_only, pattern).unwrap();
        let of_prompt = |x: &Tensor| part(x, 0..prompt);
        let prefix = forward(&of_prompt(&q), &of_prompt(&k), &of_prompt(&v), &alone, pattern);
        let inputs = (&of_prompt(&q), &of_prompt(&k), &of_prompt(&v));
        let d_prefix = backward(inputs, &prefix.unwrap(), &of_prompt(&d), &alone, pattern).unwrap();
        assert_eq!(values(&d_suffix.q), values(&part(&d_full.q, own.clone())), "{pattern:?}");
        for (full, suffix, prefix) in
            [(&d_full.k, &d_suffix.k, &d_prefix.k), (&d_full.v, &d_suffix.v, &d_prefix.v)]
        {
            let mut sum = values(suffix);
            sum.iter_mut().zip(values(prefix)).for_each(|(sum, x)| *sum += x);
            for (found, expected) in sum.iter().zip(values(full)) {
                assert!((found - expected).abs() < 1e-5, "{pattern:?}: {found}, not {expected}");
            }
        }
    }
}

#[test]
fn kv_only_tokens_are_attended_to_but_have_no_queries() {
    let [q, k, v, d] = tensors();
    let mut kv_only = spans();
    kv_only[0].kv_only = 69;
    kv_only[2].kv_only = 2;
    let query_rows: Vec<u32> = (69..151).chain(153..155).collect();
    let query_rows = Tensor::new(query_rows, &candle_core::Device::Cpu).unwrap();
    let picked = |x: &Tensor| x.index_select(&query_rows, 0).unwrap();
    // Their contribution to dK and dV is masked out too.
    let mask: Vec<f32> =
        (0..155).map(|row| f32::from(u8::from((69..151).contains(&row) || row >= 153))).collect();
    let masked_d = d.broadcast_mul(&tensor(mask, (155, 1)).unwrap()).unwrap();
    for pattern in patterns() {
        let all = forward(&q, &k, &v, &spans(), pattern).unwrap();
        let some = forward(&picked(&q), &k, &v, &kv_only, pattern).unwrap();
        let d_all = backward((&q, &k, &v), &all, &masked_d, &spans(), pattern).unwrap();
        let inputs = (&picked(&q), &k, &v);
        let d_some = backward(inputs, &some, &picked(&d), &kv_only, pattern).unwrap();
        for (found, expected) in [
            (&some.out, &picked(&all.out)),
            (&d_some.q, &picked(&d_all.q)),
            (&d_some.k, &d_all.k),
            (&d_some.v, &d_all.v),
        ] {
            assert_eq!(found.dims(), expected.dims());
            for (found, expected) in values(found).iter().zip(values(expected)) {
                assert!((found - expected).abs() < 1e-5, "{pattern:?}: {found}, not {expected}");
            }
        }
    }
}

#[test]
fn only_kv_only_tokens_lack_queries() {
    let ([q, k, v, _], spans) = first_group();
    let fewer = q.narrow(0, 1, q.dims()[0] - 1).unwrap();
    let error = forward(&fewer, &k, &v, &spans, causal(None)).err().unwrap().to_string();
    assert!(
        error.contains("146 queries for 147 tokens, 0 of them keys and values only"),
        "{error}"
    );
    let more = [GroupSpan { kv_only: 71, ..spans[0].clone() }];
    let error = forward(&q, &k, &v, &more, causal(None)).err().unwrap().to_string();
    assert!(error.contains("`kv_only` exceeds the prompt length"), "{error}");
}
