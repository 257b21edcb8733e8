//! Attention over a pool's pages on the device.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};

use candle_core::{DType, Device, Tensor};

use super::{Dtype, Stream, attention, create, launch, read, write};
use crate::attention::{Attended, GroupSpan, Heads, Pattern};
use crate::error::{Error, Result};
use crate::paged_attention::{Few, Many, PAGE, Plan};

const OP: &str = "paged_attention";

unsafe extern "C" {
    fn er_paged_store(
        numbers: *mut c_void,
        k: *const c_void,
        v: *const c_void,
        slots: *const c_void,
        rows: c_int,
        heads: c_int,
        dim: c_int,
        width: c_int,
        dtype: Dtype,
        stream: Stream,
    ) -> c_int;
    fn er_paged_copy(
        numbers: *mut c_void,
        from: c_int,
        to: c_int,
        page_numbers: c_int,
        dtype: Dtype,
        stream: Stream,
    ) -> c_int;
    fn er_paged_gather(
        k: *mut c_void,
        v: *mut c_void,
        numbers: *const c_void,
        pages: *const c_void,
        tokens: c_int,
        heads: c_int,
        dim: c_int,
        width: c_int,
        dtype: Dtype,
        stream: Stream,
    ) -> c_int;
    fn er_paged_attention(
        out: *mut c_void,
        log_sum_exp: *mut c_void,
        queries: *const c_void,
        numbers: *const c_void,
        items: *const c_void,
        page_list: *const c_void,
        positions: *const c_void,
        count: c_int,
        heads: c_int,
        dim: c_int,
        width: c_int,
        shared: c_int,
        per_block: c_int,
        tile: c_int,
        scale: f32,
        window: c_int,
        dtype: Dtype,
        stream: Stream,
    ) -> c_int;
    fn er_paged_merge(
        out: *mut c_void,
        log_sum_exp: *mut c_void,
        parts: *const c_void,
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

/// Numbers of a token's key, or its value, in one head.
fn width(heads: Heads) -> usize {
    heads.dim.next_multiple_of(8)
}

/// Numbers of a page.
pub(crate) fn page_numbers(heads: Heads) -> usize {
    2 * heads.kv * PAGE * width(heads)
}

/// Room for so many pages. What fills up a head's numbers to a multiple of 8 is 0.
pub(crate) fn room(heads: Heads, pages: usize, dtype: DType, device: &Device) -> Result<Tensor> {
    let floats = matches!(dtype, DType::F32 | DType::BF16);
    match floats && super::is_device(device) {
        true => Ok(Tensor::zeros((pages, page_numbers(heads)), dtype, device)?),
        false => Err(Error::DeviceStorage { op: OP }),
    }
}

/// Room for so many pages, of which the first are those of `numbers`.
pub(crate) fn grown(numbers: &Tensor, heads: Heads, pages: usize) -> Result<Tensor> {
    let larger = room(heads, pages, numbers.dtype(), numbers.device())?;
    crate::memory::copy_rows(&larger, 0, numbers, 0..numbers.dims()[0])?;
    Ok(larger)
}

pub(crate) fn store(
    numbers: &Tensor,
    (k, v): (&Tensor, &Tensor),
    slots: &Tensor,
    heads: Heads,
) -> Result<()> {
    let (rows, stream) = (k.dims()[0], Stream::of(k)?);
    let k = read(k, OP)?.float()?;
    let (v, slots) = (read(v, OP)?.of(k.dtype)?, read(slots, OP)?.of(Dtype::U32)?);
    let (n, kv, dim) = (rows as c_int, heads.kv as c_int, heads.dim as c_int);
    let width = width(heads) as c_int;
    if rows == 0 {
        return Ok(());
    }
    write([(numbers, k.dtype)], OP, |[numbers]| {
        launch!(
            OP,
            er_paged_store(numbers, k.at, v.at, slots.at, n, kv, dim, width, k.dtype, stream)
        )
    })
}

pub(crate) fn copy_page(numbers: &Tensor, from: usize, to: usize) -> Result<()> {
    let (dtype, stream) = (Dtype::of(numbers, OP)?, Stream::of(numbers)?);
    let (from, to, count) = (from as c_int, to as c_int, numbers.dims()[1] as c_int);
    write([(numbers, dtype)], OP, |[numbers]| {
        launch!(OP, er_paged_copy(numbers, from, to, count, dtype, stream))
    })
}

pub(crate) fn forward(
    q: &Tensor,
    numbers: &Tensor,
    plan: &Plan,
    window: Option<usize>,
) -> Result<Attended> {
    let (device, heads, rows) = (q.device(), plan.heads, plan.rows);
    let dtype = read(q, OP)?.float()?.dtype;
    let out = match plan.gaps {
        true => Tensor::zeros((rows, heads.query_width()), q.dtype(), device)?,
        false => create(device, (rows, heads.query_width()), dtype, OP, |_| Ok(()))?,
    };
    let sums = match plan.gaps {
        true => Tensor::zeros((rows, heads.query), DType::F32, device)?,
        false => create(device, (rows, heads.query), Dtype::F32, OP, |_| Ok(()))?,
    };
    if let Some(few) = &plan.few {
        decode(q, numbers, (&out, &sums), (few, heads), window)?;
    }
    for many in &plan.many {
        let rows = |x: &Tensor| x.narrow(0, many.rows.start, many.rows.len());
        prefill(&rows(q)?, numbers, (&rows(&out)?, &rows(&sums)?), (many, heads), window)?;
    }
    Ok(Attended { out, log_sum_exp: sums })
}

/// Few queries of many sequences: the pages' pieces side by side, then each query's results as one.
fn decode(
    q: &Tensor,
    numbers: &Tensor,
    (out, sums): (&Tensor, &Tensor),
    (few, heads): (&Few, Heads),
    window: Option<usize>,
) -> Result<()> {
    let (device, stream, rows) = (q.device(), Stream::of(q)?, q.dims()[0] as c_int);
    let q = read(q, OP)?.float()?;
    let (dtype, numbers) = (q.dtype, read(numbers, OP)?.of(q.dtype)?);
    let lists = [&few.item_list, &few.page_list, &few.positions, &few.part_starts, &few.part_list];
    let lists = lists.map(|list| read(list, OP)?.of(Dtype::U32));
    let [items, page_list, positions, part_starts, part_list] = lists;
    let (items, page_list, positions) = (items?, page_list?, positions?);
    let (part_starts, part_list) = (part_starts?, part_list?);
    let room = |count| create(device, count, Dtype::F32, OP, |_| Ok(()));
    let parts = room(few.parts * heads.query_width())?;
    let part_sums = room(few.parts * heads.query)?;
    let (kv, dim, all) = (heads.kv as c_int, heads.dim as c_int, heads.query as c_int);
    let (width, shared) = (width(heads) as c_int, heads.shared() as c_int);
    let (count, per_block, tile) = (few.items as c_int, few.per_block as c_int, few.tile as c_int);
    let scale = 1.0 / (heads.dim as f32).sqrt();
    let window = window.map_or(0, |window| window.min(1 << 30) as c_int);
    let f32 = Dtype::F32;
    write([(&parts, f32), (&part_sums, f32)], OP, |[parts, part_sums]| {
        launch!(
            OP,
            er_paged_attention(
                parts,
                part_sums,
                q.at,
                numbers.at,
                items.at,
                page_list.at,
                positions.at,
                count,
                kv,
                dim,
                width,
                shared,
                per_block,
                tile,
                scale,
                window,
                dtype,
                stream
            )
        )
    })?;
    let (parts, part_sums) = (read(&parts, OP)?, read(&part_sums, OP)?);
    write([(out, dtype), (sums, f32)], OP, |[out, sums]| {
        launch!(
            OP,
            er_paged_merge(
                out,
                sums,
                parts.at,
                part_sums.at,
                part_starts.at,
                part_list.at,
                rows,
                all,
                dim,
                dtype,
                stream
            )
        )
    })
}

/// Many queries of one sequence: its keys and values out of the pages, then dense products.
fn prefill(
    q: &Tensor,
    numbers: &Tensor,
    results: (&Tensor, &Tensor),
    (many, heads): (&Many, Heads),
    window: Option<usize>,
) -> Result<()> {
    let (device, stream) = (q.device(), Stream::of(q)?);
    let dtype = Dtype::of(q, OP)?;
    let (numbers, pages) = (read(numbers, OP)?.of(dtype)?, read(&many.pages, OP)?.of(Dtype::U32)?);
    let room = || create(device, (many.tokens, heads.kv_width()), dtype, OP, |_| Ok(()));
    let (k, v) = (room()?, room()?);
    let (tokens, kv, dim) = (many.tokens as c_int, heads.kv as c_int, heads.dim as c_int);
    let width = width(heads) as c_int;
    write([(&k, dtype), (&v, dtype)], OP, |[k, v]| {
        launch!(
            OP,
            er_paged_gather(k, v, numbers.at, pages.at, tokens, kv, dim, width, dtype, stream)
        )
    })?;
    let spans =
        [GroupSpan { prompt: 0..many.tokens, completions: Vec::new(), silent: many.position }];
    let pattern = Pattern { heads, window, causal: many.causal };
    attention::forward_over(results, (q, &k, &v), &spans, pattern)
}
