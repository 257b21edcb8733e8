//! What is known of GPUs.

/// A GPU's name and memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceMemory {
    /// Product name.
    pub name: String,
    /// Free memory, including what this process's pool holds unused.
    pub free_bytes: u64,
    /// Total memory.
    pub total_bytes: u64,
    /// Peak memory of this process's tensors since the last [`super::reset_peak_memory`]; `None` if the driver does not
    /// count it, for lack of memory pools.
    pub peak_bytes: Option<u64>,
}

/// GPUs of this machine, as the driver reports them.
#[cfg(feature = "cuda")]
#[derive(Debug, Clone)]
pub struct Gpus {
    /// In ordinal order.
    pub gpus: Vec<Gpu>,
    /// Newest CUDA version that the driver supports, major and minor.
    pub driver: (i32, i32),
    /// Version of the CUDA runtime library in use.
    pub runtime: (i32, i32),
}

/// A GPU.
#[cfg(feature = "cuda")]
#[derive(Debug, Clone)]
pub struct Gpu {
    /// Product name.
    pub name: String,
    /// Total memory.
    pub memory_bytes: u64,
    /// Major and minor.
    pub compute_capability: (i32, i32),
}
