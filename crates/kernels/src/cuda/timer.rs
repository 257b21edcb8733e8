//! Time between two points of a device's work.

use std::time::{Duration, Instant};

use candle_core::Device;
#[cfg(feature = "cuda")]
use cudarc::driver::sys::CUevent_flags::CU_EVENT_DEFAULT;
#[cfg(feature = "cuda")]
use cudarc::driver::{CudaEvent, DriverError};

use crate::error::Result;

/// A point of the work queued on a device: an event on a GPU's stream, the current time elsewhere.
pub(crate) enum Mark {
    #[cfg(feature = "cuda")]
    Event(CudaEvent),
    Now(Instant),
}

impl Mark {
    /// Marks the end of what is queued so far.
    pub(crate) fn new(device: &Device) -> Result<Self> {
        match device {
            #[cfg(feature = "cuda")]
            Device::Cuda(gpu) => {
                // The default event of cudarc does not record times.
                let event = gpu.cuda_stream().record_event(Some(CU_EVENT_DEFAULT));
                event.map(Self::Event).map_err(failed)
            }
            _ => Ok(Self::Now(Instant::now())),
        }
    }

    /// The time from this point to a later one of the same device; waits until the device has reached it.
    pub(crate) fn until(&self, end: &Self) -> Result<Duration> {
        match (self, end) {
            #[cfg(feature = "cuda")]
            (Self::Event(began), Self::Event(ended)) => {
                let milliseconds = began.elapsed_ms(ended).map_err(failed)?;
                Ok(Duration::from_secs_f64(f64::from(milliseconds.max(0.0)) / 1e3))
            }
            (Self::Now(began), Self::Now(ended)) => Ok(ended.saturating_duration_since(*began)),
            #[cfg(feature = "cuda")]
            _ => Ok(Duration::ZERO),
        }
    }
}

/// See [`crate::device::timed`].
pub(crate) fn timed(device: &Device, act: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let began = Mark::new(device)?;
    act()?;
    began.until(&Mark::new(device)?)
}

#[cfg(feature = "cuda")]
pub(super) fn failed(error: DriverError) -> crate::error::Error {
    crate::error::Error::Device { op: "time", what: error.to_string() }
}
