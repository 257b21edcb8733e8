//! The program's allocator.

use libmimalloc_sys::{mi_option_set_default, mi_option_t};
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// `mi_option_purge_delay` of `mimalloc.h`, for which the bindings have no name.
const PURGE_DELAY: mi_option_t = 15;

/// Keeps the pages of freed tensors, which the next ones need at once: given back to the system, they
/// would be cleared and mapped again in every step of training, at almost half of its time.
///
/// `MIMALLOC_PURGE_DELAY` in the environment (milliseconds) has the last word.
pub(crate) fn keep_freed_pages() {
    // SAFETY: the option is one of the library's, and setting it touches nothing else.
    #[allow(unsafe_code)]
    unsafe {
        mi_option_set_default(PURGE_DELAY, -1);
    }
}

#[cfg(test)]
mod tests {
    use libmimalloc_sys::mi_option_get;

    use super::*;

    #[test]
    fn the_option_is_the_one_that_the_library_has() {
        // SAFETY: the option is one of the library's.
        #[allow(unsafe_code)]
        let delay = || unsafe { mi_option_get(PURGE_DELAY) };
        if std::env::var_os("MIMALLOC_PURGE_DELAY").is_none() {
            // What the library has by default, and no other option has.
            assert!([10, 1000].contains(&delay()), "{}", delay());
            keep_freed_pages();
            assert_eq!(delay(), -1);
        }
    }
}
