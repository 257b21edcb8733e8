//! CPU emulation of the CUDA kernels: the switch, for tests without a GPU.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex, PoisonError};

/// Enables emulation for the process, unless it is `0`.
const VARIABLE: &str = "EMBODIED_R_CUDA_HOST";

static PROCESS: LazyLock<bool> =
    LazyLock::new(|| std::env::var_os(VARIABLE).is_some_and(|value| value != "0"));

thread_local! {
    static THREAD: Cell<Option<bool>> = const { Cell::new(None) };
}

/// Whether emulation is on for the calling thread.
pub(crate) fn is_on() -> bool {
    THREAD.get().unwrap_or_else(|| *PROCESS)
}

/// Switches emulation for the calling thread while `act` runs.
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

/// `act` for another thread, with the emulation as it is set for the calling one.
pub(crate) fn inherited<T>(act: impl FnOnce() -> T + Send) -> impl FnOnce() -> T + Send {
    let on = THREAD.get();
    move || match on {
        Some(on) => set(on, act),
        None => act(),
    }
}

/// Launches of the process, by launcher.
static LAUNCHES: Mutex<BTreeMap<&'static str, usize>> = Mutex::new(BTreeMap::new());

/// Counts a launch.
pub(crate) fn count_launch(launcher: &'static str) {
    let mut launches = LAUNCHES.lock().unwrap_or_else(PoisonError::into_inner);
    *launches.entry(launcher).or_default() += 1;
}

/// Number of launches so far by launcher; GEMMs are `gemm`.
pub(crate) fn launches() -> BTreeMap<&'static str, usize> {
    LAUNCHES.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Emulated execution order of threads and blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum ThreadOrder {
    /// Ascending index.
    Ascending = 0,
    /// Descending index.
    Descending = 1,
    /// Alternates between barriers.
    Alternating = 2,
}

unsafe extern "C" {
    fn er_host_order(order: i32);
}

/// Sets the order of all later launches of the calling thread. No result may depend on it.
pub(crate) fn set_thread_order(order: ThreadOrder) {
    // SAFETY: it sets a thread-local value.
    unsafe { er_host_order(order as i32) }
}

#[cfg(test)]
mod tensor_cores;

#[cfg(test)]
mod tests {
    use std::process::Command;

    unsafe extern "C" {
        fn er_host_fault(which: i32) -> i32;
    }

    /// Selects the fault in the child process.
    const FAULT: &str = "EMBODIED_R_TEST_FAULT";

    /// Reruns a test of this module in a child process, and returns its stderr once it has aborted.
    pub(super) fn stderr_of_abort(test: &str, fault: i32) -> String {
        let test = format!("cuda::host::{test}");
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &test, "--nocapture"])
            .env(FAULT, fault.to_string())
            .output()
            .unwrap();
        assert_eq!(child.status.code(), None, "the process was not aborted");
        String::from_utf8_lossy(&child.stderr).into_owned()
    }

    #[test]
    fn a_faulty_kernel_aborts_the_process_with_its_name() {
        if let Ok(fault) = std::env::var(FAULT) {
            // SAFETY: the kernel uses its own memory.
            unsafe { er_host_fault(fault.parse().unwrap()) };
            return;
        }
        for (fault, kernel, message) in [
            (0, "half_a_barrier_kernel", "a barrier is not reached by all threads"),
            (1, "missing_lane_kernel", "names a lane that does not exist"),
            (2, "left_out_kernel", "reads a lane outside its mask"),
        ] {
            let test = "tests::a_faulty_kernel_aborts_the_process_with_its_name";
            let stderr = stderr_of_abort(test, fault);
            assert!(stderr.contains(kernel) && stderr.contains(message), "{stderr}");
        }
    }

    #[test]
    fn an_invalid_launch_configuration_is_an_error() {
        // More shared memory than a kernel has without asking, and no block.
        for fault in [3, 4] {
            // SAFETY: nothing is launched.
            let code = unsafe { er_host_fault(fault) };
            let error = crate::cuda::check_code("test", code).unwrap_err().to_string();
            assert!(error.contains("invalid"), "{error}");
        }
    }

    #[test]
    fn a_kernel_that_writes_past_its_output_is_detected() {
        let message = super::set(true, || {
            let device = candle_core::Device::Cpu;
            crate::cuda::create(&device, 3, crate::cuda::Dtype::F32, "test", |at| {
                // SAFETY: the output is followed by a guard.
                unsafe { at.cast::<f32>().add(3).write(1.0) };
                Ok(())
            })
        });
        assert!(message.unwrap_err().to_string().contains("past the end of its output"));
    }
}
