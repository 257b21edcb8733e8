//! Time between two events on a GPU's stream.

use std::time::Duration;

use candle_core::CudaDevice;
use cudarc::driver::DriverError;
use cudarc::driver::sys::CUevent_flags::CU_EVENT_DEFAULT;

use crate::error::{Error, Result};

const OP: &str = "time";

/// See [`crate::device::timed`].
pub(crate) fn timed(gpu: &CudaDevice, act: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let stream = gpu.cuda_stream();
    // The default event of cudarc does not record times.
    let event = || stream.record_event(Some(CU_EVENT_DEFAULT)).map_err(failed);
    let began = event()?;
    act()?;
    let ended = event()?;
    let milliseconds = began.elapsed_ms(&ended).map_err(failed)?;
    Ok(Duration::from_secs_f64(f64::from(milliseconds.max(0.0)) / 1e3))
}

fn failed(error: DriverError) -> Error {
    Error::Device { op: OP, what: error.to_string() }
}
