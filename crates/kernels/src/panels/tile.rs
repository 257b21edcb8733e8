//! Micro-kernel: a tile of a few rows by a panel, accumulated in registers.

use pulp::{Arch, Simd, WithSimd};

use super::prefetch::Prefetch;
use super::sizes::PANEL;

/// Maximum rows of a tile.
pub(crate) const TILE_ROWS: usize = 6;

/// `sums += x · w`. For each row `r` and column `c` the products `x[r][k] · w[k][c]` are accumulated over `k` in
/// order by fused multiply-adds, and the result is added to `sums`. Meanwhile `prefetch` is issued.
///
/// # Shapes
/// `sums` (rows, width) with at most [`TILE_ROWS`] rows and a width that is a multiple of 16, `w` (depth, width), `x`
/// with its row stride: rows of `depth` elements.
///
/// # Panics
/// If the shapes are inconsistent: a bug of the calling kernel.
pub(crate) fn accumulate(
    arch: Arch,
    sums: &mut [f32],
    (x, stride): (&[f32], usize),
    (w, width): (&[f32], usize),
    prefetch: Prefetch,
) {
    arch.dispatch(Work::new((sums, width), (x, stride, 1), (w, width), prefetch));
}

/// `sums += x · w` as [`accumulate`], with any number of rows and a panel in strips.
///
/// # Shapes
/// `sums` (rows, [`PANEL`]), `w` ([`PANEL`] / `strip`, depth, `strip`), `x` with its row stride: rows of `depth` elements.
///
/// # Panics
/// As [`accumulate`].
pub(crate) fn accumulate_strips(
    arch: Arch,
    sums: &mut [f32],
    (x, stride): (&[f32], usize),
    (w, strip): (&[f32], usize),
    prefetch: Prefetch,
) {
    let strips = PANEL / strip;
    let w = w.chunks_exact((w.len() / strips).max(1));
    // A strip stays in the L1 cache for all tiles.
    for (index, (w, prefetch)) in w.zip(prefetch.split(strips)).enumerate() {
        for (row, sums, prefetch) in tiles(sums, prefetch) {
            let sums = (&mut sums[index * strip..], PANEL);
            let x = (&x[row * stride..], stride, 1);
            let prefetch = prefetch.spread(w.len() / strip);
            arch.dispatch(Work::new(sums, x, (w, strip), prefetch));
        }
    }
}

/// The tiles of `sums` (rows, [`PANEL`]): the first row, the sums and what to prefetch meanwhile.
pub(crate) fn tiles(
    sums: &mut [f32],
    prefetch: Prefetch,
) -> impl Iterator<Item = (usize, &mut [f32], Prefetch)> {
    let tiles = sums.chunks_mut(TILE_ROWS * PANEL);
    let prefetch = prefetch.split(tiles.len());
    let tiles = tiles.zip(prefetch).enumerate();
    tiles.map(|(tile, (sums, prefetch))| (tile * TILE_ROWS, sums, prefetch))
}

/// [`accumulate`] with `x` transposed: (depth, rows) with a stride between steps over `k`.
pub(crate) fn accumulate_transposed(
    arch: Arch,
    sums: &mut [f32],
    (x, stride): (&[f32], usize),
    (w, width): (&[f32], usize),
) {
    arch.dispatch(Work::new((sums, width), (x, 1, stride), (w, width), Prefetch::NONE));
}

struct Work<'a> {
    /// The rows' first `width` elements.
    sums: &'a mut [f32],
    /// Stride between rows of `sums`.
    stride: usize,
    x: &'a [f32],
    /// Stride between rows of `x`.
    row: usize,
    /// Stride between steps over `k`.
    step: usize,
    w: &'a [f32],
    width: usize,
    prefetch: Prefetch,
}

impl WithSimd for Work<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.sums.len().div_ceil(self.stride) {
            1 => self.rows::<S, 1>(simd),
            2 => self.rows::<S, 2>(simd),
            3 => self.rows::<S, 3>(simd),
            4 => self.rows::<S, 4>(simd),
            5 => self.rows::<S, 5>(simd),
            TILE_ROWS => self.rows::<S, TILE_ROWS>(simd),
            _ => {}
        }
    }
}

impl<'a> Work<'a> {
    fn new(
        (sums, stride): (&'a mut [f32], usize),
        (x, row, step): (&'a [f32], usize, usize),
        (w, width): (&'a [f32], usize),
        prefetch: Prefetch,
    ) -> Self {
        let rows = sums.len().div_ceil(stride);
        assert!(
            width.is_multiple_of(16) && (rows == 0 || (rows - 1) * stride + width <= sums.len()),
            "the width must be a multiple of 16, and `sums` whole rows"
        );
        Self { sums, stride, x, row, step, w, width, prefetch }
    }

    #[inline(always)]
    fn rows<S: Simd, const R: usize>(mut self, simd: S) {
        let mut column = 0;
        // Registers: 6 × 4 accumulators, 4 of the weight and 1 of `x` are 29 of 32; 6 × 2 with 2 and 1 are 15 of 16.
        if S::REGISTER_COUNT >= 32 {
            while column + 4 * S::F32_LANES <= self.width {
                self.strip::<S, R, 4>(simd, column);
                column += 4 * S::F32_LANES;
            }
        }
        while column + 2 * S::F32_LANES <= self.width {
            self.strip::<S, R, 2>(simd, column);
            column += 2 * S::F32_LANES;
        }
        while column < self.width {
            self.strip::<S, R, 1>(simd, column);
            column += S::F32_LANES;
        }
    }

    /// `R` rows by `N` registers of columns from `first` on. Plain loops: closures passed to `core` would not inherit
    /// the caller's instruction set.
    #[inline(always)]
    #[allow(clippy::needless_range_loop)]
    fn strip<S: Simd, const R: usize, const N: usize>(&mut self, simd: S, first: usize) {
        let columns = N * S::F32_LANES;
        let depth = self.w.len() / self.width;
        let last = (R - 1) * self.row + depth.saturating_sub(1) * self.step;
        assert!(depth == 0 || last < self.x.len(), "`x` is too short");
        let (x, row, step) = (self.x.as_ptr(), self.row, self.step);
        let mut sums = [[simd.splat_f32s(0.0); N]; R];
        let mut steps = self.w.chunks_exact(self.width).enumerate();
        if first == 0 {
            // A separate loop, so that the main loop has no prefetch overhead.
            for (k, w) in steps.by_ref().take(self.prefetch.steps()) {
                self.prefetch.issue(k);
                // SAFETY: `k` < depth.
                #[allow(unsafe_code)]
                unsafe {
                    add_step(simd, &mut sums, (x.add(k * step), row), &w[first..first + columns]);
                }
            }
        }
        for (k, w) in steps {
            // SAFETY: `k` < depth.
            #[allow(unsafe_code)]
            unsafe {
                add_step(simd, &mut sums, (x.add(k * step), row), &w[first..first + columns]);
            }
        }
        for r in 0..R {
            let (row, _) =
                S::as_mut_simd_f32s(&mut self.sums[r * self.stride + first..][..columns]);
            for n in 0..N {
                row[n] = simd.add_f32s(row[n], sums[r][n]);
            }
        }
    }
}

/// Adds one column of `x`, with elements `stride` apart, times `N` registers of `w` to `sums`.
///
/// # Safety
/// `x` has `R` elements at this stride.
#[inline(always)]
#[allow(unsafe_code, clippy::needless_range_loop)]
pub(crate) unsafe fn add_step<S: Simd, const R: usize, const N: usize>(
    simd: S,
    sums: &mut [[S::f32s; N]; R],
    (x, stride): (*const f32, usize),
    w: &[f32],
) {
    let (w, _) = S::as_simd_f32s(w);
    let mut weights = [simd.splat_f32s(0.0); N];
    weights[..N].copy_from_slice(&w[..N]);
    for r in 0..R {
        // SAFETY: the caller's promise.
        let x = simd.splat_f32s(unsafe { *x.add(r * stride) });
        for n in 0..N {
            sums[r][n] = simd.mul_add_f32s(x, weights[n], sums[r][n]);
        }
    }
}
