//! The machine's GPUs and their memory.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::sync::Arc;

use candle_core::CudaDevice;
use cudarc::cublas::sys as cublas;
use cudarc::cublaslt::sys as cublaslt;
use cudarc::curand::sys as curand;
use cudarc::driver::DriverError;
use cudarc::driver::result::{device, init, mem_get_info, mem_pool};
use cudarc::driver::sys::{
    CUdevice_attribute as Attribute, CUmemPool_attribute as PoolAttribute, CUmemoryPool,
    cuDriverGetVersion,
};

use crate::device::{DeviceMemory, Gpu, Gpus};
use crate::error::{Error, Result};

const OP: &str = "devices";

unsafe extern "C" {
    fn er_runtime_version() -> c_int;
}

pub(crate) fn gpus() -> Result<Gpus> {
    init().map_err(device_error)?;
    let count = device::get_count().map_err(device_error)?;
    let gpus: std::result::Result<Vec<Gpu>, DriverError> = (0..count).map(gpu).collect();
    let mut driver = 0;
    // SAFETY: it writes one integer.
    unsafe { cuDriverGetVersion(&raw mut driver) }.result().map_err(device_error)?;
    // SAFETY: it has no arguments and returns an integer.
    let runtime = unsafe { er_runtime_version() };
    Ok(Gpus {
        gpus: gpus.map_err(device_error)?,
        driver: version(driver),
        runtime: version(runtime),
    })
}

fn gpu(ordinal: c_int) -> std::result::Result<Gpu, DriverError> {
    let device = device::get(ordinal)?;
    // SAFETY: the driver returned the device.
    let attribute = |attribute| unsafe { device::get_attribute(device, attribute) };
    Ok(Gpu {
        name: device::get_name(device)?,
        // SAFETY: as above.
        memory_bytes: unsafe { device::total_mem(device)? } as u64,
        compute_capability: (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
    })
}

pub(crate) fn library_versions() -> [(&'static str, [c_int; 3]); 3] {
    macro_rules! version {
        ($library:ident, $get:ident) => {{
            use $library::libraryPropertyType::{MAJOR_VERSION, MINOR_VERSION, PATCH_LEVEL};
            [MAJOR_VERSION, MINOR_VERSION, PATCH_LEVEL].map(|part| {
                let mut number = 0;
                // SAFETY: it writes one integer. Its only error is an unknown property.
                unsafe { $library::$get(part, &raw mut number) };
                number
            })
        }};
    }
    [
        ("libcublas.so", version!(cublas, cublasGetProperty)),
        ("libcublasLt.so", version!(cublaslt, cublasLtGetProperty)),
        ("libcurand.so", version!(curand, curandGetProperty)),
    ]
}

/// The memory pool of a GPU's tensors; `None` where the driver has none, as on some virtual GPUs. Memory is then allocated
/// and freed synchronously.
fn pool(gpu: &CudaDevice) -> std::result::Result<Option<CUmemoryPool>, DriverError> {
    let context = Arc::clone(gpu.cuda_stream().context());
    if !context.has_async_alloc() {
        return Ok(None);
    }
    // SAFETY: the context's device exists.
    unsafe { device::get_mem_pool(context.cu_device()) }.map(Some)
}

/// Keeps freed memory in the pool. By default it is returned to the driver at every synchronization and has to be
/// allocated again.
pub(crate) fn keep_freed(gpu: &CudaDevice) -> Result<()> {
    set_attribute(gpu, PoolAttribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, u64::MAX)
}

/// Resets the peak of [`memory`] to what is in use; the driver accepts no value but 0 for it.
pub(crate) fn reset_peak(gpu: &CudaDevice) -> Result<()> {
    gpu.cuda_stream().context().bind_to_thread().map_err(device_error)?;
    set_attribute(gpu, PoolAttribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH, 0)
}

/// Sets a 64-bit attribute of the GPU's pool, if it has one.
fn set_attribute(gpu: &CudaDevice, attribute: PoolAttribute, mut value: u64) -> Result<()> {
    let Some(pool) = pool(gpu).map_err(device_error)? else { return Ok(()) };
    // SAFETY: the pool is the device's, and the attribute has 64 bits.
    unsafe { mem_pool::set_attribute(pool, attribute, (&raw mut value).cast()) }
        .map_err(device_error)
}

/// Bytes of a GPU's L2 cache.
pub(crate) fn l2_cache_bytes(gpu: &CudaDevice) -> Result<u64> {
    let device = gpu.cuda_stream().context().cu_device();
    // SAFETY: the context's device exists.
    let bytes =
        unsafe { device::get_attribute(device, Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE) };
    Ok(bytes.map_err(device_error)?.max(0) as u64)
}

/// Memory statistics of a GPU.
pub(crate) fn memory(gpu: &CudaDevice) -> Result<DeviceMemory> {
    gpu.cuda_stream().context().bind_to_thread().map_err(device_error)?;
    let (free, total) = mem_get_info().map_err(device_error)?;
    let device = gpu.cuda_stream().context().cu_device();
    let name = device::get_name(device).map_err(device_error)?;
    let (free_bytes, total_bytes) = (free as u64, total as u64);
    let Some(pool) = pool(gpu).map_err(device_error)? else {
        return Ok(DeviceMemory { name, free_bytes, total_bytes, peak_bytes: None });
    };
    let attribute = |attribute| {
        let mut bytes = 0_u64;
        // SAFETY: the pool is the device's, and the attributes have 64 bits.
        unsafe { mem_pool::get_attribute(pool, attribute, (&raw mut bytes).cast()) }
            .map(|()| bytes)
            .map_err(device_error)
    };
    let reserved = attribute(PoolAttribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)?;
    let used = attribute(PoolAttribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT)?;
    Ok(DeviceMemory {
        name,
        free_bytes: free_bytes + reserved.saturating_sub(used),
        total_bytes,
        peak_bytes: Some(attribute(PoolAttribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH)?),
    })
}

fn device_error(error: DriverError) -> Error {
    Error::Device { op: OP, what: error.to_string() }
}

/// CUDA encodes 13.1 as 13010.
fn version(code: c_int) -> (i32, i32) {
    (code / 1000, code % 1000 / 10)
}
