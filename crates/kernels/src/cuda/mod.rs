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
pub(crate) mod linear;
pub(crate) mod lm_head;
pub(crate) mod lookup;
pub(crate) mod memory;
pub(crate) mod optimizer;
pub(crate) mod paged_attention;
pub(crate) mod quantized;
pub(crate) mod rms_norm;
pub(crate) mod row_buffer;
mod row_sums;
pub(crate) mod sample;
pub(crate) mod weight;

use candle_core::{Device, Tensor};

pub(crate) use buffer::{DeviceSlice, Dtype, Stream, create, read, upload, write, write_all};

use crate::error::{Error, Result};

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

/// Launches a kernel: `launch!(OP, launcher(arguments))`. The caller has checked that the sizes passed match the
/// memory.
macro_rules! launch {
    ($op:expr, $launcher:ident($($argument:expr),* $(,)?)) => {
        {
            #[cfg(feature = "cuda-host")]
            $crate::cuda::host::count_launch();
            // SAFETY: the launcher accesses the memory behind its pointers, of the sizes passed, which the operation
            // has checked; the tensors are borrowed during the launch, and later work is ordered after it on the
            // stream.
            $crate::cuda::check_code($op, unsafe { $launcher($($argument),*) })
        }
    };
}
use launch;
