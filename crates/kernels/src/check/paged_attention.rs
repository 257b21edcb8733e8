//! Paged attention, with each of the device's kernels.

use std::ops::Range;

use super::attention::HEADS;
use super::case::{Case, CaseInputs, Output};
use crate::attention::{AttentionOutput, Heads};
use crate::error::Result;
use crate::memory::floats;
use crate::paged_attention::{
    self, DecodeKernel, PAGE_SIZE, PageLayout, PagePool, PagedAttentionPlan, PooledQueryChunk,
    QueryChunk, SlotMapping,
};

/// 1 to 20 query heads per KV head: a part of a tile of 16 rows, all of it, and more.
const GROUPS: [Heads; 7] = [
    Heads { query: 2, kv: 2, dim: 64 },
    Heads { query: 8, kv: 2, dim: 96 },
    Heads { query: 14, kv: 2, dim: 64 },
    Heads { query: 16, kv: 2, dim: 128 },
    Heads { query: 12, kv: 1, dim: 80 },
    Heads { query: 16, kv: 1, dim: 128 },
    Heads { query: 20, kv: 1, dim: 96 },
];

pub(super) fn add(cases: &mut Vec<Case>) {
    for (i, heads) in HEADS.into_iter().enumerate() {
        batches(cases, heads, i == 0);
    }
    decoding(cases);
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

/// Consecutive pages, in descending order.
fn sequence(tokens: usize, queries: usize, pages: Range<usize>) -> Sequence {
    Sequence { tokens, queries, pages: pages.rev().collect(), causal: true }
}

/// Four sequences with two pages in common, followed by one of their own.
fn shared() -> Vec<Sequence> {
    let sharing =
        |own: usize, tokens| Sequence { tokens, queries: 1, pages: vec![9, 2, own], causal: true };
    vec![sharing(0, 130), sharing(1, 190), sharing(3, 129), sharing(4, 192)]
}

/// Every batch with every window if `every`, else the batches with shared pages or mixed lengths, without window.
fn batches(cases: &mut Vec<Case>, heads: Heads, every: bool) {
    let batches: [(&str, Vec<Sequence>); 5] = [
        ("decoding", vec![sequence(1, 1, 0..1), sequence(64, 1, 1..2), sequence(65, 1, 2..4)]),
        ("long", vec![sequence(9 * PAGE_SIZE + 3, 1, 0..10)]),
        ("shared", shared()),
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
            cases.push(with_kernel(DecodeKernel::TensorCores, name, &batch, heads, window));
        }
    }
}

/// Group sizes and head sizes of models, for decoding and for short chunks of queries.
fn decoding(cases: &mut Vec<Case>) {
    let lengths = [
        sequence(1, 1, 0..1),
        sequence(63, 1, 1..2),
        sequence(64, 1, 2..3),
        sequence(65, 1, 3..5),
        sequence(200, 1, 5..9),
    ];
    let chunks = [
        sequence(70, 2, 0..2),
        sequence(129, 7, 2..5),
        sequence(16, 16, 5..6),
        sequence(200, 15, 6..10),
    ];
    for heads in GROUPS {
        both_kernels(cases, "lengths", &lengths, heads);
        both_kernels(cases, "chunks", &chunks, heads);
        both_kernels(cases, "shared", &shared(), heads);
    }
    let long = [sequence(64 * PAGE_SIZE, 1, 0..64)];
    both_kernels(cases, "4096 tokens", &long, GROUPS[3]);
    let of = |name, batch: &[Sequence], heads, window| {
        with_kernel(DecodeKernel::TensorCores, name, batch, heads, window)
    };
    cases.push(of("4096 tokens", &long, GROUPS[3], Some(1_000)));
    // More partial results than the merge has threads.
    let longest = [sequence(16_450, 1, 0..258)];
    cases.push(of("16450 tokens", &longest, Heads { query: 2, kv: 1, dim: 8 }, None));
}

/// A case for each of the device's kernels.
fn both_kernels(cases: &mut Vec<Case>, name: &str, batch: &[Sequence], heads: Heads) {
    for kernel in [DecodeKernel::TensorCores, DecodeKernel::CudaCores] {
        cases.push(with_kernel(kernel, name, batch, heads, None));
    }
}

fn with_kernel(
    kernel: DecodeKernel,
    name: &str,
    batch: &[Sequence],
    heads: Heads,
    window: Option<usize>,
) -> Case {
    let op = match kernel {
        DecodeKernel::TensorCores => "paged_attention",
        DecodeKernel::CudaCores => "paged_attention, CUDA cores",
    };
    let Heads { query, kv, dim } = heads;
    let shape = format!("{name}, {query} and {kv} heads of {dim}, window {window:?}");
    let batch = batch.to_vec();
    Case::new(op, shape, move |case: &CaseInputs| forward(case, &batch, heads, window, kernel))
}

fn forward(
    case: &CaseInputs,
    batch: &[Sequence],
    heads: Heads,
    window: Option<usize>,
    kernel: DecodeKernel,
) -> Result<Vec<Output>> {
    // Fills every slot of every page but the last.
    let pages = 1 + batch.iter().flat_map(|sequence| &sequence.pages).max().unwrap_or(&0);
    let tokens = pages * PAGE_SIZE;
    let k = case.noise(1, &[tokens, heads.kv_size()])?;
    let v = case.noise(2, &[tokens, heads.kv_size()])?;
    let rows = batch.iter().map(|sequence| sequence.queries).sum();
    let q = case.noise(3, &[rows, heads.q_size()])?;
    let AttentionOutput { out, log_sum_exp } = match case.on_device {
        true => {
            let dtype = q.dtype();
            let pool = PagePool::new(heads, pages + 1, dtype, &case.device)?;
            // Fills the slots in reverse order, then copies the first page to another and back.
            let slots: Vec<(usize, usize)> =
                (0..tokens).map(|i| (i / PAGE_SIZE, i % PAGE_SIZE)).collect();
            let order: Vec<u32> = (0..tokens as u32).rev().collect();
            let order = candle_core::Tensor::new(order, &case.device)?;
            let reversed: Vec<(usize, usize)> = slots.into_iter().rev().collect();
            let (k, v) = (k.index_select(&order, 0)?, v.index_select(&order, 0)?);
            pool.store(&k, &v, &SlotMapping::new(&reversed, &case.device)?)?;
            pool.copy_page(0, pages)?;
            pool.store(
                &k.narrow(0, 0, PAGE_SIZE)?,
                &v.narrow(0, 0, PAGE_SIZE)?,
                &SlotMapping::new(&reversed[tokens - PAGE_SIZE..], &case.device)?,
            )?;
            pool.copy_page(pages, 0)?;
            let plan = PagedAttentionPlan::new(&pooled_chunks(batch), heads, rows, &case.device)?;
            pool.forward(&q, &plan.with_kernel(kernel), window)?
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
            let pages: Vec<Vec<f32>> = (0..pages).map(page).collect::<Result<_>>()?;
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
