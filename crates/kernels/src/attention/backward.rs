//! The gradients of attention, with the scores computed again page by page.

use std::ops::Range;

use candle_core::Tensor;
use multiversion::multiversion;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::pages::{Content, Group, Layout, Pages, Sequence};
use super::{Attended, GroupSpan, Heads, OP, Pattern, check_shapes};
use crate::device::on_device;
use crate::error::{Result, check};
use crate::math::{add, dot, exps};
use crate::memory::{floats, tensor};
use crate::paged_attention::{PAGE, all_seen, hide, last_seen, visible};
use crate::panels::{Ahead, Shared, TILE_ROWS, accumulate, accumulate_turned};

/// Rows of a block, at most, where a row is a token's query head: what belongs to them and to a page stays in the
/// caches.
const BLOCK_ROWS: usize = 16 * TILE_ROWS;

/// Parts of a group's queries that are worked on side by side, each with sums of its own for the gradients of keys
/// and values. A constant, so that results do not depend on the number of threads.
const LANES: usize = 8;

/// The gradients of queries, keys and values, each of its tensor's shape.
pub struct Gradients {
    /// Of the queries (tokens, query heads · dim).
    pub q: Tensor,
    /// Of the keys (tokens, kv heads · dim): a prompt's are the sum over its completions.
    pub k: Tensor,
    /// Of the values (tokens, kv heads · dim), likewise.
    pub v: Tensor,
}

/// The gradients of attention's inputs from that of its output.
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
    attended: &Attended,
    d_out: &Tensor,
    spans: &[GroupSpan],
    pattern: Pattern,
) -> Result<Gradients> {
    let heads = pattern.heads;
    check_shapes(q, k, v, spans, pattern)?;
    check(d_out.dims() == q.dims(), OP, || "the output's gradient misfits".into())?;
    on_device!(q, attention::backward((q, k, v), attended, d_out, spans, pattern));
    let layout = Layout::new(spans, heads);
    let (keys, values) = (floats(k, OP)?, floats(v, OP)?);
    // Both are needed turned, and the keys as they are too.
    let inputs = Inputs {
        layout: &layout,
        keys: Pages::new(&layout, &keys, &keys)?,
        values: Pages::new(&layout, &values, &values)?,
        q: &floats(q, OP)?,
        out: &floats(&attended.out, OP)?,
        log_sum_exp: &floats(&attended.log_sum_exp, OP)?,
        d_out: &floats(d_out, OP)?,
        window: pattern.window,
        causal: pattern.causal,
    };
    let [mut dq, mut dk, mut dv] = [q, k, v].map(|x| vec![0.0; x.elem_count()]);
    let shared_dq = Shared::new(&mut dq);
    let lanes: Vec<Lane<'_>> = layout.groups.iter().flat_map(|g| lanes(g, pattern)).collect();
    let sums: Vec<PageSums> =
        lanes.par_iter().with_max_len(1).map(|lane| lane.run(&inputs, &shared_dq)).collect();
    let (shared_dk, shared_dv) = (Shared::new(&mut dk), Shared::new(&mut dv));
    sums.par_chunks(LANES).enumerate().for_each(|(place, lanes)| {
        let (group, head) = (&layout.groups[place / heads.kv], place % heads.kv);
        add_up(lanes, &layout, group, head, (&shared_dk, &shared_dv));
    });
    Ok(Gradients {
        q: tensor(dq, q.shape())?,
        k: tensor(dk, k.shape())?,
        v: tensor(dv, v.shape())?,
    })
}

/// Numbers that [`backward`] holds for each token while it works, at most: keys and values in pages, and each
/// lane's sums.
pub fn working_numbers(heads: Heads) -> usize {
    (4 + 2 * LANES) * heads.kv * heads.dim.next_multiple_of(16)
}

struct Inputs<'a> {
    layout: &'a Layout,
    /// Pages of the keys, and of the values, each turned and as it is.
    keys: Pages,
    values: Pages,
    q: &'a [f32],
    out: &'a [f32],
    log_sum_exp: &'a [f32],
    d_out: &'a [f32],
    window: Option<usize>,
    causal: bool,
}

/// Some blocks of a group's queries, for one key and value head.
struct Lane<'a> {
    group: &'a Group,
    head: usize,
    blocks: Vec<Block<'a>>,
}

/// Some tokens of a sequence.
#[derive(Clone)]
struct Block<'a> {
    sequence: &'a Sequence,
    tokens: Range<usize>,
}

impl Block<'_> {
    /// Position of the last token that `token` sees.
    fn sees(&self, token: usize, causal: bool) -> usize {
        last_seen(self.sequence.position, token, self.sequence.rows.len(), causal)
    }

    /// Position behind the last token that is seen.
    fn end(&self, causal: bool) -> usize {
        self.sees(self.tokens.end - 1, causal) + 1
    }
}

/// For each head [`LANES`] lanes with about as many pairs of a query and a key each.
fn lanes(group: &Group, Pattern { heads, causal, .. }: Pattern) -> Vec<Lane<'_>> {
    let most = (BLOCK_ROWS / heads.shared().max(1)).max(1);
    let blocks = group.sequences.iter().flat_map(|sequence| {
        let tokens = sequence.rows.len();
        let block = move |start: usize| Block { sequence, tokens: start..tokens.min(start + most) };
        (0..tokens).step_by(most).map(block)
    });
    let blocks: Vec<Block<'_>> = blocks.collect();
    let pairs = |block: &Block<'_>| block.tokens.len() * block.end(causal);
    let all = blocks.iter().map(pairs).sum::<usize>().max(1);
    let mut shared_out: Vec<Vec<Block<'_>>> = vec![Vec::new(); LANES];
    let mut before = 0;
    for block in blocks {
        let of_block = pairs(&block);
        shared_out[before * LANES / all].push(block);
        before += of_block;
    }
    let of_head = |head| {
        let lane = move |blocks| Lane { group, head, blocks };
        shared_out.clone().into_iter().map(lane)
    };
    (0..heads.kv).flat_map(of_head).collect()
}

/// For each page of a group the gradients of its keys and values, where there are some: ([`PAGE`], width) both.
type PageSums = Vec<Option<Box<[f32]>>>;

/// Adds the lanes' sums to the rows that stand in the group's pages.
fn add_up(
    lanes: &[PageSums],
    layout: &Layout,
    group: &Group,
    head: usize,
    (dk, dv): (&Shared<'_>, &Shared<'_>),
) {
    let (dim, width) = (layout.heads.dim, layout.page.width());
    for (index, page) in group.pages.clone().enumerate() {
        for sums in lanes.iter().filter_map(|lane| lane[index].as_deref()) {
            let (keys, values) = sums.split_at(PAGE * width);
            for Content { slot, rows } in &layout.contents[page] {
                for (row, slot) in rows.clone().zip(*slot..) {
                    let start = row * layout.heads.kv_width() + head * dim;
                    for (to, from) in [(dk, keys), (dv, values)] {
                        // SAFETY: groups differ in their rows, and heads in their columns; a group's are
                        // gone through one after the other.
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
        let width = inputs.layout.page.width();
        let mut sums: PageSums = vec![None; self.group.pages.len()];
        let mut work = Work::default();
        for block in &self.blocks {
            work.load(block, self.head, inputs);
            let pages = block.sequence.pages.iter().take(block.end(inputs.causal).div_ceil(PAGE));
            for (index, page) in pages.enumerate() {
                if !work.look_at(index, inputs.window) {
                    continue;
                }
                let sums = sums[*page - self.group.pages.start]
                    .get_or_insert_with(|| vec![0.0; 2 * PAGE * width].into_boxed_slice());
                let pages = (inputs.keys.page(*page), inputs.values.page(*page));
                work.page(inputs.layout, self.head, pages, sums.split_at_mut(PAGE * width));
            }
            work.store(block, self.head, inputs.layout, dq);
        }
        sums
    }
}

/// What belongs to a block. A row is a token's query head.
#[derive(Default)]
struct Work {
    /// Scaled queries (rows, width).
    q: Vec<f32>,
    /// The output's gradient (rows, width).
    d_out: Vec<f32>,
    /// The log-sum-exp of each row's scores.
    log_sum_exp: Vec<f32>,
    /// `rowsum(dO ∘ O)`.
    delta: Vec<f32>,
    /// Position of the last token that each row sees.
    positions: Vec<usize>,
    /// Which tokens of the page each row sees.
    seen: Vec<Range<usize>>,
    /// Probabilities of the page's tokens (rows, [`PAGE`]).
    p: Vec<f32>,
    /// The gradients of their scores (rows, [`PAGE`]).
    ds: Vec<f32>,
    /// The gradient of the queries (rows, width).
    dq: Vec<f32>,
}

impl Work {
    /// Takes up a block.
    fn load(&mut self, block: &Block<'_>, head: usize, inputs: &Inputs<'_>) {
        let heads = inputs.layout.heads;
        let (shared, dim, width) = (heads.shared(), heads.dim, inputs.layout.page.width());
        let rows = block.tokens.len() * shared;
        let scale = 1.0 / (dim as f32).sqrt();
        for numbers in [&mut self.q, &mut self.d_out, &mut self.dq] {
            numbers.clear();
            numbers.resize(rows * width, 0.0);
        }
        for numbers in [&mut self.p, &mut self.ds] {
            numbers.resize(rows * PAGE, 0.0);
        }
        self.log_sum_exp.clear();
        self.delta.clear();
        self.positions.clear();
        for (place, token) in block.tokens.clone().enumerate() {
            let first = (block.sequence.rows.start + token) * heads.query + head * shared;
            self.log_sum_exp.extend(&inputs.log_sum_exp[first..first + shared]);
            let position = block.sees(token, inputs.causal);
            self.positions.extend(std::iter::repeat_n(position, shared));
            for (row, from) in (place * shared..).zip(first..first + shared) {
                let from = from * dim..(from + 1) * dim;
                let to = row * width..row * width + dim;
                let (q, d_out) = (&inputs.q[from.clone()], &inputs.d_out[from.clone()]);
                self.q[to.clone()].iter_mut().zip(q).for_each(|(to, q)| *to = q * scale);
                self.d_out[to].copy_from_slice(d_out);
                self.delta.push(row_dot(d_out, &inputs.out[from]));
            }
        }
    }

    /// Turns to the page at `index` of the sequence's; whether any row sees some of it.
    fn look_at(&mut self, index: usize, window: Option<usize>) -> bool {
        self.seen.clear();
        let seen = |position: &usize| visible(*position, index * PAGE, window);
        self.seen.extend(self.positions.iter().map(seen));
        self.seen.iter().any(|seen| !seen.is_empty())
    }

    /// Adds what a page has to do with the gradients of queries, keys and values.
    fn page(
        &mut self,
        layout: &Layout,
        head: usize,
        (keys, values): (&[f32], &[f32]),
        (dk, dv): (&mut [f32], &mut [f32]),
    ) {
        let (arch, width) = (Arch::new(), layout.page.width());
        let turned_keys = (layout.page.keys(keys, head), PAGE);
        let turned_values = (layout.page.keys(values, head), PAGE);
        let keys = layout.page.values(keys, head);
        // One product after the other, so that what it takes stays in the first cache.
        self.p.fill(0.0);
        self.ds.fill(0.0);
        for (p, q) in self.p.chunks_mut(TILE_ROWS * PAGE).zip(self.q.chunks(TILE_ROWS * width)) {
            accumulate(arch, p, (q, width), turned_keys, Ahead::NOTHING);
        }
        for (ds, d) in
            self.ds.chunks_mut(TILE_ROWS * PAGE).zip(self.d_out.chunks(TILE_ROWS * width))
        {
            accumulate(arch, ds, (d, width), turned_values, Ahead::NOTHING);
        }
        arch.dispatch(Probabilities(self));
        let seen = all_seen(&self.seen);
        for ((dq, ds), seen) in self
            .dq
            .chunks_mut(TILE_ROWS * width)
            .zip(self.ds.chunks(TILE_ROWS * PAGE))
            .zip(self.seen.chunks(TILE_ROWS))
        {
            let seen = all_seen(seen);
            let keys = (&keys[seen.start * width..seen.end * width], width);
            accumulate(arch, dq, (&ds[seen.start..], PAGE), keys, Ahead::NOTHING);
        }
        for (to, weights, by) in [(dv, &self.p, &self.d_out), (dk, &self.ds, &self.q)] {
            let columns = seen.clone().step_by(TILE_ROWS);
            let to = to[seen.start * width..seen.end * width].chunks_mut(TILE_ROWS * width);
            for (to, column) in to.zip(columns) {
                accumulate_turned(arch, to, (&weights[column..], PAGE), (by, width));
            }
        }
    }

    /// Writes the gradient of the block's queries.
    fn store(&self, block: &Block<'_>, head: usize, layout: &Layout, dq: &Shared<'_>) {
        let heads = layout.heads;
        let (shared, dim, width) = (heads.shared(), heads.dim, layout.page.width());
        let scale = 1.0 / (dim as f32).sqrt();
        for (place, token) in block.tokens.clone().enumerate() {
            let start = (block.sequence.rows.start + token) * heads.query_width();
            // SAFETY: a row belongs to one block of one sequence, and heads differ in their columns.
            #[allow(unsafe_code)]
            let to = unsafe { dq.slice(start + head * shared * dim, shared * dim) };
            for (to, row) in to.chunks_mut(dim).zip(place * shared..) {
                let from = &self.dq[row * width..][..dim];
                to.iter_mut().zip(from).for_each(|(to, from)| *to = from * scale);
            }
        }
    }
}

/// Makes probabilities of scores, `e^(score - log-sum-exp)`, and of the gradients of probabilities those of
/// scores, `p · (dp - delta)`.
struct Probabilities<'a>(&'a mut Work);

impl WithSimd for Probabilities<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Work { p, ds, seen, log_sum_exp, delta, .. } = self.0;
        let rows = p.chunks_exact_mut(PAGE).zip(ds.chunks_exact_mut(PAGE));
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
            hide(p, &seen[row], 0.0);
            hide(ds, &seen[row], 0.0);
        }
    }
}

#[multiversion(targets = "simd")]
fn row_dot(a: &[f32], b: &[f32]) -> f32 {
    dot(a, b)
}
