//! Whether operations on CPU tensors run through the device's kernels: for tests without a GPU.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

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

/// Kernels and products that the process has launched.
static LAUNCHES: AtomicUsize = AtomicUsize::new(0);

/// Notes that one more is launched.
pub(crate) fn count_launch() {
    LAUNCHES.fetch_add(1, Ordering::Relaxed);
}

/// How many were launched so far.
pub(crate) fn launches() -> usize {
    LAUNCHES.load(Ordering::Relaxed)
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

#[cfg(test)]
mod tests {
    use std::process::Command;

    unsafe extern "C" {
        fn er_host_fault(which: i32) -> i32;
    }

    /// Which fault a child of the test shall run into.
    const FAULT: &str = "EMBODIED_R_TEST_FAULT";

    /// Runs this test once more in a process of its own, and gives what that said when it ended by a signal.
    fn said_at_the_end(test: &str, fault: i32) -> String {
        let test = format!("cuda::host::tests::{test}");
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &test, "--nocapture"])
            .env(FAULT, fault.to_string())
            .output()
            .unwrap();
        assert_eq!(child.status.code(), None, "the process ended by itself");
        String::from_utf8_lossy(&child.stderr).into_owned()
    }

    #[test]
    fn a_fault_of_a_kernel_ends_the_process_with_its_name() {
        if let Ok(fault) = std::env::var(FAULT) {
            // SAFETY: the kernel's memory is its own.
            unsafe { er_host_fault(fault.parse().unwrap()) };
            return;
        }
        for (fault, kernel, told) in [
            (0, "half_a_barrier_kernel", "a barrier is not reached by all threads"),
            (1, "missing_lane_kernel", "names a lane that is not there"),
            (2, "left_out_kernel", "reads a lane outside its mask"),
        ] {
            let said = said_at_the_end("a_fault_of_a_kernel_ends_the_process_with_its_name", fault);
            assert!(said.contains(kernel) && said.contains(told), "{said}");
        }
    }

    #[test]
    fn a_launch_that_no_gpu_takes_is_an_error() {
        // SAFETY: nothing is launched.
        let code = unsafe { er_host_fault(3) };
        assert!(crate::cuda::check_code("test", code).unwrap_err().to_string().contains("invalid"));
    }

    #[test]
    fn a_kernel_that_writes_beyond_its_result_is_told() {
        let told = super::set(true, || {
            let device = candle_core::Device::Cpu;
            crate::cuda::create(&device, 3, crate::cuda::Dtype::F32, "test", |at| {
                // SAFETY: there is a guard behind the result.
                unsafe { at.cast::<f32>().add(3).write(1.0) };
                Ok(())
            })
        });
        assert!(told.unwrap_err().to_string().contains("beyond the end of its result"));
    }
}
