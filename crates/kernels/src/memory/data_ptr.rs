//! Device pointers and events for other libraries (NCCL, MPI).

#[cfg(feature = "cuda")]
use candle_core::cuda_backend::cudarc::driver::CudaEvent;
use candle_core::{Device, Tensor};

use super::floats;
use crate::error::Result;

/// Pointer to the first element of a contiguous f32 tensor, in its device's memory. Valid as long as the tensor
/// lives.
///
/// # Errors
/// The tensor is not contiguous `f32`.
pub fn data_ptr(tensor: &Tensor) -> Result<u64> {
    const OP: &str = "data_ptr";
    #[cfg(feature = "cuda")]
    if tensor.device().is_cuda() {
        use crate::cuda::{Dtype, read};
        return Ok(read(tensor, OP)?.expect_dtype(Dtype::F32)?.ptr as usize as u64);
    }
    Ok(floats(tensor, OP)?.as_ptr() as usize as u64)
}

/// A CUDA event: work on other streams waits for it before touching the tensors of this one.
#[derive(Debug)]
pub struct StreamEvent {
    #[cfg(feature = "cuda")]
    event: Option<CudaEvent>,
}

impl StreamEvent {
    /// Records an event on the device's stream; empty on the CPU.
    ///
    /// # Errors
    /// The CUDA call failed.
    pub fn record(device: &Device) -> Result<Self> {
        #[cfg(feature = "cuda")]
        if let Device::Cuda(cuda) = device {
            let event = cuda.cuda_stream().record_event(None);
            return Ok(Self { event: Some(event.map_err(candle_core::Error::wrap)?) });
        }
        let _ = device;
        Ok(Self {
            #[cfg(feature = "cuda")]
            event: None,
        })
    }

    /// The `CUevent`, valid as long as `self`; 0 on the CPU.
    pub fn handle(&self) -> u64 {
        #[cfg(feature = "cuda")]
        if let Some(event) = &self.event {
            return event.cu_event() as usize as u64;
        }
        0
    }
}
