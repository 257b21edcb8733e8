//! Micro-kernel: a tile of a few rows by a panel of decoded groups.

use pulp::{Arch, Simd, WithSimd};

use crate::panels::prefetch::Prefetch;
use crate::panels::sizes::PANEL;
use crate::panels::tile::{TILE_ROWS, add_step};
use crate::quantized::blocks::GROUP;

/// Words of a group of `x`: its elements and their sum.
pub(super) const GROUP_WORDS: usize = GROUP + 1;

/// `sums += x · w`. For each row and column the products of a scale's elements are one chain of fused multiply-adds,
/// whose sum is multiplied by the scale and added to `sums`; with minimums, the negative minimum times the group's sum
/// of `x` follows.
///
/// # Shapes
/// `sums` (rows, [`PANEL`]) with at most [`TILE_ROWS`] rows; `w` (groups, rows of a group, [`PANEL`]), where a group's
/// rows are its codes, its scales (one per `scale_group` elements) and, if it `has_mins`, negative minimums; `x` with
/// its row stride, in groups of [`GROUP_WORDS`].
///
/// # Panics
/// If the shapes are inconsistent: a bug of the calling kernel.
pub(super) fn accumulate(
    arch: Arch,
    sums: &mut [f32],
    (x, stride): (&[f32], usize),
    w: &[f32],
    (scale_group, has_mins): (usize, bool),
    prefetch: Prefetch,
) {
    let rows = sums.len() / PANEL;
    let group_rows = GROUP + GROUP / scale_group + usize::from(has_mins);
    let groups = w.len() / (group_rows * PANEL);
    assert!(
        sums.len() == rows * PANEL && w.len() == groups * group_rows * PANEL,
        "`sums` and `w` must be whole rows and groups"
    );
    assert!(
        rows == 0 || (rows - 1) * stride + groups * GROUP_WORDS <= x.len(),
        "rows of `x` exceed its length"
    );
    arch.dispatch(Work { sums, x, stride, w, group_rows, scale_group, has_mins, prefetch });
}

struct Work<'a> {
    sums: &'a mut [f32],
    x: &'a [f32],
    stride: usize,
    w: &'a [f32],
    group_rows: usize,
    scale_group: usize,
    has_mins: bool,
    prefetch: Prefetch,
}

impl WithSimd for Work<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.sums.len() / PANEL {
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

impl Work<'_> {
    #[inline(always)]
    fn rows<S: Simd, const R: usize>(mut self, simd: S) {
        // As in [`super::super::tile`]: the accumulators of a strip fit the registers.
        if S::REGISTER_COUNT >= 32 && 4 * S::F32_LANES <= PANEL {
            self.strips::<S, R, 4>(simd);
        } else {
            self.strips::<S, R, 2>(simd);
        }
    }

    #[inline(always)]
    fn strips<S: Simd, const R: usize, const N: usize>(&mut self, simd: S) {
        for first in (0..PANEL).step_by(N * S::F32_LANES) {
            match (self.scale_group, self.has_mins) {
                (GROUP, false) => self.strip::<S, R, N, GROUP, false>(simd, first),
                (GROUP, true) => self.strip::<S, R, N, GROUP, true>(simd, first),
                _ => self.strip::<S, R, N, 16, false>(simd, first),
            }
        }
    }

    /// `R` rows by `N` registers of columns from `first` on.
    #[inline(always)]
    #[allow(clippy::needless_range_loop)]
    fn strip<S: Simd, const R: usize, const N: usize, const SCALE: usize, const MINS: bool>(
        &mut self,
        simd: S,
        first: usize,
    ) {
        let columns = first..first + N * S::F32_LANES;
        let stride = self.stride;
        for (group, w) in self.w.chunks_exact(self.group_rows * PANEL).enumerate() {
            let prefetched = if first == 0 { self.prefetch.steps() } else { 0 };
            let x = self.x[group * GROUP_WORDS..].as_ptr();
            let (codes, scales) = w.split_at(GROUP * PANEL);
            for (part, codes) in codes.chunks_exact(SCALE * PANEL).enumerate() {
                let mut chain = [[simd.splat_f32s(0.0); N]; R];
                for (k, codes) in codes.chunks_exact(PANEL).enumerate() {
                    let step = group * GROUP + part * SCALE + k;
                    if step < prefetched {
                        self.prefetch.issue(step);
                    }
                    // SAFETY: the rows of `x` have this group, as `accumulate` has checked.
                    #[allow(unsafe_code)]
                    unsafe {
                        let x = x.add(part * SCALE + k);
                        add_step(simd, &mut chain, (x, stride), &codes[columns.clone()]);
                    }
                }
                let (scales, _) = S::as_simd_f32s(&scales[part * PANEL..][columns.clone()]);
                for r in 0..R {
                    let (sums, _) =
                        S::as_mut_simd_f32s(&mut self.sums[r * PANEL..][columns.clone()]);
                    for n in 0..N {
                        sums[n] = simd.mul_add_f32s(chain[r][n], scales[n], sums[n]);
                    }
                }
            }
            if MINS {
                let mins = &w[(self.group_rows - 1) * PANEL..][columns.clone()];
                let (mins, _) = S::as_simd_f32s(mins);
                for r in 0..R {
                    // SAFETY: as above.
                    #[allow(unsafe_code)]
                    let sum = simd.splat_f32s(unsafe { *x.add(r * stride + GROUP) });
                    let (sums, _) =
                        S::as_mut_simd_f32s(&mut self.sums[r * PANEL..][columns.clone()]);
                    for n in 0..N {
                        sums[n] = simd.mul_add_f32s(sum, mins[n], sums[n]);
                    }
                }
            }
        }
    }
}
