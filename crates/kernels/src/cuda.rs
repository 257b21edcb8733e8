//! CUDA implementation of the operations: the kernels of the folder `cuda`, launched on tensors' memory.
//!
//! An operation dispatches on its first tensor's device ([`on`]) to its namesake here, with checked shapes. Each
//! module declares its launchers and contains their only calls. With feature `cuda` tensors are on a GPU. With
//! `cuda-host` they are on the CPU, and the kernels run under CPU emulation (`cuda/host.h`) when switched on
//! ([`host`]).
//!
//! Elements are f32 or bf16. All work of a device is ordered on the stream of its candle device;
//! [`crate::device::cuda`] opens one with a single stream.

pub(crate) mod attention;
#[cfg(feature = "cuda")]
mod blas;
mod buffer;
pub(crate) mod elementwise;
pub(crate) mod fused;
pub(crate) mod gemm;
#[cfg(feature = "cuda-host")]
pub(crate) mod host;
#[cfg(not(feature = "cuda"))]
mod host_gemm;
#[cfg(feature = "cuda")]
pub(crate) mod inventory;
pub(crate) mod latency;
pub(crate) mod linear;
pub(crate) mod lm_head;
pub(crate) mod lookup;
pub(crate) mod memory;
pub(crate) mod optimizer;
pub(crate) mod paged_attention;
pub(crate) mod profile;
pub(crate) mod quantized;
pub(crate) mod rms_norm;
pub(crate) mod rope;
pub(crate) mod row_buffer;
mod row_sums;
pub(crate) mod sample;
pub(crate) mod timer;
pub(crate) mod weight;

use std::ffi::c_int;

use candle_core::{Device, Tensor};

pub(crate) use buffer::{
    DeviceSlice, Dtype, Stream, create, read, upload, upload_values, write, write_all,
};

use crate::error::{Error, Result, check};

/// Whether an operation on this tensor runs CUDA kernels.
pub(crate) fn on(tensor: &Tensor) -> bool {
    is_device(tensor.device())
}

/// Whether operations on tensors of `device` run CUDA kernels.
pub(crate) fn is_device(device: &Device) -> bool {
    match device {
        #[cfg(feature = "cuda-host")]
        Device::Cpu => host::is_on(),
        Device::Cuda(_) => true,
        _ => false,
    }
}

/// An error for a launcher's non-zero code.
fn check_code(op: &'static str, code: i32) -> Result<()> {
    match code {
        0 => Ok(()),
        code => Err(Error::Device { op, what: buffer::describe_code(code) }),
    }
}

/// Elements of a row that kernels over rows index in 32 bits (`row_fits` of `device.h`).
const MAX_ROW_WIDTH: usize = 1 << 30;

/// The number of elements of a row, for a kernel over rows.
///
/// # Errors
/// [`Error::Shape`] for a row that the kernels cannot index.
fn row_width(width: usize, op: &'static str) -> Result<c_int> {
    check(width <= MAX_ROW_WIDTH, op, || {
        format!("a row has {width} elements, more than {MAX_ROW_WIDTH}")
    })?;
    Ok(width as c_int)
}

/// Launches a kernel: `launch!(OP, launcher(arguments))`. The caller has checked that the sizes passed match the
/// memory.
macro_rules! launch {
    ($op:expr, $launcher:ident($($argument:expr),* $(,)?)) => {
        {
            // SAFETY: the launcher accesses the memory behind its pointers, of the sizes passed, which the operation
            // has checked; the tensors are borrowed during the launch, and later work is ordered after it on the
            // stream.
            let launch = || unsafe { $launcher($($argument),*) };
            $crate::cuda::check_code($op, $crate::cuda::profile::launched(stringify!($launcher), launch))
        }
    };
}
use launch;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_needs_more_than_32_bit_indices_is_refused() {
        assert_eq!(row_width(MAX_ROW_WIDTH, "test").unwrap(), 1 << 30);
        // Truncated to 32 bits, the last would be a width of 5.
        for width in [MAX_ROW_WIDTH + 1, 1 << 31, (1 << 32) + 5] {
            let message = row_width(width, "test").unwrap_err().to_string();
            assert!(message.contains(&width.to_string()), "{message}");
        }
    }
}
