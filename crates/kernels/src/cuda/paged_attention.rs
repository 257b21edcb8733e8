//! Paged attention on the device.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};

use candle_core::{DType, Device, Tensor};

use super::{Dtype, Stream, attention, create, launch, read, write};
use crate::attention::{AttentionOutput, GroupSpan, Heads, Pattern};
use crate::error::{Error, Result};
use crate::paged_attention::{
    DecodeBatch, DecodeKernel, PAGE_SIZE, PagedAttentionPlan, PrefillChunk,
};

const OP: &str = "paged_attention";

unsafe extern "C" {
    fn er_paged_store(
        pool: *mut c_void,
        k: *const c_void,
        v: *const c_void,
        slots: *const c_void,
        rows: c_int,
        heads: c_int,
        dim: c_int,
        padded_dim: c_int,
        dtype: Dtype,
        stream: Stream,
    ) -> c_int;
    fn er_paged_copy(
        pool: *mut c_void,
        from: c_int,
        to: c_int,
        page_elements: c_int,
        dtype: Dtype,
        stream: Stream,
    ) -> c_int;
    fn er_paged_gather(
        k: *mut c_void,
        v: *mut c_void,
        pool: *const c_void,
        pages: *const c_void,
        tokens: c_int,
        heads: c_int,
        dim: c_int,
        padded_dim: c_int,
        dtype: Dtype,
        stream: Stream,
    ) -> c_int;
    fn er_paged_attention(
        out: *mut c_void,
        log_sum_exp: *mut c_void,
        queries: *const c_void,
        pool: *const c_void,
        items: *const c_void,
        page_list: *const c_void,
        positions: *const c_void,
        count: c_int,
        heads: c_int,
        dim: c_int,
        padded_dim: c_int,
        q_per_kv: c_int,
        per_block: c_int,
        item_heads: c_int,
        scale: f32,
        window: c_int,
        dtype: Dtype,
        stream: Stream,
    ) -> c_int;
    fn er_paged_attention_mma(
        out: *mut c_void,
        log_sum_exp: *mut c_void,
        queries: *const c_void,
        pool: *const c_void,
        items: *const c_void,
        page_list: *const c_void,
        positions: *const c_void,
        count: c_int,
        heads: c_int,
        dim: c_int,
        padded_dim: c_int,
        q_per_kv: c_int,
        per_block: c_int,
        item_heads: c_int,
        scale: f32,
        window: c_int,
        dtype: Dtype,
        stream: Stream,
    ) -> c_int;
    fn er_paged_merge(
        out: *mut c_void,
        log_sum_exp: *mut c_void,
        partials: *const c_void,
        part_sums: *const c_void,
        part_starts: *const c_void,
        part_list: *const c_void,
        rows: c_int,
        heads: c_int,
        dim: c_int,
        dtype: Dtype,
        stream: Stream,
    ) -> c_int;
}

/// Head size padded for aligned loads.
fn padded_dim(heads: Heads) -> usize {
    heads.dim.next_multiple_of(8)
}

/// Elements of a page.
pub(crate) fn page_elements(heads: Heads) -> usize {
    2 * heads.kv * PAGE_SIZE * padded_dim(heads)
}

/// Allocates pages; the padding of heads is 0.
pub(crate) fn alloc_pages(
    heads: Heads,
    pages: usize,
    dtype: DType,
    device: &Device,
) -> Result<Tensor> {
    let floats = matches!(dtype, DType::F32 | DType::BF16);
    match floats && super::is_device(device) {
        true => Ok(Tensor::zeros((pages, page_elements(heads)), dtype, device)?),
        false => Err(Error::DeviceStorage { op: OP }),
    }
}

/// Allocates `pages` pages, of which the first are copies of `pool`'s.
pub(crate) fn grown(pool: &Tensor, heads: Heads, pages: usize) -> Result<Tensor> {
    let larger = alloc_pages(heads, pages, pool.dtype(), pool.device())?;
    crate::memory::copy_rows(&larger, 0, pool, 0..pool.dims()[0])?;
    Ok(larger)
}

pub(crate) fn store(
    pool: &Tensor,
    (k, v): (&Tensor, &Tensor),
    slots: &Tensor,
    heads: Heads,
) -> Result<()> {
    let (rows, stream) = (k.dims()[0], Stream::of(k)?);
    let k = read(k, OP)?.expect_float()?;
    let (v, slots) =
        (read(v, OP)?.expect_dtype(k.dtype)?, read(slots, OP)?.expect_dtype(Dtype::U32)?);
    let (n, kv, dim) = (rows as c_int, heads.kv as c_int, heads.dim as c_int);
    let padded_dim = padded_dim(heads) as c_int;
    if rows == 0 {
        return Ok(());
    }
    write([(pool, k.dtype)], OP, |[pool]| {
        launch!(
            OP,
            er_paged_store(pool, k.ptr, v.ptr, slots.ptr, n, kv, dim, padded_dim, k.dtype, stream)
        )
    })
}

pub(crate) fn copy_page(pool: &Tensor, from: usize, to: usize) -> Result<()> {
    let (dtype, stream) = (Dtype::of(pool, OP)?, Stream::of(pool)?);
    let (from, to, count) = (from as c_int, to as c_int, pool.dims()[1] as c_int);
    write([(pool, dtype)], OP, |[pool]| {
        launch!(OP, er_paged_copy(pool, from, to, count, dtype, stream))
    })
}

pub(crate) fn forward(
    q: &Tensor,
    pool: &Tensor,
    plan: &PagedAttentionPlan,
    window: Option<usize>,
) -> Result<AttentionOutput> {
    let (device, heads, rows) = (q.device(), plan.heads, plan.rows);
    let dtype = read(q, OP)?.expect_float()?.dtype;
    let out = match plan.has_uncovered_rows {
        true => Tensor::zeros((rows, heads.q_size()), q.dtype(), device)?,
        false => create(device, (rows, heads.q_size()), dtype, OP, |_| Ok(()))?,
    };
    let sums = match plan.has_uncovered_rows {
        true => Tensor::zeros((rows, heads.query), DType::F32, device)?,
        false => create(device, (rows, heads.query), Dtype::F32, OP, |_| Ok(()))?,
    };
    if let Some(batch) = &plan.decode {
        decode(q, pool, (&out, &sums), (batch, heads, plan.kernel), window)?;
    }
    for chunk in &plan.prefill {
        let rows = |x: &Tensor| x.narrow(0, chunk.rows.start, chunk.rows.len());
        prefill(&rows(q)?, pool, (&rows(&out)?, &rows(&sums)?), (chunk, heads), window)?;
    }
    Ok(AttentionOutput { out, log_sum_exp: sums })
}

/// Decoding: partial results of the work items in parallel (split-KV), then merged per query.
fn decode(
    q: &Tensor,
    pool: &Tensor,
    (out, sums): (&Tensor, &Tensor),
    (batch, heads, kernel): (&DecodeBatch, Heads, DecodeKernel),
    window: Option<usize>,
) -> Result<()> {
    let (device, stream, rows) = (q.device(), Stream::of(q)?, q.dims()[0] as c_int);
    let q = read(q, OP)?.expect_float()?;
    let (dtype, pool) = (q.dtype, read(pool, OP)?.expect_dtype(q.dtype)?);
    let lists = [
        &batch.item_list,
        &batch.page_list,
        &batch.positions,
        &batch.part_starts,
        &batch.part_list,
    ];
    let lists = lists.map(|list| read(list, OP)?.expect_dtype(Dtype::U32));
    let [items, page_list, positions, part_starts, part_list] = lists;
    let (items, page_list, positions) = (items?, page_list?, positions?);
    let (part_starts, part_list) = (part_starts?, part_list?);
    let uninit = |count| create(device, count, Dtype::F32, OP, |_| Ok(()));
    let partials = uninit(batch.parts * heads.q_size())?;
    let part_sums = uninit(batch.parts * heads.query)?;
    let (kv, dim, all) = (heads.kv as c_int, heads.dim as c_int, heads.query as c_int);
    let (padded_dim, q_per_kv) = (padded_dim(heads) as c_int, heads.queries_per_kv() as c_int);
    let (count, per_block, item_heads) =
        (batch.items as c_int, batch.per_block as c_int, batch.item_heads as c_int);
    let scale = 1.0 / (heads.dim as f32).sqrt();
    let window = window.map_or(0, |window| window.min(1 << 30) as c_int);
    let f32 = Dtype::F32;
    let attend = match (kernel, dtype) {
        (DecodeKernel::TensorCores, Dtype::Bf16) => er_paged_attention_mma,
        _ => er_paged_attention,
    };
    write([(&partials, f32), (&part_sums, f32)], OP, |[partials, part_sums]| {
        launch!(
            OP,
            attend(
                partials,
                part_sums,
                q.ptr,
                pool.ptr,
                items.ptr,
                page_list.ptr,
                positions.ptr,
                count,
                kv,
                dim,
                padded_dim,
                q_per_kv,
                per_block,
                item_heads,
                scale,
                window,
                dtype,
                stream
            )
        )
    })?;
    let (partials, part_sums) = (read(&partials, OP)?, read(&part_sums, OP)?);
    write([(out, dtype), (sums, f32)], OP, |[out, sums]| {
        launch!(
            OP,
            er_paged_merge(
                out,
                sums,
                partials.ptr,
                part_sums.ptr,
                part_starts.ptr,
                part_list.ptr,
                rows,
                all,
                dim,
                dtype,
                stream
            )
        )
    })
}

/// Prefill: gathers the sequence's keys and values from its pages, then runs dense attention.
fn prefill(
    q: &Tensor,
    pool: &Tensor,
    results: (&Tensor, &Tensor),
    (chunk, heads): (&PrefillChunk, Heads),
    window: Option<usize>,
) -> Result<()> {
    let (device, stream) = (q.device(), Stream::of(q)?);
    let dtype = Dtype::of(q, OP)?;
    let (pool, pages) =
        (read(pool, OP)?.expect_dtype(dtype)?, read(&chunk.pages, OP)?.expect_dtype(Dtype::U32)?);
    let uninit = || create(device, (chunk.tokens, heads.kv_size()), dtype, OP, |_| Ok(()));
    let (k, v) = (uninit()?, uninit()?);
    let (tokens, kv, dim) = (chunk.tokens as c_int, heads.kv as c_int, heads.dim as c_int);
    let padded_dim = padded_dim(heads) as c_int;
    write([(&k, dtype), (&v, dtype)], OP, |[k, v]| {
        launch!(
            OP,
            er_paged_gather(k, v, pool.ptr, pages.ptr, tokens, kv, dim, padded_dim, dtype, stream)
        )
    })?;
    let spans =
        [GroupSpan { prompt: 0..chunk.tokens, completions: Vec::new(), kv_only: chunk.position }];
    let pattern = Pattern { heads, window, causal: chunk.causal };
    attention::forward_into(results, (q, &k, &v), &spans, pattern)
}
