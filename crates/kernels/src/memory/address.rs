//! A tensor's memory as other libraries take it: where it begins, and when it may be touched.

#[cfg(feature = "cuda")]
use candle_core::cuda_backend::cudarc::driver::CudaEvent;
use candle_core::{Device, Tensor};

use super::floats;
use crate::error::Result;

/// Where the numbers of a contiguous f32 tensor begin, in the memory of its device. They stay there as long as the tensor
/// lives.
///
/// # Errors
/// The tensor is not contiguous `f32`.
pub fn address(tensor: &Tensor) -> Result<u64> {
    const OP: &str = "address";
    #[cfg(feature = "cuda")]
    if tensor.device().is_cuda() {
        use crate::cuda::{Dtype, read};
        return Ok(read(tensor, OP)?.of(Dtype::F32)?.at as usize as u64);
    }
    Ok(floats(tensor, OP)?.as_ptr() as usize as u64)
}

/// All that was queued on a device up to a moment: who works on another stream of it waits for that.
#[derive(Debug)]
pub struct Mark {
    #[cfg(feature = "cuda")]
    event: Option<CudaEvent>,
}

impl Mark {
    /// What `device` has been given to do until now; nothing on the CPU.
    ///
    /// # Errors
    /// The device refuses to mark it.
    pub fn now(device: &Device) -> Result<Self> {
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

    /// The event behind it (a `CUevent`), which is there as long as this is; 0 where nothing was queued.
    pub fn event(&self) -> u64 {
        #[cfg(feature = "cuda")]
        if let Some(event) = &self.event {
            return event.cu_event() as usize as u64;
        }
        0
    }
}
