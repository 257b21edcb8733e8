//! Asking for memory before it is needed.

/// Bytes that memory gives at once.
const LINE: usize = 64;

/// Lines that a tile asks for at a step.
const LINES_PER_STEP: usize = 2;

/// Numbers that will be needed soon: a tile asks for some lines of them at each of its first steps, so that
/// memory works while it does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ahead {
    start: *const u8,
    lines: usize,
}

impl Ahead {
    /// Nothing.
    pub(crate) const NOTHING: Self = Self { start: std::ptr::null(), lines: 0 };

    /// `numbers`.
    pub(crate) fn new<T>(numbers: &[T]) -> Self {
        Self { start: numbers.as_ptr().cast(), lines: size_of_val(numbers).div_ceil(LINE) }
    }

    /// Steps that ask for something.
    #[inline(always)]
    pub(crate) fn steps(self) -> usize {
        self.lines.div_ceil(LINES_PER_STEP)
    }

    /// Asks for what belongs to a step.
    #[inline(always)]
    pub(crate) fn fetch(self, step: usize) {
        for line in 0..LINES_PER_STEP {
            let _at = self.start.wrapping_add((step * LINES_PER_STEP + line) * LINE);
            #[cfg(target_arch = "x86_64")]
            // SAFETY: asking for a line reads nothing that the program could see, wherever it lies.
            #[allow(unsafe_code)]
            unsafe {
                use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
                _mm_prefetch::<_MM_HINT_T1>(_at.cast());
            }
        }
    }
}
