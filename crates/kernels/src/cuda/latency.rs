//! The time of the smallest calls, which bounds decoding.

use std::time::Instant;

use candle_core::{DType, Device, Tensor};
#[cfg(feature = "cuda")]
use cudarc::driver::sys::CUevent_flags::CU_EVENT_DISABLE_TIMING;

use super::timer::Mark;
#[cfg(feature = "cuda")]
use super::timer::failed;
use super::{Dtype, create, linear, memory, upload_values};
use crate::device::Latency;
use crate::error::Result;

const OP: &str = "latency";

/// Measured calls of each kind; fewer than a launch queue holds.
const CALLS: u32 = 500;

/// Calls before them, which load kernels and choose algorithms.
const WARMUP: u32 = 20;

/// See [`crate::device::latencies`].
pub(crate) fn latencies(device: &Device) -> Result<Vec<Latency>> {
    let one = memory::zeros(device, 1, Dtype::F32, OP)?;
    let small = memory::zeros(device, (64, 64), Dtype::Bf16, OP)?;
    let of = |call, act: &mut dyn FnMut() -> Result<()>| latency(device, call, act);
    let calls = [
        of("launch", &mut || memory::scale(&one, 1.0, OP))?,
        of("allocation of 1 MiB", &mut || {
            create(device, 1 << 18, Dtype::F32, OP, |_| Ok(())).map(drop)
        })?,
        of("cuBLASLt 64x64x64", &mut || {
            linear::forward(&small, &small, None, Dtype::Bf16, OP).map(drop)
        })?,
        of("upload of 256 bytes", &mut || upload_values(&[0_u32; 64], device).map(drop))?,
        of("read-back of 4 bytes", &mut || read_back(&one))?,
    ];
    Ok(calls.into_iter().chain(events(device)?).collect())
}

/// Of events, which only GPUs have.
#[cfg(feature = "cuda")]
fn events(device: &Device) -> Result<Vec<Latency>> {
    let Device::Cuda(gpu) = device else { return Ok(Vec::new()) };
    let stream = gpu.cuda_stream();
    let event = stream.record_event(Some(CU_EVENT_DISABLE_TIMING)).map_err(failed)?;
    let record = &mut || event.record(&stream).map_err(failed);
    let record = latency(device, "event record", record)?;
    let query = &mut || event.try_is_complete().map(drop).map_err(failed);
    Ok(vec![record, latency(device, "event query", query)?])
}

#[cfg(not(feature = "cuda"))]
fn events(_: &Device) -> Result<Vec<Latency>> {
    Ok(Vec::new())
}

fn read_back(tensor: &Tensor) -> Result<()> {
    Ok(tensor.to_dtype(DType::F32)?.to_device(&Device::Cpu).map(drop)?)
}

fn latency(
    device: &Device,
    call: &'static str,
    act: &mut dyn FnMut() -> Result<()>,
) -> Result<Latency> {
    (0..WARMUP).try_for_each(|_| act())?;
    device.synchronize()?;
    let (first, began) = (Mark::new(device)?, Instant::now());
    (0..CALLS).try_for_each(|_| act())?;
    let host = began.elapsed();
    let on_device = first.until(&Mark::new(device)?)?;
    Ok(Latency { call, host: host / CALLS, device: on_device / CALLS })
}
