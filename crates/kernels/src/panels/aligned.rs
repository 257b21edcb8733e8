//! Buffers that start at a cache line: vectors that straddle two lines take twice as long.

use std::ops::{Deref, DerefMut};

/// Bytes of a cache line.
const LINE: usize = 64;

/// `len` elements of `buffer`, which grows as needed, from a cache line's start on.
pub(crate) fn aligned<T: Copy + Default>(buffer: &mut Vec<T>, len: usize) -> &mut [T] {
    buffer.resize(len + LINE / size_of::<T>(), T::default());
    let start = offset(buffer);
    &mut buffer[start..start + len]
}

/// Elements before the first cache line's start.
fn offset<T>(buffer: &[T]) -> usize {
    buffer.as_ptr().align_offset(LINE).min(LINE / size_of::<T>())
}

/// A slice that starts at a cache line.
#[derive(Debug)]
pub(super) struct Aligned<T> {
    buffer: Vec<T>,
    start: usize,
    len: usize,
}

impl<T: Copy + Default> Aligned<T> {
    /// `len` default values.
    pub(super) fn new(len: usize) -> Self {
        let buffer = vec![T::default(); len + LINE / size_of::<T>()];
        let start = offset(&buffer);
        Self { buffer, start, len }
    }
}

impl<T: Copy + Default> Clone for Aligned<T> {
    fn clone(&self) -> Self {
        let mut copy = Self::new(self.len);
        copy.copy_from_slice(self);
        copy
    }
}

impl<T> Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.buffer[self.start..self.start + self.len]
    }
}

impl<T> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.buffer[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_start_at_a_cache_line_and_keep_their_values() {
        for len in [0, 1, 63, 1000, 100_000] {
            let mut scratch = vec![7_u16];
            let part = aligned(&mut scratch, len);
            assert_eq!((part.len(), part.as_ptr().align_offset(LINE)), (len, 0));
            let mut all = Aligned::<f32>::new(len);
            all.iter_mut().enumerate().for_each(|(i, x)| *x = i as f32);
            let copy = all.clone();
            drop(all);
            assert_eq!((copy.len(), copy.as_ptr().align_offset(LINE)), (len, 0));
            assert!(copy.iter().enumerate().all(|(i, x)| *x == i as f32));
        }
    }
}
