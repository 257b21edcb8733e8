//! Where operations run.
//!
//! An operation runs where its tensors are. Feature `cuda` adds GPUs. Feature `cuda-host` compiles the same
//! kernels for the CPU, to test them where there is no GPU: operations on CPU tensors take them where
//! `EMBODIED_R_CUDA_HOST=1` is in the environment, or within `through_kernels`.

#[cfg(feature = "cuda-host")]
pub use crate::cuda::host::Order;

/// Whether operations on tensors of `device` are kernels of this crate's for GPUs.
pub fn has_kernels(device: &candle_core::Device) -> bool {
    #[cfg(device)]
    return crate::cuda::is_device(device);
    #[cfg(not(device))]
    return matches!(device, candle_core::Device::Cuda(_));
}

/// Opens a GPU for the operations of this crate: with one stream, on which all of its work follows each other.
///
/// # Errors
/// There is no such GPU.
#[cfg(feature = "cuda")]
#[allow(unsafe_code)]
pub fn cuda(ordinal: usize) -> crate::Result<candle_core::Device> {
    let device = candle_core::Device::new_cuda_with_stream(ordinal)?;
    if let candle_core::Device::Cuda(cuda) = &device {
        // SAFETY: all tensors of the device are made, used and freed on its one stream; who uses another
        // one makes it wait by itself.
        unsafe { cuda.disable_event_tracking() };
        crate::cuda::gpus::keep_freed(cuda)?;
    }
    Ok(device)
}

/// A GPU's name and memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceMemory {
    /// Its maker's name for it.
    pub name: String,
    /// What is to be had, with what this process has freed.
    pub free_bytes: u64,
    /// All of it.
    pub total_bytes: u64,
    /// The most that this process's tensors have taken.
    pub peak_bytes: u64,
}

/// The memory of a GPU; none for the processor.
///
/// # Errors
/// The driver does not tell.
pub fn memory(device: &candle_core::Device) -> crate::Result<Option<DeviceMemory>> {
    match device {
        #[cfg(feature = "cuda")]
        candle_core::Device::Cuda(cuda) => crate::cuda::gpus::memory(cuda).map(Some),
        _ => Ok(None),
    }
}

/// What the driver tells of this machine's GPUs.
#[cfg(feature = "cuda")]
#[derive(Debug, Clone)]
pub struct Gpus {
    /// In the order of their ordinals.
    pub gpus: Vec<Gpu>,
    /// The newest CUDA that the driver can run, major and minor.
    pub driver: (i32, i32),
    /// That of the runtime library in use.
    pub runtime: (i32, i32),
}

/// A GPU.
#[cfg(feature = "cuda")]
#[derive(Debug, Clone)]
pub struct Gpu {
    /// Its maker's name for it.
    pub name: String,
    /// Its memory.
    pub memory_bytes: u64,
    /// Major and minor.
    pub compute_capability: (i32, i32),
}

/// Asks the driver for the machine's GPUs.
///
/// # Errors
/// There is no driver that runs, or no GPU.
#[cfg(feature = "cuda")]
pub fn gpus() -> crate::Result<Gpus> {
    crate::cuda::gpus::gpus()
}

/// Lets operations on CPU tensors run through the device's kernels while `act` runs, on the calling thread.
#[cfg(feature = "cuda-host")]
pub fn through_kernels<T>(act: impl FnOnce() -> T) -> T {
    crate::cuda::host::set(true, act)
}

/// Lets operations on CPU tensors run as they do without the device's kernels, on the calling thread.
#[cfg(feature = "cuda-host")]
pub fn without_kernels<T>(act: impl FnOnce() -> T) -> T {
    crate::cuda::host::set(false, act)
}

/// Kernels and products that the process has launched so far.
#[cfg(feature = "cuda-host")]
pub fn launches() -> usize {
    crate::cuda::host::launches()
}

/// Sets in which order the threads and blocks of a kernel follow each other, for the calling thread. No
/// result may depend on it.
#[cfg(feature = "cuda-host")]
pub fn set_order(order: Order) {
    crate::cuda::host::set_order(order);
}

/// `on_device!(x, module::operation(…))`: returns what the device's operation gives if `x` is on the device.
macro_rules! on_device {
    ($tensor:expr, $($operation:tt)+) => {
        #[cfg(device)]
        if $crate::cuda::on($tensor) {
            return $crate::cuda::$($operation)+;
        }
    };
}
pub(crate) use on_device;
