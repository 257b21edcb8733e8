//! Software prefetch.

/// Bytes of a cache line.
const LINE: usize = 64;

/// Maximum cache lines prefetched per step of a tile.
const LINES_PER_STEP: usize = 2;

/// Prefetches the cache line at `_at` into the L1 cache.
#[inline(always)]
pub(crate) fn prefetch_line(_at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch has no visible effect, whatever the address.
    #[allow(unsafe_code)]
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(_at.cast());
    }
}

/// Data to prefetch: a tile issues some of its lines at each of its first steps, to overlap memory access with
/// arithmetic.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Prefetch {
    start: *const u8,
    lines: usize,
    per_step: usize,
}

impl Prefetch {
    /// No data.
    pub(crate) const NONE: Self = Self { start: std::ptr::null(), lines: 0, per_step: 1 };

    /// Prefetches `data`.
    pub(crate) fn new<T>(data: &[T]) -> Self {
        let lines = size_of_val(data).div_ceil(LINE);
        Self { start: data.as_ptr().cast(), lines, per_step: LINES_PER_STEP }
    }

    /// This data in `parts` parts.
    pub(crate) fn split(self, parts: usize) -> impl Iterator<Item = Self> {
        let lines = self.lines.div_ceil(parts.max(1));
        (0..parts).map(move |part| {
            let first = self.lines.min(part * lines);
            let start = self.start.wrapping_add(first * LINE);
            Self { start, lines: lines.min(self.lines - first), ..self }
        })
    }

    /// This data, spread over `steps` steps as far as two lines per step suffice.
    pub(crate) fn spread(self, steps: usize) -> Self {
        let per_step = self.lines.div_ceil(steps.max(1)).clamp(1, LINES_PER_STEP);
        Self { per_step, ..self }
    }

    /// Number of steps that prefetch.
    #[inline(always)]
    pub(crate) fn steps(self) -> usize {
        self.lines.div_ceil(self.per_step)
    }

    /// Issues the prefetches of a step.
    #[inline(always)]
    pub(crate) fn issue(self, step: usize) {
        for line in 0..self.per_step {
            let _at = self.start.wrapping_add((step * self.per_step + line) * LINE);
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a prefetch has no visible effect, whatever the address.
            #[allow(unsafe_code)]
            unsafe {
                use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
                _mm_prefetch::<_MM_HINT_T1>(_at.cast());
            }
        }
    }
}
