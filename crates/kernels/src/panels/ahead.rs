//! Asking for memory before it is needed.

/// Bytes that memory gives at once.
const LINE: usize = 64;

/// Numbers that will be needed soon: a tile asks for a few lines of them at each of its steps, so that
/// memory works while it does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ahead {
    start: *const u8,
    lines: usize,
    lines_per_step: usize,
}

impl Ahead {
    /// Nothing.
    pub(crate) const NOTHING: Self = Self { start: std::ptr::null(), lines: 0, lines_per_step: 0 };

    /// `numbers`, in `steps` steps.
    pub(crate) fn new<T>(numbers: &[T], steps: usize) -> Self {
        let lines = size_of_val(numbers).div_ceil(LINE);
        let lines_per_step = lines.div_ceil(steps.max(1));
        Self { start: numbers.as_ptr().cast(), lines, lines_per_step }
    }

    /// Asks for what belongs to a step.
    #[inline(always)]
    pub(crate) fn fetch(self, step: usize) {
        let first = step * self.lines_per_step;
        for line in first..self.lines.min(first + self.lines_per_step) {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: asking for a line reads nothing that the program could see, wherever it lies.
            #[allow(unsafe_code)]
            unsafe {
                use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
                _mm_prefetch::<_MM_HINT_T1>(self.start.wrapping_add(line * LINE).cast());
            }
            #[cfg(not(target_arch = "x86_64"))]
            let _ = (line, self.start);
        }
    }
}
