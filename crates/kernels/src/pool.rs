//! The thread pool, kept awake while short parts of work follow each other.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::Device;
use rayon::Yield;

/// Whether the pool is being kept awake. One at a time: a thread that waits for its own part could otherwise begin to
/// keep itself awake for another's.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Sets a flag when it is dropped, after a panic too.
struct AtEnd<'a> {
    flag: &'a AtomicBool,
    value: bool,
}

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        self.flag.store(self.value, Ordering::Release);
    }
}

/// Runs `act` within the thread pool. Its other threads look for work meanwhile and do not go to sleep: waking one takes
/// longer than many a part of a decoding step. Where a GPU computes there is no work for them, and `act` is run as it is.
pub fn awake<R: Send>(device: &Device, act: impl FnOnce() -> R + Send) -> R {
    if !device.is_cpu() {
        return act();
    }
    if TAKEN.swap(true, Ordering::Acquire) {
        return rayon::scope(|_| act());
    }
    let _free = AtEnd { flag: &TAKEN, value: false };
    let done = AtomicBool::new(false);
    rayon::scope(|scope| {
        let _done = AtEnd { flag: &done, value: true };
        for _ in 1..rayon::current_num_threads() {
            // These are taken by others before anything that `act` gives away: the oldest is stolen first.
            scope.spawn(|_| look_for_work(&done));
        }
        act()
    })
}

fn look_for_work(done: &AtomicBool) {
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
    fn work_is_shared_out_as_ever_by_many_at_once_and_within_each_other() {
        let want: u64 = (0..10_000).map(|i| i % 7).sum();
        // Threads enough to wait for each other.
        let pool = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap();
        std::thread::scope(|threads| {
            for _ in 0..6 {
                threads.spawn(|| {
                    for _ in 0..200 {
                        let twice = || awake(&CPU, || (sum(10_000), awake(&CPU, || sum(10_000))));
                        let twice = pool.install(twice);
                        assert_eq!(twice, (want, want));
                    }
                });
            }
        });
    }

    #[test]
    fn a_panic_lets_the_threads_go() {
        for _ in 0..3 {
            let caught = std::panic::catch_unwind(|| awake(&CPU, || assert_eq!(sum(10), 0)));
            assert!(caught.is_err());
        }
        assert_eq!(awake(&CPU, || sum(8)), 21);
    }
}
