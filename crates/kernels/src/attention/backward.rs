//! Attention backward: scores are recomputed page by page from the saved log-sum-exp.

use std::ops::Range;

use candle_core::Tensor;
use multiversion::multiversion;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::pages::{GroupPages, PageData, PageRows, PageTable, Sequence};
use super::{AttentionOutput, GroupSpan, Heads, OP, Pattern, check_shapes};
use crate::device::on_device;
use crate::error::{Result, check};
use crate::math::{add, dot, exps};
use crate::memory::{floats, tensor};
use crate::paged_attention::{PAGE_SIZE, hide, last_visible, visible_slots, visible_union};
use crate::panels::{Prefetch, Shared, TILE_ROWS, accumulate, accumulate_transposed};
use crate::parallel;
use crate::simd_level::simd_level;

/// Maximum rows of a block (a row is a token's query head): its data and a page's fit the caches.
const BLOCK_ROWS: usize = 16 * TILE_ROWS;

/// Partitions of a group's queries that run in parallel, each with its own accumulators for dK and dV. A constant, so
/// that results do not depend on the number of threads.
const LANES: usize = 8;

/// Gradients of queries, keys and values, in the shapes of the inputs.
pub struct AttentionGradients {
    /// dQ (tokens, query heads · dim).
    pub q: Tensor,
    /// dK (tokens, kv heads · dim), summed over a prompt's completions.
    pub k: Tensor,
    /// dV (tokens, kv heads · dim), likewise.
    pub v: Tensor,
}

/// Gradients of attention's inputs.
///
/// With `P` the probabilities: `dV = Pᵀ·dO`, `dS = P ∘ (dO·Vᵀ - rowsum(dO ∘ O))`,
/// `dQ = dS·K / sqrt(dim)`, `dK = dSᵀ·Q / sqrt(dim)` (Dao, FlashAttention-2, 2023, algorithm 2).
///
/// # Shapes
/// As [`super::forward`]; `d_out` has the shape of its output.
///
/// # Errors
/// As [`super::forward`].
pub fn backward(
    (q, k, v): (&Tensor, &Tensor, &Tensor),
    attended: &AttentionOutput,
    d_out: &Tensor,
    spans: &[GroupSpan],
    pattern: Pattern,
) -> Result<AttentionGradients> {
    let heads = pattern.heads;
    check_shapes(q, k, v, spans, pattern)?;
    check(d_out.dims() == q.dims(), OP, || {
        "the output gradient differs from the queries in shape".into()
    })?;
    on_device!(q, attention::backward((q, k, v), attended, d_out, spans, pattern));
    let table = PageTable::new(spans, heads);
    let (keys, values) = (floats(k, OP)?, floats(v, OP)?);
    // Keys are needed transposed and row-major, values transposed.
    let inputs = Inputs {
        table: &table,
        keys: PageData::new(&table, &keys, &keys)?,
        values: PageData::new(&table, &values, &values)?,
        q: &floats(q, OP)?,
        out: &floats(&attended.out, OP)?,
        log_sum_exp: &floats(&attended.log_sum_exp, OP)?,
        d_out: &floats(d_out, OP)?,
        window: pattern.window,
        causal: pattern.causal,
    };
    let [mut dq, mut dk, mut dv] = [q, k, v].map(|x| parallel::zeros(x.elem_count()));
    let shared_dq = Shared::new(&mut dq);
    let lanes: Vec<Lane<'_>> = table.groups.iter().flat_map(|g| lanes(g, pattern)).collect();
    let sums: Vec<PageSums> =
        lanes.par_iter().with_max_len(1).map(|lane| lane.run(&inputs, &shared_dq)).collect();
    let (shared_dk, shared_dv) = (Shared::new(&mut dk), Shared::new(&mut dv));
    sums.par_chunks(LANES).enumerate().for_each(|(index, lanes)| {
        let (group, head) = (&table.groups[index / heads.kv], index % heads.kv);
        add_up(lanes, &table, group, head, (&shared_dk, &shared_dv));
    });
    Ok(AttentionGradients {
        q: tensor(dq, q.shape())?,
        k: tensor(dk, k.shape())?,
        v: tensor(dv, v.shape())?,
    })
}

/// Upper bound of [`backward`]'s workspace in f32 elements per token: paged keys and values, and each lane's
/// accumulators.
pub fn workspace_elements(heads: Heads) -> usize {
    (4 + 2 * LANES) * heads.kv * heads.dim.next_multiple_of(16)
}

struct Inputs<'a> {
    table: &'a PageTable,
    /// Paged keys and values, each both transposed and row-major.
    keys: PageData,
    values: PageData,
    q: &'a [f32],
    out: &'a [f32],
    log_sum_exp: &'a [f32],
    d_out: &'a [f32],
    window: Option<usize>,
    causal: bool,
}

/// Blocks of a group's queries, for one KV head.
struct Lane<'a> {
    group: &'a GroupPages,
    head: usize,
    blocks: Vec<Block<'a>>,
}

/// Consecutive tokens of a sequence.
#[derive(Clone)]
struct Block<'a> {
    sequence: &'a Sequence,
    tokens: Range<usize>,
}

impl Block<'_> {
    /// Position of the last token that `token` attends to.
    fn last_visible_to(&self, token: usize, causal: bool) -> usize {
        last_visible(self.sequence.position, token, self.sequence.rows.len(), causal)
    }

    /// End of the visible positions.
    fn end(&self, causal: bool) -> usize {
        self.last_visible_to(self.tokens.end - 1, causal) + 1
    }
}

/// [`LANES`] lanes for each KV head, balanced by the number of query-key pairs.
fn lanes(group: &GroupPages, Pattern { heads, causal, .. }: Pattern) -> Vec<Lane<'_>> {
    let max_tokens = (BLOCK_ROWS / heads.queries_per_kv().max(1)).max(1);
    let blocks = group.sequences.iter().flat_map(|sequence| {
        let tokens = sequence.rows.len();
        let block =
            move |start: usize| Block { sequence, tokens: start..tokens.min(start + max_tokens) };
        (0..tokens).step_by(max_tokens).map(block)
    });
    let blocks: Vec<Block<'_>> = blocks.collect();
    let pairs = |block: &Block<'_>| block.tokens.len() * block.end(causal);
    let all = blocks.iter().map(pairs).sum::<usize>().max(1);
    let mut partitions: Vec<Vec<Block<'_>>> = vec![Vec::new(); LANES];
    let mut before = 0;
    for block in blocks {
        let of_block = pairs(&block);
        partitions[before * LANES / all].push(block);
        before += of_block;
    }
    let of_head = |head| {
        let lane = move |blocks| Lane { group, head, blocks };
        partitions.clone().into_iter().map(lane)
    };
    (0..heads.kv).flat_map(of_head).collect()
}

/// dK and dV for each page of a group that has any, both ([`PAGE_SIZE`], padded dim).
type PageSums = Vec<Option<Box<[f32]>>>;

/// Adds the lanes' accumulators to the rows of the group's pages.
fn add_up(
    lanes: &[PageSums],
    table: &PageTable,
    group: &GroupPages,
    head: usize,
    (dk, dv): (&Shared<'_>, &Shared<'_>),
) {
    let (dim, width) = (table.heads.dim, table.layout.padded_dim());
    for (index, page) in group.pages.clone().enumerate() {
        for sums in lanes.iter().filter_map(|lane| lane[index].as_deref()) {
            let (keys, values) = sums.split_at(PAGE_SIZE * width);
            for PageRows { slot, rows } in &table.contents[page] {
                for (row, slot) in rows.clone().zip(*slot..) {
                    let start = row * table.heads.kv_size() + head * dim;
                    for (to, from) in [(dk, keys), (dv, values)] {
                        // SAFETY: groups differ in their rows, and heads in their columns; a group's lanes are added
                        // sequentially.
                        #[allow(unsafe_code)]
                        let to = unsafe { to.slice(start, dim) };
                        add(to, &from[slot * width..][..dim]);
                    }
                }
            }
        }
    }
}

impl Lane<'_> {
    fn run(&self, inputs: &Inputs<'_>, dq: &Shared<'_>) -> PageSums {
        let width = inputs.table.layout.padded_dim();
        let mut sums: PageSums = vec![None; self.group.pages.len()];
        let mut work = Workspace::default();
        for block in &self.blocks {
            work.load(block, self.head, inputs);
            let pages =
                block.sequence.pages.iter().take(block.end(inputs.causal).div_ceil(PAGE_SIZE));
            for (index, page) in pages.enumerate() {
                if !work.mask_page(index, inputs.window) {
                    continue;
                }
                let sums = sums[*page - self.group.pages.start]
                    .get_or_insert_with(|| vec![0.0; 2 * PAGE_SIZE * width].into_boxed_slice());
                let pages = (inputs.keys.page(*page), inputs.values.page(*page));
                work.page(inputs.table, self.head, pages, sums.split_at_mut(PAGE_SIZE * width));
            }
            work.store(block, self.head, inputs.table, dq);
        }
        sums
    }
}

/// Workspace of a block. A row is a token's query head.
#[derive(Default)]
struct Workspace {
    /// Scaled queries (rows, padded dim).
    q: Vec<f32>,
    /// Output gradient (rows, padded dim).
    d_out: Vec<f32>,
    /// Log-sum-exp of each row's scores.
    log_sum_exp: Vec<f32>,
    /// `rowsum(dO ∘ O)`.
    delta: Vec<f32>,
    /// Position of the last token that each row attends to.
    positions: Vec<usize>,
    /// Visible slots of the page, for each row.
    visible: Vec<Range<usize>>,
    /// Probabilities (rows, [`PAGE_SIZE`]).
    p: Vec<f32>,
    /// Score gradients (rows, [`PAGE_SIZE`]).
    ds: Vec<f32>,
    /// Query gradient (rows, padded dim).
    dq: Vec<f32>,
}

impl Workspace {
    /// Loads a block.
    fn load(&mut self, block: &Block<'_>, head: usize, inputs: &Inputs<'_>) {
        let heads = inputs.table.heads;
        let (q_per_kv, dim, width) =
            (heads.queries_per_kv(), heads.dim, inputs.table.layout.padded_dim());
        let rows = block.tokens.len() * q_per_kv;
        let scale = 1.0 / (dim as f32).sqrt();
        for buffer in [&mut self.q, &mut self.d_out, &mut self.dq] {
            buffer.clear();
            buffer.resize(rows * width, 0.0);
        }
        for buffer in [&mut self.p, &mut self.ds] {
            buffer.resize(rows * PAGE_SIZE, 0.0);
        }
        self.log_sum_exp.clear();
        self.delta.clear();
        self.positions.clear();
        for (index, token) in block.tokens.clone().enumerate() {
            let first = (block.sequence.rows.start + token) * heads.query + head * q_per_kv;
            self.log_sum_exp.extend(&inputs.log_sum_exp[first..first + q_per_kv]);
            let position = block.last_visible_to(token, inputs.causal);
            self.positions.extend(std::iter::repeat_n(position, q_per_kv));
            for (row, from) in (index * q_per_kv..).zip(first..first + q_per_kv) {
                let from = from * dim..(from + 1) * dim;
                let to = row * width..row * width + dim;
                let (q, d_out) = (&inputs.q[from.clone()], &inputs.d_out[from.clone()]);
                self.q[to.clone()].iter_mut().zip(q).for_each(|(to, q)| *to = q * scale);
                self.d_out[to].copy_from_slice(d_out);
                self.delta.push(row_dot(d_out, &inputs.out[from]));
            }
        }
    }

    /// Computes the mask for the sequence's `index`-th page; returns whether any slot is visible.
    fn mask_page(&mut self, index: usize, window: Option<usize>) -> bool {
        self.visible.clear();
        let visible = |position: &usize| visible_slots(*position, index * PAGE_SIZE, window);
        self.visible.extend(self.positions.iter().map(visible));
        self.visible.iter().any(|visible| !visible.is_empty())
    }

    /// Accumulates a page's contribution to dQ, dK and dV.
    fn page(
        &mut self,
        table: &PageTable,
        head: usize,
        (keys, values): (&[f32], &[f32]),
        (dk, dv): (&mut [f32], &mut [f32]),
    ) {
        let (arch, width) = (simd_level().arch(), table.layout.padded_dim());
        let keys_t = (table.layout.keys(keys, head), PAGE_SIZE);
        let values_t = (table.layout.keys(values, head), PAGE_SIZE);
        let keys = table.layout.values(keys, head);
        // One GEMM at a time, so that its operands stay in the L1 cache.
        self.p.fill(0.0);
        self.ds.fill(0.0);
        for (p, q) in self.p.chunks_mut(TILE_ROWS * PAGE_SIZE).zip(self.q.chunks(TILE_ROWS * width))
        {
            accumulate(arch, p, (q, width), keys_t, Prefetch::NONE);
        }
        for (ds, d) in
            self.ds.chunks_mut(TILE_ROWS * PAGE_SIZE).zip(self.d_out.chunks(TILE_ROWS * width))
        {
            accumulate(arch, ds, (d, width), values_t, Prefetch::NONE);
        }
        arch.dispatch(Probabilities(self));
        let visible = visible_union(&self.visible);
        for ((dq, ds), visible) in self
            .dq
            .chunks_mut(TILE_ROWS * width)
            .zip(self.ds.chunks(TILE_ROWS * PAGE_SIZE))
            .zip(self.visible.chunks(TILE_ROWS))
        {
            let visible = visible_union(visible);
            let keys = (&keys[visible.start * width..visible.end * width], width);
            accumulate(arch, dq, (&ds[visible.start..], PAGE_SIZE), keys, Prefetch::NONE);
        }
        for (to, weights, by) in [(dv, &self.p, &self.d_out), (dk, &self.ds, &self.q)] {
            let columns = visible.clone().step_by(TILE_ROWS);
            let to = to[visible.start * width..visible.end * width].chunks_mut(TILE_ROWS * width);
            for (to, column) in to.zip(columns) {
                accumulate_transposed(arch, to, (&weights[column..], PAGE_SIZE), (by, width));
            }
        }
    }

    /// Writes dQ of the block.
    fn store(&self, block: &Block<'_>, head: usize, table: &PageTable, dq: &Shared<'_>) {
        let heads = table.heads;
        let (q_per_kv, dim, width) = (heads.queries_per_kv(), heads.dim, table.layout.padded_dim());
        let scale = 1.0 / (dim as f32).sqrt();
        for (index, token) in block.tokens.clone().enumerate() {
            let start = (block.sequence.rows.start + token) * heads.q_size();
            // SAFETY: a row belongs to one block of one sequence, and heads differ in their columns.
            #[allow(unsafe_code)]
            let to = unsafe { dq.slice(start + head * q_per_kv * dim, q_per_kv * dim) };
            for (to, row) in to.chunks_mut(dim).zip(index * q_per_kv..) {
                let from = &self.dq[row * width..][..dim];
                to.iter_mut().zip(from).for_each(|(to, from)| *to = from * scale);
            }
        }
    }
}

/// Turns scores into probabilities `e^(score - log-sum-exp)`, and gradients of probabilities into gradients of scores
/// `p · (dp - delta)`.
struct Probabilities<'a>(&'a mut Workspace);

impl WithSimd for Probabilities<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Workspace { p, ds, visible, log_sum_exp, delta, .. } = self.0;
        let rows = p.chunks_exact_mut(PAGE_SIZE).zip(ds.chunks_exact_mut(PAGE_SIZE));
        for (row, (p, ds)) in rows.enumerate() {
            let (shift, delta) = (simd.splat_f32s(log_sum_exp[row]), simd.splat_f32s(delta[row]));
            {
                let (p, _) = S::as_mut_simd_f32s(p);
                let (ds, _) = S::as_mut_simd_f32s(ds);
                for (p, ds) in p.iter_mut().zip(ds) {
                    *p = exps(simd, simd.sub_f32s(*p, shift));
                    *ds = simd.mul_f32s(*p, simd.sub_f32s(*ds, delta));
                }
            }
            hide(p, &visible[row], 0.0);
            hide(ds, &visible[row], 0.0);
        }
    }
}

#[multiversion(targets = "simd")]
fn row_dot(a: &[f32], b: &[f32]) -> f32 {
    dot(a, b)
}
