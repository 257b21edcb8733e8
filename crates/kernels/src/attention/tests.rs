use super::*;
use crate::memory::tensor;
use crate::paged_attention::{self, PAGE, PageLayout, Run};

const HEADS: Heads = Heads { query: 4, kv: 2, dim: 8 };

fn spans() -> Vec<GroupSpan> {
    // A prompt longer than a block; an empty prompt; a group without completions.
    vec![
        GroupSpan {
            prompt: 0..70,
            completions: vec![70..75, 75..145, 145..145, 145..147],
            silent: 0,
        },
        GroupSpan { prompt: 147..147, completions: vec![147..150, 150..151], silent: 0 },
        GroupSpan { prompt: 151..155, completions: vec![], silent: 0 },
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

/// Windows that cut within a block, at its edges, within the prompt and not at all.
const WINDOWS: [Option<usize>; 6] = [None, Some(1), Some(5), Some(64), Some(71), Some(500)];

fn looking(window: Option<usize>) -> Pattern {
    Pattern { heads: HEADS, window, causal: true }
}

/// Each window, and attention that is not causal.
fn patterns() -> impl Iterator<Item = Pattern> {
    let around = Pattern { causal: false, ..looking(None) };
    WINDOWS.into_iter().map(looking).chain([around])
}

/// Rows that the token in `row` sees.
fn visible(row: usize, Pattern { window, causal, .. }: Pattern) -> Vec<usize> {
    let of_sequence: Vec<usize> = spans()
        .iter()
        .find(|span| span.rows().contains(&row))
        .map(|span| match span.completions.iter().find(|c| c.contains(&row)) {
            Some(own) => span.prompt.clone().chain(own.clone()).collect(),
            None => span.prompt.clone().collect(),
        })
        .unwrap_or_default();
    let seen = of_sequence.iter().filter(|other| !causal || **other <= row);
    let seen: Vec<usize> = seen.copied().collect();
    let hidden = window.map_or(0, |window| seen.len().saturating_sub(window));
    seen[hidden..].to_vec()
}

/// Attention in f64, written out.
fn written_out(q: &[f64], k: &[f64], v: &[f64], pattern: Pattern) -> Vec<f64> {
    let dim = HEADS.dim;
    let mut out = vec![0.0; q.len()];
    for row in 0..155 {
        let seen = visible(row, pattern);
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
    let (qw, kw) = (HEADS.query_width(), HEADS.kv_width());
    [(q, qw), (k, kw), (v, kw), (d, qw)].map(|(x, w)| tensor(x, (155, w)).unwrap())
}

fn numbers(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn the_forward_equals_attention_written_out_in_every_pattern() {
    let [q, k, v, _] = tensors();
    let [wide_q, wide_k, wide_v, _] = inputs().map(|x| wide(&x));
    for pattern in patterns() {
        let ours = numbers(&forward(&q, &k, &v, &spans(), pattern).unwrap().out);
        let truth = written_out(&wide_q, &wide_k, &wide_v, pattern);
        for (i, (ours, truth)) in ours.iter().zip(&truth).enumerate() {
            let error = (f64::from(*ours) - truth).abs();
            assert!(error < 1e-5, "{pattern:?}, element {i}: {ours} is not {truth}");
        }
    }
}

#[test]
fn the_gradients_equal_finite_differences_in_every_pattern() {
    let [q, k, v, d] = tensors();
    let [wide_q, wide_k, wide_v, wide_d] = inputs().map(|x| wide(&x));
    let base = [wide_q, wide_k, wide_v];
    for pattern in patterns() {
        let attended = forward(&q, &k, &v, &spans(), pattern).unwrap();
        let grads = backward((&q, &k, &v), &attended, &d, &spans(), pattern).unwrap();
        for (which, grad) in [&grads.q, &grads.k, &grads.v].into_iter().enumerate() {
            let grad = numbers(grad);
            for i in (0..grad.len()).step_by(grad.len() / 23) {
                let at = |h: f64| -> f64 {
                    let mut x = base.clone();
                    x[which][i] += h;
                    let out = written_out(&x[0], &x[1], &x[2], pattern);
                    out.iter().zip(&wide_d).map(|(out, d)| out * d).sum()
                };
                let truth = (at(1e-4) - at(-1e-4)) / 2e-4;
                let error = (f64::from(grad[i]) - truth).abs();
                assert!(
                    error < 1e-4,
                    "{pattern:?}, input {which}, element {i}: {} is not {truth}",
                    grad[i]
                );
            }
        }
    }
}

#[test]
fn keys_outside_the_window_of_neighbouring_queries_are_never_read() {
    let [q, k, v, d] = tensors();
    let [_, mut poisoned_k, mut poisoned_v, _] = inputs();
    let before = 60 * HEADS.kv_width();
    poisoned_k[..before].fill(f32::NAN);
    poisoned_v[..before].fill(f32::NAN);
    let shape = (155, HEADS.kv_width());
    let (bad_k, bad_v) = (tensor(poisoned_k, shape).unwrap(), tensor(poisoned_v, shape).unwrap());
    let pass = |k: &Tensor, v: &Tensor| {
        let attended = forward(&q, k, v, &spans(), looking(Some(5))).unwrap();
        let grads = backward((&q, k, v), &attended, &d, &spans(), looking(Some(5))).unwrap();
        [numbers(&attended.out), numbers(&grads.q)]
    };
    // The completions' queries see nothing before row 60.
    let later = 70 * HEADS.query_width();
    for (clean, poisoned) in pass(&k, &v).iter().zip(&pass(&bad_k, &bad_v)) {
        assert!(clean[later..] == poisoned[later..], "a key outside the window has been read");
    }
}

#[test]
fn a_window_of_nothing_is_refused() {
    let [q, k, v, _] = tensors();
    assert!(forward(&q, &k, &v, &spans(), looking(Some(0))).is_err());
    let around = Pattern { causal: false, ..looking(Some(5)) };
    assert!(forward(&q, &k, &v, &spans(), around).is_err());
}

/// The rows, gathered.
fn picked(x: &[f32], rows: &[usize], width: usize) -> Vec<f32> {
    rows.iter().flat_map(|row| &x[row * width..(row + 1) * width]).copied().collect()
}

#[test]
fn decoding_over_pages_equals_the_last_row_of_the_whole_in_every_window() {
    let [q, k, v, _] = tensors();
    let [qs, ks, vs, _] = inputs();
    let (width, layout) = (HEADS.kv_width(), PageLayout::new(HEADS));
    let completions = spans().into_iter().flat_map(|GroupSpan { prompt, completions, .. }| {
        let own = completions.into_iter().filter(|own| !own.is_empty());
        own.map(move |own| prompt.clone().chain(own).collect::<Vec<usize>>())
    });
    let completions: Vec<Vec<usize>> = completions.collect();
    assert_eq!(completions.len(), 5);
    for window in WINDOWS {
        let whole = forward(&q, &k, &v, &spans(), looking(window)).unwrap().out;
        let whole = whole.to_vec2::<f32>().unwrap();
        for rows in &completions {
            let pages: Vec<Vec<f32>> = rows
                .chunks(PAGE)
                .map(|rows| {
                    let mut page = vec![0.0; layout.numbers()];
                    let (k, v) = (picked(&ks, rows, width), picked(&vs, rows, width));
                    layout.store(&mut page, 0, &k, &v).unwrap();
                    page
                })
                .collect();
            let last = *rows.last().unwrap();
            let run = Run {
                rows: 0..1,
                position: rows.len() - 1,
                pages: pages.iter().map(Vec::as_slice).collect(),
                causal: true,
            };
            let query = picked(&qs, &[last], HEADS.query_width());
            let query = tensor(query, (1, HEADS.query_width())).unwrap();
            let ours = paged_attention::forward(&query, &[run], HEADS, window).unwrap();
            for (a, b) in numbers(&ours.out).iter().zip(&whole[last]) {
                assert!((a - b).abs() < 1e-5, "{window:?}, row {last}: {a} is not {b}");
            }
        }
    }
}

#[test]
fn spans_that_leave_tokens_out_are_refused() {
    let [q, k, v, _] = tensors();
    let late = 71..155;
    let spans = vec![GroupSpan { prompt: 0..70, completions: vec![late], silent: 0 }];
    assert!(forward(&q, &k, &v, &spans, looking(None)).is_err());
}

/// The first group of [`spans`] by itself: its tensors, and its span.
fn first_group() -> ([Tensor; 4], Vec<GroupSpan>) {
    let spans = spans()[..1].to_vec();
    let tokens = spans[0].rows().end;
    (tensors().map(|x| x.narrow(0, 0, tokens).unwrap()), spans)
}

#[test]
fn a_prompt_that_was_computed_before_need_not_ask_again() {
    let ([q, k, v, d], spans) = first_group();
    let (prompt, tokens) = (spans[0].prompt.end, spans[0].rows().end);
    let part = |x: &Tensor, rows: Range<usize>| x.narrow(0, rows.start, rows.len()).unwrap();
    let own = prompt..tokens;
    let alone = [GroupSpan { prompt: 0..prompt, completions: vec![], silent: 0 }];
    let silent = [GroupSpan { silent: prompt, ..spans[0].clone() }];
    for pattern in patterns() {
        let whole = forward(&q, &k, &v, &spans, pattern).unwrap();
        let behind = forward(&part(&q, own.clone()), &k, &v, &silent, pattern).unwrap();
        assert_eq!(numbers(&behind.out), numbers(&part(&whole.out, own.clone())), "{pattern:?}");

        let d_whole = backward((&q, &k, &v), &whole, &d, &spans, pattern).unwrap();
        let own_q = part(&q, own.clone());
        let d_own = part(&d, own.clone());
        let d_behind = backward((&own_q, &k, &v), &behind, &d_own, &silent, pattern).unwrap();
        let of_prompt = |x: &Tensor| part(x, 0..prompt);
        let ahead = forward(&of_prompt(&q), &of_prompt(&k), &of_prompt(&v), &alone, pattern);
        let inputs = (&of_prompt(&q), &of_prompt(&k), &of_prompt(&v));
        let d_ahead = backward(inputs, &ahead.unwrap(), &of_prompt(&d), &alone, pattern).unwrap();
        assert_eq!(numbers(&d_behind.q), numbers(&part(&d_whole.q, own.clone())), "{pattern:?}");
        for (whole, behind, ahead) in
            [(&d_whole.k, &d_behind.k, &d_ahead.k), (&d_whole.v, &d_behind.v, &d_ahead.v)]
        {
            let mut sum = numbers(behind);
            sum.iter_mut().zip(numbers(ahead)).for_each(|(sum, x)| *sum += x);
            for (found, expected) in sum.iter().zip(numbers(whole)) {
                assert!((found - expected).abs() < 1e-5, "{pattern:?}: {found}, not {expected}");
            }
        }
    }
}

#[test]
fn silent_tokens_are_seen_and_see_nothing() {
    let [q, k, v, d] = tensors();
    let mut silent = spans();
    silent[0].silent = 69;
    silent[2].silent = 2;
    let asking: Vec<u32> = (69..151).chain(153..155).collect();
    let asking = Tensor::new(asking, &candle_core::Device::Cpu).unwrap();
    let picked = |x: &Tensor| x.index_select(&asking, 0).unwrap();
    // What they would have added to the gradients of keys and values is left out too.
    let mask: Vec<f32> =
        (0..155).map(|row| f32::from(u8::from((69..151).contains(&row) || row >= 153))).collect();
    let masked_d = d.broadcast_mul(&tensor(mask, (155, 1)).unwrap()).unwrap();
    for pattern in patterns() {
        let all = forward(&q, &k, &v, &spans(), pattern).unwrap();
        let some = forward(&picked(&q), &k, &v, &silent, pattern).unwrap();
        let d_all = backward((&q, &k, &v), &all, &masked_d, &spans(), pattern).unwrap();
        let inputs = (&picked(&q), &k, &v);
        let d_some = backward(inputs, &some, &picked(&d), &silent, pattern).unwrap();
        for (found, expected) in [
            (&some.out, &picked(&all.out)),
            (&d_some.q, &picked(&d_all.q)),
            (&d_some.k, &d_all.k),
            (&d_some.v, &d_all.v),
        ] {
            assert_eq!(found.dims(), expected.dims());
            for (found, expected) in numbers(found).iter().zip(numbers(expected)) {
                assert!((found - expected).abs() < 1e-5, "{pattern:?}: {found}, not {expected}");
            }
        }
    }
}

#[test]
fn only_silent_tokens_lack_queries() {
    let ([q, k, v, _], spans) = first_group();
    let fewer = q.narrow(0, 1, q.dims()[0] - 1).unwrap();
    let error = forward(&fewer, &k, &v, &spans, looking(None)).err().unwrap().to_string();
    assert!(error.contains("146 queries for 147 tokens, of which 0 are silent"), "{error}");
    let more = [GroupSpan { silent: 71, ..spans[0].clone() }];
    let error = forward(&q, &k, &v, &more, looking(None)).err().unwrap().to_string();
    assert!(error.contains("more tokens of a prompt are silent than it has"), "{error}");
}
