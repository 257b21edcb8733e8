//! Attention over packed groups.

use super::case::{Case, CaseInputs, Output};
use crate::attention::{self, AttentionOutput, GroupSpan, Heads, Pattern};
use crate::error::Result;

/// Heads of common models and edge cases: MHA, GQA, MQA, a head size that is not a multiple of 16, an odd one.
pub(super) const HEADS: [Heads; 6] = [
    Heads { query: 4, kv: 2, dim: 8 },
    Heads { query: 14, kv: 2, dim: 64 },
    Heads { query: 3, kv: 3, dim: 80 },
    Heads { query: 8, kv: 1, dim: 128 },
    Heads { query: 6, kv: 2, dim: 20 },
    Heads { query: 40, kv: 1, dim: 7 },
];

pub(super) fn add(cases: &mut Vec<Case>) {
    for (i, heads) in HEADS.into_iter().enumerate() {
        let every = i == 0;
        packed(cases, heads, every);
    }
}

/// Consecutive rows for given lengths of prompts and completions.
fn spans(groups: &[(usize, &[usize], usize)]) -> Vec<GroupSpan> {
    let mut end = 0;
    let mut rows = |tokens: usize| {
        end += tokens;
        end - tokens..end
    };
    let span = |(prompt, completions, kv_only): &(usize, &[usize], usize)| GroupSpan {
        prompt: rows(*prompt),
        completions: completions.iter().map(|own| rows(*own)).collect(),
        kv_only: *kv_only,
    };
    groups.iter().map(span).collect()
}

/// Every batch with every pattern if `every`, else the batches of several groups with one.
fn packed(cases: &mut Vec<Case>, heads: Heads, every: bool) {
    let layouts: [(&str, Vec<GroupSpan>); 5] = [
        ("one prompt", spans(&[(37, &[], 0)])),
        ("a group", spans(&[(19, &[5, 0, 9, 1], 0)])),
        ("three groups", spans(&[(9, &[3, 12], 4), (0, &[4, 2], 0), (6, &[], 5)])),
        ("a KV-only prompt", spans(&[(21, &[6, 7], 21)])),
        ("an empty batch", spans(&[(0, &[], 0)])),
    ];
    let bidirectional = Pattern { heads, window: None, causal: false };
    // With a window of 1 the gradients are 0 up to rounding.
    let windows = [None, Some(2), Some(6), Some(20)];
    let causal = windows.map(|window| Pattern { heads, window, causal: true });
    for (name, spans) in layouts {
        for pattern in causal.into_iter().chain([bidirectional]) {
            let several = spans.len() > 1 && pattern.window == Some(6);
            if !every && !several {
                continue;
            }
            let Heads { query, kv, dim } = heads;
            let shape = format!(
                "{name}, {query} and {kv} heads of {dim}, window {:?}, causal {}",
                pattern.window, pattern.causal
            );
            let spans = spans.clone();
            let run = move |case: &CaseInputs| forward_and_backward(case, &spans, pattern);
            cases.push(Case::new("attention", shape, run));
        }
    }
}

fn forward_and_backward(
    case: &CaseInputs,
    spans: &[GroupSpan],
    pattern: Pattern,
) -> Result<Vec<Output>> {
    let heads = pattern.heads;
    let tokens = spans.last().map_or(0, |span| span.rows().end);
    let kv_only: usize = spans.iter().map(|span| span.kv_only).sum();
    let q = case.noise(1, &[tokens - kv_only, heads.q_size()])?;
    let k = case.noise(2, &[tokens, heads.kv_size()])?;
    let v = case.noise(3, &[tokens, heads.kv_size()])?;
    let d_out = case.noise(4, &[tokens - kv_only, heads.q_size()])?;
    let attended = attention::forward(&q, &k, &v, spans, pattern)?;
    let d = attention::backward((&q, &k, &v), &attended, &d_out, spans, pattern)?;
    let AttentionOutput { out, log_sum_exp } = attended;
    Ok(vec![
        case.chained("out", out, 2),
        Output::near("log_sum_exp", log_sum_exp),
        case.chained("dq", d.q, 4),
        case.chained("dk", d.k, 4),
        case.chained("dv", d.v, 4),
    ])
}
