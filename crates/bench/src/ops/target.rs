//! Where operations run.

#[cfg(any(feature = "cuda", feature = "cuda-host"))]
use candle_core::Device;

/// What operations run on.
#[derive(Debug, Clone)]
pub enum Target {
    /// The CPU.
    Cpu,
    /// A GPU; in a test build the CPU, which emulates its kernels.
    #[cfg(any(feature = "cuda", feature = "cuda-host"))]
    Device(Device),
}
