//! The device's side of the operations: own kernels of the folder `cuda`, launched on tensors' memory.
//!
//! An operation looks where its first tensor is ([`on`]) and calls its namesake here with shapes that it
//! has checked. A module here holds a launcher's declaration beside its only call. With feature `cuda`
//! tensors are a GPU's; with `cuda-host` they are the CPU's, and the kernels run on a stand-in
//! (`cuda/host.h`) where a switch says so ([`host`]).
//!
//! Numbers are f32 or bf16. All work of a device is put on the stream of its candle device, one after the
//! other; [`crate::device::cuda`] opens one with a single stream.

pub(crate) mod attention;
#[cfg(feature = "cuda")]
mod blas;
pub(crate) mod blocks;
mod buffer;
pub(crate) mod elementwise;
#[cfg(feature = "cuda")]
pub(crate) mod gpus;
#[cfg(feature = "cuda-host")]
pub(crate) mod host;
#[cfg(not(feature = "cuda"))]
mod host_product;
pub(crate) mod linear;
pub(crate) mod lm_head;
pub(crate) mod lookup;
pub(crate) mod memory;
pub(crate) mod optimizer;
pub(crate) mod paged_attention;
pub(crate) mod product;
pub(crate) mod rms_norm;
pub(crate) mod sample;
mod sums;
pub(crate) mod table;
pub(crate) mod together;
pub(crate) mod weight;

use candle_core::{Device, Tensor};

pub(crate) use buffer::{Dtype, Numbers, Stream, create, read, upload, write, write_all};

use crate::error::{Error, Result};

/// Whether an operation on this tensor is the device's.
pub(crate) fn on(tensor: &Tensor) -> bool {
    is_device(tensor.device())
}

/// Whether operations on tensors of `device` are the device's.
pub(crate) fn is_device(device: &Device) -> bool {
    match device {
        #[cfg(feature = "cuda-host")]
        Device::Cpu => host::is_on(),
        Device::Cuda(_) => true,
        _ => false,
    }
}

/// An error of a launcher's code, unless it is 0.
fn check_code(op: &'static str, code: i32) -> Result<()> {
    match code {
        0 => Ok(()),
        code => Err(Error::Device { op, what: buffer::words(code) }),
    }
}

/// Launches a kernel: `launch!(OP, launcher(arguments))`. The caller has checked that the sizes given are
/// those of the memory given.
macro_rules! launch {
    ($op:expr, $launcher:ident($($argument:expr),* $(,)?)) => {
        {
            #[cfg(feature = "cuda-host")]
            $crate::cuda::host::count_launch();
            // SAFETY: the launcher reads and writes the memory that its pointers name, of the sizes beside
            // them, which the operation has checked; the tensors are held while it is launched, and what
            // comes later on the stream comes after it.
            $crate::cuda::check_code($op, unsafe { $launcher($($argument),*) })
        }
    };
}
use launch;
