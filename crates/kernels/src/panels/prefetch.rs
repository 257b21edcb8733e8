//! Software prefetch.

/// Bytes of a cache line.
const LINE: usize = 64;

/// Cache lines prefetched per step of a tile.
const LINES_PER_STEP: usize = 2;

/// Data to prefetch: a tile issues some of its lines at each of its first steps, to overlap memory access with
/// arithmetic.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Prefetch {
    start: *const u8,
    lines: usize,
}

impl Prefetch {
    /// No data.
    pub(crate) const NONE: Self = Self { start: std::ptr::null(), lines: 0 };

    /// Prefetches `data`.
    pub(crate) fn new<T>(data: &[T]) -> Self {
        Self { start: data.as_ptr().cast(), lines: size_of_val(data).div_ceil(LINE) }
    }

    /// This data in `parts` parts.
    pub(crate) fn split(self, parts: usize) -> impl Iterator<Item = Self> {
        let lines = self.lines.div_ceil(parts.max(1));
        (0..parts).map(move |part| {
            let first = self.lines.min(part * lines);
            let start = self.start.wrapping_add(first * LINE);
            Self { start, lines: lines.min(self.lines - first) }
        })
    }

    /// Number of steps that prefetch.
    #[inline(always)]
    pub(crate) fn steps(self) -> usize {
        self.lines.div_ceil(LINES_PER_STEP)
    }

    /// Issues the prefetches of a step.
    #[inline(always)]
    pub(crate) fn issue(self, step: usize) {
        for line in 0..LINES_PER_STEP {
            let _at = self.start.wrapping_add((step * LINES_PER_STEP + line) * LINE);
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
