//! The global allocator.

use libmimalloc_sys::{mi_option_set_default, mi_option_t};
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// `mi_option_purge_delay` of `mimalloc.h`, which the bindings do not name.
const PURGE_DELAY: mi_option_t = 15;

/// How long freed pages are kept by a server, in milliseconds: longer than its steps, which reuse them.
const SERVER_PURGE_DELAY_MS: i64 = 1000;

/// Keeps the pages of freed tensors for reuse. Returned to the operating system, they would be zeroed and mapped again
/// in every training step, which takes almost half of its time.
///
/// The environment variable `MIMALLOC_PURGE_DELAY` (milliseconds) takes precedence.
pub(crate) fn keep_freed_pages() {
    set_purge_delay(-1);
}

/// Returns freed pages to the operating system after a while: a server must not keep the memory of its largest request.
///
/// The environment variable `MIMALLOC_PURGE_DELAY` (milliseconds) takes precedence.
pub(crate) fn return_freed_pages() {
    set_purge_delay(SERVER_PURGE_DELAY_MS);
}

fn set_purge_delay(ms: i64) {
    // SAFETY: the option exists in the library, and setting it has no other effect.
    #[allow(unsafe_code)]
    unsafe {
        mi_option_set_default(PURGE_DELAY, ms);
    }
}

#[cfg(test)]
mod tests {
    use libmimalloc_sys::mi_option_get;

    use super::*;

    #[test]
    fn the_option_number_matches_the_library() {
        // SAFETY: the option exists in the library.
        #[allow(unsafe_code)]
        let delay = || unsafe { mi_option_get(PURGE_DELAY) };
        if std::env::var_os("MIMALLOC_PURGE_DELAY").is_none() {
            // The library's default, which no other option shares.
            assert!([10, 1000].contains(&delay()), "{}", delay());
            keep_freed_pages();
            assert_eq!(delay(), -1);
            return_freed_pages();
            assert_eq!(delay(), SERVER_PURGE_DELAY_MS);
        }
    }
}
