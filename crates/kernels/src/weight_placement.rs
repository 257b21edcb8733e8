//! Format and device of a model's weights.

use candle_core::{DType, Device, Tensor};

use crate::error::Result;
use crate::memory::to_device;
use crate::quantized::QuantizedMatrix;
use crate::weight::{Weight, WeightFormat};

/// Format and device of a model's weights. A bare format means the CPU.
#[derive(Debug, Clone)]
pub struct WeightPlacement {
    /// Format of matrices.
    pub format: WeightFormat,
    /// Device of the weights and of the computation.
    pub device: Device,
}

impl From<WeightFormat> for WeightPlacement {
    fn from(format: WeightFormat) -> Self {
        Self { format, device: Device::Cpu }
    }
}

impl WeightPlacement {
    /// A copy of a matrix in this format, on this device.
    ///
    /// # Errors
    /// As [`Weight::in_format`], or out of memory.
    pub fn matrix(&self, weight: &Tensor) -> Result<Weight> {
        Weight::in_format(&self.vector(weight)?, self.format)
    }

    /// Weights of a GGUF file on this device, in their own format. Ours selects the activation dtype, on a CPU only that of
    /// bf16 weights: f32, or else bf16.
    ///
    /// # Errors
    /// Out of memory.
    pub fn blocks(&self, blocks: &QuantizedMatrix) -> Result<Weight> {
        let activations = match self.format {
            WeightFormat::F32 => DType::F32,
            _ => DType::BF16,
        };
        Weight::quantized_on(blocks, &self.device, activations)
    }

    /// A tensor on this device, unconverted.
    ///
    /// # Errors
    /// Out of memory.
    pub fn vector(&self, tensor: &Tensor) -> Result<Tensor> {
        to_device(tensor, &self.device)
    }
}
