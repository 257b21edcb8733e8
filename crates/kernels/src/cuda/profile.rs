//! Host and device time by launcher.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use candle_core::Device;

use super::timer::Mark;
use crate::device::LauncherTime;
use crate::error::{Error, Result};

static IS_ON: AtomicBool = AtomicBool::new(false);
static RECORDING: Mutex<Option<Recording>> = Mutex::new(None);

/// The launches since a profile began.
struct Recording {
    device: Device,
    launches: Vec<Launch>,
}

/// A launch, with a mark on the stream behind it.
struct Launch {
    launcher: &'static str,
    host: Duration,
    end: Result<Mark>,
}

fn recording() -> MutexGuard<'static, Option<Recording>> {
    RECORDING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `launch` of a kernel or a product, and records it if a profile is on.
pub(crate) fn launched<T>(launcher: &'static str, launch: impl FnOnce() -> T) -> T {
    #[cfg(feature = "cuda-host")]
    super::host::count_launch(launcher);
    recorded(launcher, launch)
}

/// Runs `launch`, and records it if a profile is on.
pub(crate) fn recorded<T>(launcher: &'static str, launch: impl FnOnce() -> T) -> T {
    if !IS_ON.load(Ordering::Relaxed) {
        return launch();
    }
    let began = Instant::now();
    let result = launch();
    let host = began.elapsed();
    if let Some(recording) = recording().as_mut() {
        let end = Mark::new(&recording.device);
        recording.launches.push(Launch { launcher, host, end });
    }
    result
}

/// See [`crate::device::profiled`].
pub(crate) fn profiled<E: From<Error>>(
    device: &Device,
    act: impl FnOnce() -> Result<(), E>,
) -> Result<Vec<LauncherTime>, E> {
    let first = Mark::new(device)?;
    *recording() = Some(Recording { device: device.clone(), launches: Vec::new() });
    IS_ON.store(true, Ordering::Relaxed);
    let done = act();
    IS_ON.store(false, Ordering::Relaxed);
    let recorded = recording().take();
    done?;
    let (mut last, mut times) = (first, Vec::<LauncherTime>::new());
    for Launch { launcher, host, end } in recorded.into_iter().flat_map(|of| of.launches) {
        let known = times.iter().position(|time| time.launcher == launcher);
        let index = known.unwrap_or_else(|| {
            times.push(LauncherTime { launcher, ..LauncherTime::default() });
            times.len() - 1
        });
        let end = end?;
        let time = &mut times[index];
        time.launches += 1;
        time.host += host;
        time.device += last.until(&end)?;
        last = end;
    }
    Ok(times)
}
