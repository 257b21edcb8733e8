use std::ops::Range;

use candle_core::{DType, Device, Tensor};

use super::*;
use crate::attention::{self, AttentionGradients, Heads};
use crate::device::{with_cuda_emulation, without_cuda_emulation};

const HEADS: Heads = Heads { query: 6, kv: 2, dim: 12 };

/// Outputs of forward and backward: out, log-sum-exp, dq, dk, dv.
type Results = [Vec<f32>; 5];

fn noise(seed: u64, rows: usize, width: usize) -> Tensor {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((state >> 40) as f32 / (1u64 << 23) as f32) - 1.0
    };
    let values: Vec<f32> = (0..rows * width).map(|_| next()).collect();
    Tensor::from_vec(values, (rows, width), &Device::Cpu).unwrap()
}

fn inputs(tokens: usize, kv_only: usize) -> [Tensor; 4] {
    [
        noise(1, tokens - kv_only, HEADS.q_size()),
        noise(2, tokens, HEADS.kv_size()),
        noise(3, tokens, HEADS.kv_size()),
        noise(4, tokens - kv_only, HEADS.q_size()),
    ]
}

fn results(attended: AttentionOutput, d: AttentionGradients) -> Results {
    [attended.out, attended.log_sum_exp, d.q, d.k, d.v]
        .map(|x| x.flatten_all().unwrap().to_vec1().unwrap())
}

fn on_the_cpu([q, k, v, d]: &[Tensor; 4], spans: &[GroupSpan], pattern: Pattern) -> Results {
    without_cuda_emulation(|| {
        let attended = attention::forward(q, k, v, spans, pattern).unwrap();
        let d = attention::backward((q, k, v), &attended, d, spans, pattern).unwrap();
        results(attended, d)
    })
}

fn in_chunks(
    [q, k, v, d]: &[Tensor; 4],
    spans: &[GroupSpan],
    pattern: Pattern,
    scores: usize,
) -> Results {
    with_cuda_emulation(|| {
        let attended = forward_within(q, k, v, spans, pattern, scores).unwrap();
        let inputs = (q, k, v);
        let d = backward::backward_within(inputs, &attended, d, spans, pattern, scores).unwrap();
        results(attended, d)
    })
}

fn assert_near(found: &Results, expected: &Results, what: &str) {
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            // Sums of some dozens of products of values below 1.
            assert!((found - expected).abs() < 2e-5, "{what}, result {i}: {found}, not {expected}");
        }
    }
}

fn group(prompt: Range<usize>, completions: &[Range<usize>], kv_only: usize) -> GroupSpan {
    GroupSpan { prompt, completions: completions.to_vec(), kv_only }
}

fn spans() -> Vec<GroupSpan> {
    vec![
        group(0..23, &[23..27, 27..27, 27..41, 41..42], 3),
        group(42..42, &[42..45, 45..46], 0),
        group(46..53, &[], 0),
    ]
}

#[test]
fn chunks_of_any_size_agree_with_the_cpu() {
    let tensors = inputs(53, 3);
    for (window, causal) in [(None, true), (None, false), (Some(1), true), (Some(9), true)] {
        let pattern = Pattern { heads: HEADS, window, causal };
        let expected = on_the_cpu(&tensors, &spans(), pattern);
        // One query at a time, some, and all.
        for scores in [1, 700, 1 << 20] {
            let found = in_chunks(&tensors, &spans(), pattern, scores);
            assert_near(&found, &expected, &format!("{pattern:?}, {scores}"));
        }
    }
}

#[test]
fn keys_outside_the_window_of_a_chunk_are_never_read() {
    let pattern = Pattern { heads: HEADS, window: Some(4), causal: true };
    let spans = [group(0..20, &[20..24, 24..30], 0)];
    let tensors = inputs(30, 0);
    let hidden = Tensor::full(f32::NAN, (10, HEADS.kv_size()), &Device::Cpu).unwrap();
    let poisoned = |x: &Tensor| Tensor::cat(&[&hidden, &x.narrow(0, 10, 20).unwrap()], 0).unwrap();
    let [q, k, v, d] = &tensors;
    let clean = in_chunks(&tensors, &spans, pattern, 1);
    let bad = [q.clone(), poisoned(k), poisoned(v), d.clone()];
    let bad = in_chunks(&bad, &spans, pattern, 1);
    // Rows from the 13th on attend to none of the first ten tokens.
    let offset = 13 * HEADS.q_size();
    assert_eq!(clean[0][offset..], bad[0][offset..]);
    assert_eq!(clean[2][offset..], bad[2][offset..]);
}

#[test]
fn nan_propagates() {
    let pattern = Pattern { heads: HEADS, window: None, causal: true };
    let spans = [group(0..3, &[3..4, 4..5], 0)];
    let [q, k, v, d] = inputs(5, 0);
    let k = (k.affine(0.0, f64::NAN)).unwrap();
    let found = in_chunks(&[q, k, v, d], &spans, pattern, 1 << 20);
    assert!(found[0].iter().all(|x| x.is_nan()));
}

#[test]
fn inputs_of_mixed_dtypes_are_rejected() {
    let pattern = Pattern { heads: HEADS, window: None, causal: true };
    let [q, k, v, _] = inputs(5, 0);
    let spans = [group(0..5, &[], 0)];
    let k = k.to_dtype(DType::BF16).unwrap();
    assert!(with_cuda_emulation(|| attention::forward(&q, &k, &v, &spans, pattern)).is_err());
}
