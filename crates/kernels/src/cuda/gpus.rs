//! What GPUs there are.
#![allow(unsafe_code)]

use std::ffi::c_int;

use cudarc::driver::DriverError;
use cudarc::driver::result::{device, init};
use cudarc::driver::sys::{CUdevice_attribute as Attribute, cuDriverGetVersion};

use crate::device::{Gpu, Gpus};
use crate::error::{Error, Result};

const OP: &str = "devices";

unsafe extern "C" {
    fn er_runtime_version() -> c_int;
}

pub(crate) fn gpus() -> Result<Gpus> {
    let fault = |error: DriverError| Error::Device { op: OP, what: error.to_string() };
    init().map_err(fault)?;
    let count = device::get_count().map_err(fault)?;
    let gpus: std::result::Result<Vec<Gpu>, DriverError> = (0..count).map(gpu).collect();
    let mut driver = 0;
    // SAFETY: it writes one number.
    unsafe { cuDriverGetVersion(&raw mut driver) }.result().map_err(fault)?;
    // SAFETY: it takes nothing and gives a number.
    let runtime = unsafe { er_runtime_version() };
    Ok(Gpus { gpus: gpus.map_err(fault)?, driver: version(driver), runtime: version(runtime) })
}

fn gpu(ordinal: c_int) -> std::result::Result<Gpu, DriverError> {
    let device = device::get(ordinal)?;
    // SAFETY: the device was given by the driver.
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

/// CUDA writes 13.1 as 13010.
fn version(number: c_int) -> (i32, i32) {
    (number / 1000, number % 1000 / 10)
}
