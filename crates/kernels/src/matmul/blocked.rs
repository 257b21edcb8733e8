//! Blocked GEMM with packed operands, for CPUs with 16 registers.
//!
//! A block of both operands is packed in the order in which the tiles read it: `rhs` in strips of two registers, which stay in
//! the L1 cache, `lhs` in tiles, which stay in the L2 cache. All addresses of a step are constant offsets, so a tile has
//! few instructions besides its multiply-adds; that matters where a core is shared with another thread. Each element of the
//! output is summed over one block of the depth after the other, for any number of threads.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::{Threads, View, WriteMode};
use crate::panels::{TILE_ROWS, add_step, aligned, prefetch_line};
use crate::simd_level::SimdLevel;

/// Columns of a strip: two registers of eight.
const STRIP: usize = 16;

/// Maximum depth of a block.
const DEPTH: usize = 512;

/// Maximum rows of a block.
const ROWS: usize = 16 * TILE_ROWS;

/// Maximum columns of a block.
const COLUMNS: usize = 64 * STRIP;

/// Minimum columns per task.
const GROUP: usize = 8 * STRIP;

/// Strips that a task packs.
const PACKED_STRIPS: usize = 4;

/// Steps over the depth per iteration of a tile.
const UNROLLED: usize = 4;

/// Multiply-adds from which packing both operands pays off.
const LARGE: usize = 1 << 22;

/// Rows and columns of the output from which it does.
const WIDE: usize = 3 * STRIP;

/// Whether this GEMM is the fastest one at `level` for an output (rows, columns).
pub(super) fn is_fastest(level: SimdLevel, (rows, columns): (usize, usize), depth: usize) -> bool {
    level == SimdLevel::Avx2 && rows.min(columns) >= WIDE && rows * columns * depth >= LARGE
}

/// The output (rows, columns), row-major.
#[derive(Clone, Copy)]
struct Output {
    start: *mut f32,
    columns: usize,
    mode: WriteMode,
}

// SAFETY: tasks write disjoint blocks.
#[allow(unsafe_code)]
unsafe impl Sync for Output {}

/// [`super::gemm_at`] with the instructions of `level`, which the machine supports.
///
/// # Safety
/// As there. Both views have been checked.
#[allow(unsafe_code)]
pub(super) unsafe fn gemm(
    level: SimdLevel,
    dst: *mut f32,
    mode: WriteMode,
    lhs: View<'_>,
    rhs: View<'_>,
    threads: Threads,
) {
    let (rows, columns, depth) = (lhs.rows, rhs.cols, lhs.cols);
    let height = share(rows, ROWS, TILE_ROWS);
    let width = share(columns, COLUMNS, STRIP);
    let length = share(depth, DEPTH, UNROLLED);
    let mut buffer = Vec::new();
    let buffer = aligned(&mut buffer, width * length);
    for columns_of_block in blocks(columns, width) {
        let group = group_columns(columns_of_block.len(), rows.div_ceil(height), threads);
        for depth_of_block in blocks(depth, length) {
            let depth = depth_of_block.len();
            let packed = &mut buffer[..columns_of_block.len().next_multiple_of(STRIP) * depth];
            pack_strips(rhs, columns_of_block.clone(), depth_of_block.clone(), packed, threads);
            let mode = if depth_of_block.start == 0 { mode } else { WriteMode::Accumulate };
            let output = Output { start: dst, columns, mode };
            let tasks = (rows.div_ceil(height), columns_of_block.len().div_ceil(group));
            for_each_task(tasks, threads, |buffer, (row, column)| {
                let rows = row * height..rows.min((row + 1) * height);
                let tiles = aligned(buffer, rows.len().next_multiple_of(TILE_ROWS) * depth);
                pack::<TILE_ROWS>(lhs, rows.clone(), depth_of_block.clone(), tiles);
                let first = columns_of_block.start + column * group;
                let columns = first..columns_of_block.end.min(first + group);
                let rhs = &packed[column * group * depth..];
                level.arch().dispatch(Block { lhs: tiles, rhs, depth, rows, columns, output });
            });
        }
    }
}

/// Columns per task, of a block of `columns`: all, unless there are fewer blocks of rows than threads. Each task packs its
/// rows.
fn group_columns(columns: usize, blocks_of_rows: usize, threads: Threads) -> usize {
    let wanted = match threads {
        Threads::One => 1,
        Threads::All => rayon::current_num_threads().div_ceil(blocks_of_rows),
    };
    let groups = wanted.min(columns / GROUP).max(1);
    columns.div_ceil(groups).next_multiple_of(STRIP)
}

/// The size of blocks of at most `max`, a multiple of `unit`, that split `len` as evenly as possible.
fn share(len: usize, max: usize, unit: usize) -> usize {
    len.div_ceil(len.div_ceil(max).max(1)).next_multiple_of(unit)
}

/// `0..len` in blocks of `size`.
fn blocks(len: usize, size: usize) -> impl Iterator<Item = Range<usize>> {
    (0..len).step_by(size).map(move |start| start..len.min(start + size))
}

/// Calls `act` with a workspace of the thread and each (row, column) of the tasks.
fn for_each_task(
    (rows, columns): (usize, usize),
    threads: Threads,
    act: impl Fn(&mut Vec<f32>, (usize, usize)) + Sync,
) {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut buffer = Vec::new();
        loop {
            let task = next.fetch_add(1, Ordering::Relaxed);
            if task >= rows * columns {
                break;
            }
            act(&mut buffer, (task / columns, task % columns));
        }
    };
    match threads {
        Threads::One => work(),
        Threads::All => {
            let workers = 0..rayon::current_num_threads();
            workers.into_par_iter().with_max_len(1).for_each(|_| work());
        }
    }
}

/// Packs `columns` of `rhs`, of its rows `depth`, in strips (strips, depth, [`STRIP`]), zero-padded.
fn pack_strips(
    rhs: View<'_>,
    columns: Range<usize>,
    depth: Range<usize>,
    out: &mut [f32],
    threads: Threads,
) {
    let size = PACKED_STRIPS * STRIP;
    let pack = |(index, out): (usize, &mut [f32])| {
        pack::<STRIP>(rhs.t(), columns.start + index * size..columns.end, depth.clone(), out);
    };
    match threads {
        Threads::One => out.chunks_mut(size * depth.len()).enumerate().for_each(pack),
        Threads::All => out.par_chunks_mut(size * depth.len()).enumerate().for_each(pack),
    }
}

/// Packs `rows` of `view`, of their columns `depth`, in tiles of `WIDTH` rows (tiles, depth, `WIDTH`), zero-padded.
fn pack<const WIDTH: usize>(
    view: View<'_>,
    rows: Range<usize>,
    depth: Range<usize>,
    out: &mut [f32],
) {
    for (tile, out) in out.chunks_mut(depth.len() * WIDTH).enumerate() {
        let first = rows.start + tile * WIDTH;
        let count = (rows.end - first).min(WIDTH);
        let (words, _) = out.as_chunks_mut::<WIDTH>();
        if count < WIDTH {
            for (words, column) in words.iter_mut().zip(depth.clone()) {
                let row = |row| if row < count { view.at(first + row, column) } else { 0.0 };
                *words = std::array::from_fn(row);
            }
        } else if view.col_stride == 1 {
            let row = |row| &view.data[(first + row) * view.row_stride..][depth.clone()];
            interleave(std::array::from_fn(row), words);
        } else {
            let columns = view.data[depth.start * view.col_stride..].chunks(view.col_stride);
            for (words, column) in words.iter_mut().zip(columns) {
                words.copy_from_slice(&column[first..][..WIDTH]);
            }
        }
    }
}

/// Writes the `k`-th words of all rows to `words[k]`.
fn interleave<const WIDTH: usize>(rows: [&[f32]; WIDTH], words: &mut [[f32; WIDTH]]) {
    /// Words of a row per block, whose loops are unrolled.
    const BLOCK: usize = 8;
    let (blocks, rest) = words.as_chunks_mut::<BLOCK>();
    let done = blocks.len() * BLOCK;
    for (block, words) in blocks.iter_mut().enumerate() {
        let rows = rows.map(|row| &row.as_chunks::<BLOCK>().0[block]);
        for k in 0..BLOCK {
            words[k] = rows.map(|row| row[k]);
        }
    }
    for (k, words) in (done..).zip(rest) {
        *words = rows.map(|row| row[k]);
    }
}

/// A block of the output.
struct Block<'a> {
    /// (tiles, depth, [`TILE_ROWS`]).
    lhs: &'a [f32],
    /// (strips, depth, [`STRIP`]).
    rhs: &'a [f32],
    depth: usize,
    rows: Range<usize>,
    columns: Range<usize>,
    output: Output,
}

impl WithSimd for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { lhs, rhs, depth, rows, columns, output } = self;
        // A strip stays in the L1 cache for all tiles.
        for (column, strip) in columns.clone().step_by(STRIP).zip(rhs.chunks_exact(depth * STRIP)) {
            let width = (columns.end - column).min(STRIP);
            for (row, tile) in
                rows.clone().step_by(TILE_ROWS).zip(lhs.chunks_exact(depth * TILE_ROWS))
            {
                let height = (rows.end - row).min(TILE_ROWS);
                // SAFETY: the block lies within the output, and no other task writes it.
                #[allow(unsafe_code)]
                unsafe {
                    let start = output.start.add(row * output.columns + column);
                    output.prefetch(start);
                    output.write(simd, start, products(simd, tile, strip), (height, width));
                }
            }
        }
    }
}

/// The products of a tile (depth, [`TILE_ROWS`]) and a strip (depth, [`STRIP`]).
#[inline(always)]
fn products<S: Simd>(simd: S, tile: &[f32], strip: &[f32]) -> [[S::f32s; 2]; TILE_ROWS] {
    let mut sums = [[simd.splat_f32s(0.0); 2]; TILE_ROWS];
    let tiles = tile.chunks_exact(UNROLLED * TILE_ROWS);
    let strips = strip.chunks_exact(UNROLLED * STRIP);
    let rest =
        tiles.remainder().chunks_exact(TILE_ROWS).zip(strips.remainder().chunks_exact(STRIP));
    for (x, w) in tiles.zip(strips) {
        for step in 0..UNROLLED {
            let x = &x[step * TILE_ROWS..][..TILE_ROWS];
            add_products(simd, &mut sums, x, &w[step * STRIP..][..STRIP]);
        }
    }
    for (x, w) in rest {
        add_products(simd, &mut sums, x, w);
    }
    sums
}

/// Adds the products of a step: [`TILE_ROWS`] words of `x` and [`STRIP`] of `w`.
#[inline(always)]
fn add_products<S: Simd>(simd: S, sums: &mut [[S::f32s; 2]; TILE_ROWS], x: &[f32], w: &[f32]) {
    assert!(x.len() == TILE_ROWS, "a step has a word of each row");
    // SAFETY: as asserted.
    #[allow(unsafe_code)]
    unsafe {
        add_step(simd, sums, (x.as_ptr(), 1), w);
    }
}

impl Output {
    /// Prefetches a tile from `start` on, whatever lies there.
    #[inline(always)]
    fn prefetch(&self, start: *mut f32) {
        for row in 0..TILE_ROWS {
            prefetch_line(start.wrapping_add(row * self.columns).cast());
        }
    }

    /// Writes the first `height` rows and `width` columns of `sums` from `start` on.
    ///
    /// # Safety
    /// They lie within the output, and no other thread touches them meanwhile. To accumulate, they must be initialized.
    #[inline(always)]
    #[allow(unsafe_code, clippy::needless_range_loop)]
    unsafe fn write<S: Simd>(
        &self,
        simd: S,
        start: *mut f32,
        sums: [[S::f32s; 2]; TILE_ROWS],
        (height, width): (usize, usize),
    ) {
        let accumulates = self.mode == WriteMode::Accumulate;
        if (height, width) == (TILE_ROWS, STRIP) {
            for row in 0..TILE_ROWS {
                for register in 0..2 {
                    // SAFETY: the caller's promise.
                    unsafe {
                        let at = start
                            .add(row * self.columns + register * S::F32_LANES)
                            .cast::<S::f32s>();
                        let sum = sums[row][register];
                        at.write_unaligned(match accumulates {
                            true => simd.add_f32s(at.read_unaligned(), sum),
                            false => sum,
                        });
                    }
                }
            }
            return;
        }
        for row in 0..height {
            let mut values = [0.0; STRIP];
            let (registers, _) = S::as_mut_simd_f32s(&mut values);
            registers[0] = sums[row][0];
            registers[1] = sums[row][1];
            for column in 0..width {
                // SAFETY: the caller's promise.
                unsafe {
                    let at = start.add(row * self.columns + column);
                    at.write(values[column] + if accumulates { at.read() } else { 0.0 });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Small integers, whose products have exact sums.
    fn matrix(rows: usize, columns: usize) -> Vec<f32> {
        (0..rows * columns).map(|i| ((i * 7919) % 23) as f32 - 11.0).collect()
    }

    fn transposed(data: &[f32], columns: usize) -> Vec<f32> {
        let rows = data.len() / columns;
        (0..data.len()).map(|i| data[i % rows * columns + i / rows]).collect()
    }

    fn run(
        dst: &mut [f32],
        mode: WriteMode,
        (lhs, rhs): (View<'_>, View<'_>),
        threads: Threads,
    ) -> bool {
        if !SimdLevel::Avx2.is_supported() {
            return false;
        }
        assert_eq!(dst.len(), lhs.rows * rhs.cols);
        // SAFETY: `dst` has the output's size.
        #[allow(unsafe_code)]
        unsafe {
            gemm(SimdLevel::Avx2, dst.as_mut_ptr(), mode, lhs, rhs, threads);
        }
        true
    }

    #[test]
    fn products_are_exact_in_all_layouts_blocks_and_modes() {
        // Whole tiles; a part of one; then two blocks of rows, of columns and of the depth, each with a part.
        let shapes =
            [(12, 32, 8), (1, 1, 1), (ROWS + 7, 17, 5), (7, COLUMNS + 18, 9), (13, 18, DEPTH + 3)];
        for (rows, columns, depth) in shapes {
            let (a, b) = (matrix(rows, depth), matrix(depth, columns));
            let (a_t, b_t) = (transposed(&a, depth), transposed(&b, columns));
            let product = |i: usize| -> f32 {
                let (row, column) = (i / columns, i % columns);
                (0..depth).map(|k| a[row * depth + k] * b[k * columns + column]).sum()
            };
            let products: Vec<f32> = (0..rows * columns).map(product).collect();
            let twice: Vec<f32> = products.iter().map(|x| 2.0 * x).collect();
            for lhs in [View::new(&a, rows, depth), View::new(&a_t, depth, rows).t()] {
                for rhs in [View::new(&b, depth, columns), View::new(&b_t, columns, depth).t()] {
                    for threads in [Threads::One, Threads::All] {
                        let mut dst = vec![f32::NAN; rows * columns];
                        if !run(&mut dst, WriteMode::Overwrite, (lhs, rhs), threads) {
                            return;
                        }
                        assert_eq!(dst, products, "{rows} x {columns} x {depth}");
                        run(&mut dst, WriteMode::Accumulate, (lhs, rhs), threads);
                        assert_eq!(dst, twice, "{rows} x {columns} x {depth}");
                    }
                }
            }
        }
    }

    #[test]
    fn sums_have_one_order_for_any_number_of_threads() {
        let (rows, columns, depth) = (2 * ROWS + 5, 2 * GROUP + 3, DEPTH + 9);
        let thirds = |x: Vec<f32>| -> Vec<f32> { x.iter().map(|x| x / 3.0).collect() };
        let (a, b) = (thirds(matrix(rows, depth)), thirds(matrix(columns, depth)));
        let operands = (View::new(&a, rows, depth), View::new(&b, columns, depth).t());
        // With eight threads the columns are split, too.
        let outputs = [1, 3, 8].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut dst = vec![0.0; rows * columns];
            pool.install(|| run(&mut dst, WriteMode::Overwrite, operands, Threads::All));
            dst
        });
        let alone = {
            let mut dst = vec![0.0; rows * columns];
            run(&mut dst, WriteMode::Overwrite, operands, Threads::One);
            dst
        };
        assert!(outputs.iter().all(|output| *output == alone));
    }

    #[test]
    fn blocks_are_even_and_cover_all() {
        assert_eq!([share(97, 96, 6), share(96, 96, 6), share(1, 96, 6)], [54, 96, 6]);
        let all: Vec<Range<usize>> = blocks(97, 54).collect();
        assert_eq!(all, [0..54, 54..97]);
        assert_eq!(group_columns(1000, 6, Threads::One), 1008);
        for (threads, expected) in [(6, 1008), (7, 512), (100, 144)] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert_eq!(pool.install(|| group_columns(1000, 6, Threads::All)), expected);
        }
        let depth = LARGE.div_ceil(WIDE * WIDE);
        assert!(is_fastest(SimdLevel::Avx2, (WIDE, WIDE), depth));
        for (level, rows, columns, depth) in [
            (SimdLevel::Avx512, WIDE, WIDE, depth),
            (SimdLevel::Avx2, WIDE - 1, 2 * WIDE, depth),
            (SimdLevel::Avx2, 2 * WIDE, WIDE - 1, depth),
            (SimdLevel::Avx2, WIDE, WIDE, depth - 1),
        ] {
            assert!(!is_fastest(level, (rows, columns), depth));
        }
    }
}
