//! Keeps the thread pool spinning through short parallel regions.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::Device;
use rayon::Yield;

/// Whether workers are spinning. Only one caller at a time: a thread that waits for its own work could otherwise
/// start spinning for another caller.
static SPINNING: AtomicBool = AtomicBool::new(false);

/// Sets a flag on drop, including on panic.
struct SetOnDrop<'a> {
    flag: &'a AtomicBool,
    value: bool,
}

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.flag.store(self.value, Ordering::Release);
    }
}

/// Runs `act` in the thread pool with idle workers spinning instead of sleeping: waking a thread takes longer than
/// many parallel regions of a decoding step. On a GPU `act` runs directly.
pub fn with_spinning_workers<R: Send>(device: &Device, act: impl FnOnce() -> R + Send) -> R {
    if !device.is_cpu() {
        return act();
    }
    #[cfg(feature = "cuda-host")]
    let act = crate::cuda::host::inherited(act);
    if SPINNING.swap(true, Ordering::Acquire) {
        return rayon::scope(|_| act());
    }
    let _free = SetOnDrop { flag: &SPINNING, value: false };
    let done = AtomicBool::new(false);
    rayon::scope(|scope| {
        let _done = SetOnDrop { flag: &done, value: true };
        for _ in 1..rayon::current_num_threads() {
            // Other threads steal these before any work of `act`: the oldest is stolen first.
            scope.spawn(|_| spin_for_work(&done));
        }
        act()
    })
}

fn spin_for_work(done: &AtomicBool) {
    while !done.load(Ordering::Acquire) {
        if rayon::yield_now() != Some(Yield::Executed) {
            spin_loop();
        }
    }
}

#[cfg(test)]
mod tests {
    use rayon::prelude::*;

    use super::*;

    const CPU: Device = Device::Cpu;

    fn sum(n: u64) -> u64 {
        (0..n).into_par_iter().map(|i| i % 7).sum()
    }

    #[test]
    fn concurrent_and_nested_calls_give_the_right_sums() {
        let expected: u64 = (0..10_000).map(|i| i % 7).sum();
        // Several workers, so that they wait for each other.
        let pool = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap();
        std::thread::scope(|threads| {
            for _ in 0..6 {
                threads.spawn(|| {
                    for _ in 0..200 {
                        let twice = || {
                            with_spinning_workers(&CPU, || {
                                (sum(10_000), with_spinning_workers(&CPU, || sum(10_000)))
                            })
                        };
                        let twice = pool.install(twice);
                        assert_eq!(twice, (expected, expected));
                    }
                });
            }
        });
    }

    #[test]
    fn a_panic_releases_the_workers() {
        for _ in 0..3 {
            let caught =
                std::panic::catch_unwind(|| with_spinning_workers(&CPU, || assert_eq!(sum(10), 0)));
            assert!(caught.is_err());
        }
        assert_eq!(with_spinning_workers(&CPU, || sum(8)), 21);
    }
}
