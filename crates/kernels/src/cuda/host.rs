//! Whether operations on CPU tensors run through the device's kernels: for tests without a GPU.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::sync::LazyLock;

/// Turns it on for the process, set to anything but `0`.
const VARIABLE: &str = "EMBODIED_R_CUDA_HOST";

static PROCESS: LazyLock<bool> =
    LazyLock::new(|| std::env::var_os(VARIABLE).is_some_and(|value| value != "0"));

thread_local! {
    static THREAD: Cell<Option<bool>> = const { Cell::new(None) };
}

/// Whether it is on for the calling thread.
pub(crate) fn is_on() -> bool {
    THREAD.get().unwrap_or_else(|| *PROCESS)
}

/// Sets it for the calling thread while `act` runs.
pub(crate) fn set<T>(on: bool, act: impl FnOnce() -> T) -> T {
    struct Restore(Option<bool>);
    impl Drop for Restore {
        fn drop(&mut self) {
            THREAD.set(self.0);
        }
    }
    let _restore = Restore(THREAD.replace(Some(on)));
    act()
}

/// How threads of a block, and blocks, follow each other on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Order {
    /// From the first to the last.
    Ascending = 0,
    /// From the last to the first.
    Descending = 1,
    /// Up and down in turn, from barrier to barrier.
    Alternating = 2,
}

unsafe extern "C" {
    fn er_host_order(order: i32);
}

/// Sets the order of all later launches of the calling thread. No kernel's result may depend on it.
pub(crate) fn set_order(order: Order) {
    // SAFETY: it sets a number of the calling thread.
    unsafe { er_host_order(order as i32) }
}
