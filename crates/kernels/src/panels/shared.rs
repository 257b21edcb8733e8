//! Results that several threads write.

use std::marker::PhantomData;

/// A slice that several threads write at disjoint ranges.
pub(crate) struct Shared<'a> {
    start: *mut f32,
    len: usize,
    borrowed: PhantomData<&'a mut [f32]>,
}

// SAFETY: writes are disjoint, as the callers of `slice` guarantee.
#[allow(unsafe_code)]
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    /// Shares a slice.
    pub(crate) fn new(data: &'a mut [f32]) -> Self {
        Self { start: data.as_mut_ptr(), len: data.len(), borrowed: PhantomData }
    }

    /// `len` elements from `start` on.
    ///
    /// # Safety
    /// No other slice in use at the same time overlaps it.
    ///
    /// # Panics
    /// If the range is out of bounds.
    #[allow(unsafe_code, clippy::mut_from_ref)]
    pub(crate) unsafe fn slice(&self, start: usize, len: usize) -> &mut [f32] {
        assert!(start <= self.len && len <= self.len - start, "the range is out of bounds");
        // SAFETY: the range lies within the slice, which is mutably borrowed for as long as this exists; the caller
        // guarantees that no other slice overlaps.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}
