//! Where scores are in memory.

use std::ffi::c_void;

use crate::cuda::Dtype;

pub(super) const OP: &str = "attention";

/// Row stride of scores: padded to a multiple of 8 for aligned GEMMs.
pub(super) fn stride(keys: usize) -> usize {
    keys.next_multiple_of(8)
}

/// Pointer to the `index`-th element.
pub(super) fn at(data: *const c_void, index: usize, dtype: Dtype) -> *const c_void {
    data.wrapping_byte_add(index * dtype.bytes())
}

pub(super) fn at_mut(data: *mut c_void, index: usize, dtype: Dtype) -> *mut c_void {
    data.wrapping_byte_add(index * dtype.bytes())
}
