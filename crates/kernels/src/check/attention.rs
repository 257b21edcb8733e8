//! Attention over packed groups, and paged attention.

use std::ops::Range;

use super::{Case, CaseInputs, Output};
use crate::attention::{self, AttentionOutput, GroupSpan, Heads, Pattern};
use crate::error::Result;
use crate::memory::floats;
use crate::paged_attention::{
    self, PAGE_SIZE, PageLayout, PagePool, PagedAttentionPlan, PooledQueryChunk, QueryChunk,
    SlotMapping,
};

/// Heads of common models and edge cases: MHA, GQA, MQA, a head size that is not a multiple of 16, an odd one.
const HEADS: [Heads; 6] = [
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
        paged(cases, heads, every);
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

/// A sequence: its tokens, how many of the last have queries, and its pages.
#[derive(Clone)]
struct Sequence {
    tokens: usize,
    queries: usize,
    /// Page indices in the pool.
    pages: Vec<usize>,
    causal: bool,
}

/// Every batch with every window if `every`, else the batches with shared pages or mixed lengths, without window.
fn paged(cases: &mut Vec<Case>, heads: Heads, every: bool) {
    let sequence = |tokens, queries, pages: Range<usize>| Sequence {
        tokens,
        queries,
        pages: pages.rev().collect(),
        causal: true,
    };
    // Two pages shared by several sequences, followed by one of their own.
    let sharing =
        |own: usize, tokens| Sequence { tokens, queries: 1, pages: vec![9, 2, own], causal: true };
    let batches: [(&str, Vec<Sequence>); 5] = [
        ("decoding", vec![sequence(1, 1, 0..1), sequence(64, 1, 1..2), sequence(65, 1, 2..4)]),
        ("long", vec![sequence(9 * PAGE_SIZE + 3, 1, 0..10)]),
        ("shared", vec![sharing(0, 130), sharing(1, 190), sharing(3, 129), sharing(4, 192)]),
        (
            "mixed",
            vec![
                sequence(70, 3, 0..2),
                sequence(90, 40, 2..4),
                sequence(100, 100, 4..6),
                sequence(5, 5, 6..7),
            ],
        ),
        (
            "bidirectional",
            vec![
                Sequence { causal: false, ..sequence(70, 9, 0..2) },
                Sequence { causal: false, ..sequence(66, 66, 3..5) },
            ],
        ),
    ];
    for (name, batch) in batches {
        for window in [None, Some(1), Some(40), Some(70)] {
            let unsupported = window.is_some() && name == "bidirectional";
            let some = window.is_none() && ["shared", "mixed"].contains(&name);
            if unsupported || !(every || some) {
                continue;
            }
            let Heads { query, kv, dim } = heads;
            let shape = format!("{name}, {query} and {kv} heads of {dim}, window {window:?}");
            let batch = batch.clone();
            let run = move |case: &CaseInputs| paged_forward(case, &batch, heads, window);
            cases.push(Case::new("paged_attention", shape, run));
        }
    }
}

const POOL: usize = 11;

fn paged_forward(
    case: &CaseInputs,
    batch: &[Sequence],
    heads: Heads,
    window: Option<usize>,
) -> Result<Vec<Output>> {
    // Fills every slot of every page but the last.
    let tokens = (POOL - 1) * PAGE_SIZE;
    let k = case.noise(1, &[tokens, heads.kv_size()])?;
    let v = case.noise(2, &[tokens, heads.kv_size()])?;
    let rows = batch.iter().map(|sequence| sequence.queries).sum();
    let q = case.noise(3, &[rows, heads.q_size()])?;
    let AttentionOutput { out, log_sum_exp } = match case.on_device {
        true => {
            let dtype = q.dtype();
            let pool = PagePool::new(heads, POOL, dtype, &case.device)?;
            // Fills the slots in reverse order, then copies the first page to another and back.
            let slots: Vec<(usize, usize)> =
                (0..tokens).map(|i| (i / PAGE_SIZE, i % PAGE_SIZE)).collect();
            let order: Vec<u32> = (0..tokens as u32).rev().collect();
            let order = candle_core::Tensor::new(order, &case.device)?;
            let reversed: Vec<(usize, usize)> = slots.into_iter().rev().collect();
            let (k, v) = (k.index_select(&order, 0)?, v.index_select(&order, 0)?);
            pool.store(&k, &v, &SlotMapping::new(&reversed, &case.device)?)?;
            pool.copy_page(0, POOL - 1)?;
            pool.store(
                &k.narrow(0, 0, PAGE_SIZE)?,
                &v.narrow(0, 0, PAGE_SIZE)?,
                &SlotMapping::new(&reversed[tokens - PAGE_SIZE..], &case.device)?,
            )?;
            pool.copy_page(POOL - 1, 0)?;
            let plan = PagedAttentionPlan::new(&pooled_chunks(batch), heads, rows, &case.device)?;
            pool.forward(&q, &plan, window)?
        }
        false => {
            let (layout, width) = (PageLayout::new(heads), heads.kv_size());
            let (k, v) = (floats(&k, "check")?, floats(&v, "check")?);
            let page = |index: usize| {
                let mut page = vec![0.0; layout.elements()];
                let part = index * PAGE_SIZE * width..(index + 1) * PAGE_SIZE * width;
                layout.store(&mut page, 0, &k[part.clone()], &v[part])?;
                Ok(page)
            };
            let pages: Vec<Vec<f32>> = (0..POOL - 1).map(page).collect::<Result<_>>()?;
            let chunk = |chunk: PooledQueryChunk| QueryChunk {
                rows: chunk.rows,
                position: chunk.position,
                pages: chunk.pages.iter().map(|page| pages[*page].as_slice()).collect(),
                causal: chunk.causal,
            };
            let chunks: Vec<QueryChunk<'_>> = pooled_chunks(batch).into_iter().map(chunk).collect();
            paged_attention::forward(&q, &chunks, heads, window)?
        }
    };
    Ok(vec![case.chained("out", out, 2), Output::near("log_sum_exp", log_sum_exp)])
}

fn pooled_chunks(batch: &[Sequence]) -> Vec<PooledQueryChunk> {
    let mut end = 0;
    let run = |sequence: &Sequence| {
        end += sequence.queries;
        PooledQueryChunk {
            rows: end - sequence.queries..end,
            position: sequence.tokens - sequence.queries,
            pages: sequence.pages.clone(),
            causal: sequence.causal,
        }
    };
    batch.iter().map(run).collect()
}
