//! The global allocator, as the program has it.

use libmimalloc_sys::{mi_option_set_default, mi_option_t};
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// `mi_option_purge_delay` of `mimalloc.h`, which the bindings do not name.
const PURGE_DELAY: mi_option_t = 15;

/// Keeps the pages of freed tensors for reuse. Returned to the operating system, they would be zeroed and mapped again
/// in every training step, which takes almost half of its time.
///
/// The environment variable `MIMALLOC_PURGE_DELAY` (milliseconds) takes precedence.
pub(crate) fn keep_freed_pages() {
    // SAFETY: the option exists in the library, and setting it has no other effect.
    #[allow(unsafe_code)]
    unsafe {
        mi_option_set_default(PURGE_DELAY, -1);
    }
}
