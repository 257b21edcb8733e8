//! Devices.
//!
//! An operation runs where its tensors are. Feature `cuda` adds GPUs. Feature `cuda-host` compiles the same kernels
//! for the CPU (CPU emulation of the CUDA kernels, for tests without a GPU): operations on CPU tensors use them when
//! `EMBODIED_R_CUDA_HOST=1` is set, or within `with_cuda_emulation`.

mod gpu;
mod times;

#[cfg(feature = "cuda-host")]
pub use crate::cuda::host::ThreadOrder;
pub use gpu::DeviceMemory;
#[cfg(feature = "cuda")]
pub use gpu::{Gpu, Gpus};
pub use times::{Latency, LauncherTime};

/// Whether operations on tensors of `device` run CUDA kernels of this crate.
pub fn has_kernels(device: &candle_core::Device) -> bool {
    #[cfg(device)]
    return crate::cuda::is_device(device);
    #[cfg(not(device))]
    return matches!(device, candle_core::Device::Cuda(_));
}

/// Opens a GPU with a single stream, on which all work is ordered.
///
/// # Errors
/// No such GPU.
#[cfg(feature = "cuda")]
#[allow(unsafe_code)]
pub fn cuda(ordinal: usize) -> crate::Result<candle_core::Device> {
    let device = candle_core::Device::new_cuda_with_stream(ordinal)?;
    if let candle_core::Device::Cuda(cuda) = &device {
        // SAFETY: all tensors of the device are allocated, used and freed on its one stream; users of other streams
        // synchronize explicitly.
        unsafe { cuda.disable_event_tracking() };
        crate::cuda::inventory::keep_freed(cuda)?;
    }
    Ok(device)
}

/// Resets the peak of [`memory`] to what is in use; does nothing on the CPU.
///
/// # Errors
/// The driver call failed.
pub fn reset_peak_memory(device: &candle_core::Device) -> crate::Result<()> {
    match device {
        #[cfg(feature = "cuda")]
        candle_core::Device::Cuda(cuda) => crate::cuda::inventory::reset_peak(cuda),
        _ => Ok(()),
    }
}

/// The memory of a GPU; `None` for the CPU.
///
/// # Errors
/// The driver call failed.
pub fn memory(device: &candle_core::Device) -> crate::Result<Option<DeviceMemory>> {
    match device {
        #[cfg(feature = "cuda")]
        candle_core::Device::Cuda(cuda) => crate::cuda::inventory::memory(cuda).map(Some),
        _ => Ok(None),
    }
}

/// The time that the device needs for the work that `act` starts: between two CUDA events on a GPU, wall time elsewhere.
///
/// # Errors
/// The driver call failed, or the error of `act`.
pub fn timed(
    device: &candle_core::Device,
    act: impl FnOnce() -> crate::Result<()>,
) -> crate::Result<std::time::Duration> {
    #[cfg(device)]
    return crate::cuda::timer::timed(device, act);
    #[cfg(not(device))]
    {
        let _ = device;
        let began = std::time::Instant::now();
        act()?;
        Ok(began.elapsed())
    }
}

/// Runs `act`, and returns the host's and the device's time of its launches, by launcher. The device's time of a launch
/// reaches from the end of the one before, so copies count with the launch that follows them. Events between launches
/// cost a microsecond or two each. One profile at a time in a process.
///
/// # Errors
/// The driver call failed, or the error of `act`.
#[cfg(device)]
pub fn profiled<E: From<crate::Error>>(
    device: &candle_core::Device,
    act: impl FnOnce() -> Result<(), E>,
) -> Result<Vec<LauncherTime>, E> {
    crate::cuda::stall::stall(device)?;
    crate::cuda::profile::profiled(device, act)
}

/// Measures the smallest calls.
///
/// # Errors
/// The driver call failed.
#[cfg(device)]
pub fn latencies(device: &candle_core::Device) -> crate::Result<Vec<Latency>> {
    crate::cuda::latency::latencies(device)
}

/// Bytes of a GPU's L2 cache; `None` for the CPU.
///
/// # Errors
/// The driver call failed.
pub fn l2_cache_bytes(device: &candle_core::Device) -> crate::Result<Option<u64>> {
    match device {
        #[cfg(feature = "cuda")]
        candle_core::Device::Cuda(cuda) => crate::cuda::inventory::l2_cache_bytes(cuda).map(Some),
        _ => Ok(None),
    }
}

/// Queries the driver for the machine's GPUs.
///
/// # Errors
/// No working driver, or no GPU.
#[cfg(feature = "cuda")]
pub fn gpus() -> crate::Result<Gpus> {
    crate::cuda::inventory::gpus()
}

/// Versions of the CUDA libraries that this program is linked with, by the names of their files; needs no driver.
#[cfg(feature = "cuda")]
pub fn library_versions() -> [(&'static str, [i32; 3]); 3] {
    crate::cuda::inventory::library_versions()
}

/// Runs CPU tensors through the emulated CUDA kernels while `act` runs, on the calling thread.
#[cfg(feature = "cuda-host")]
pub fn with_cuda_emulation<T>(act: impl FnOnce() -> T) -> T {
    crate::cuda::host::set(true, act)
}

/// Runs CPU tensors through the CPU operations while `act` runs, on the calling thread.
#[cfg(feature = "cuda-host")]
pub fn without_cuda_emulation<T>(act: impl FnOnce() -> T) -> T {
    crate::cuda::host::set(false, act)
}

/// Runs `act` on the calling thread with CPU tensors on the CPU, whatever the emulation.
pub fn with_cpu_kernels<T>(act: impl FnOnce() -> T) -> T {
    #[cfg(feature = "cuda-host")]
    return without_cuda_emulation(act);
    #[cfg(not(feature = "cuda-host"))]
    act()
}

/// Runs `act`, which uses tensors of a device; with the emulation, CPU tensors are such tensors.
pub fn with_device_kernels<T>(act: impl FnOnce() -> T) -> T {
    #[cfg(feature = "cuda-host")]
    return with_cuda_emulation(act);
    #[cfg(not(feature = "cuda-host"))]
    act()
}

/// Whether CPU tensors of the calling thread run through the emulated CUDA kernels.
#[cfg(feature = "cuda-host")]
pub fn emulates_cuda() -> bool {
    crate::cuda::host::is_on()
}

/// Number of launches by the process so far, by the launcher's name in `cuda`; GEMMs are `gemm`.
#[cfg(feature = "cuda-host")]
pub fn launches() -> std::collections::BTreeMap<&'static str, usize> {
    crate::cuda::host::launches()
}

/// Sets the emulated execution order of threads and blocks, for the calling thread. No result may depend on it.
#[cfg(feature = "cuda-host")]
pub fn set_thread_order(order: ThreadOrder) {
    crate::cuda::host::set_thread_order(order);
}

/// `on_device!(x, module::operation(…))`: returns the CUDA operation's result if `x` is on the device.
macro_rules! on_device {
    ($tensor:expr, $($operation:tt)+) => {
        #[cfg(device)]
        if $crate::cuda::on($tensor) {
            return $crate::cuda::$($operation)+;
        }
    };
}
pub(crate) use on_device;
